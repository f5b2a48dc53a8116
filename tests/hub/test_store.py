"""The database: single use of tokens, rising timestamps, nothing kept in clear."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from restunnel_hub.pairing import Pairing, usable_name
from restunnel_hub.store import Store, StoreThread
from restunnel_protocol import Endpoint, Enroll, Hello, Initiator, PrivateKey, PublicKey, Responder

HUB = PrivateKey.generate()
NOW = 1_700_000_000.0


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "hub.sqlite3")
    yield store
    store.close()


def key(number: int) -> PublicKey:
    return PublicKey(bytes((number,)) * 32)


def enrol(store: Store, token: bytes, number: int = 1, *, now: float = NOW, timestamp: int = 5):
    return store.enrol(token, key(number), timestamp, "device", "192.0.2.1", now)


def test_a_token_enrols_one_key_once(store):
    token = store.add_token(b"hash", "phone", "home", NOW, NOW + 900)
    record = enrol(store, b"hash")
    assert (record.name, record.group, record.public_key) == ("phone", "home", key(1))
    assert enrol(store, b"hash", 2) is None
    assert enrol(store, b"hash", 1, timestamp=6) is None
    assert store.nodes() == [record]
    used = store.token(token.id)
    assert (used.used_at, used.node_id) == (NOW, record.id)


def test_unknown_and_expired_tokens_enrol_nothing(store):
    store.add_token(b"hash", "", "", NOW, NOW + 900)
    assert enrol(store, b"other") is None
    assert enrol(store, b"hash", now=NOW + 900) is None
    assert store.nodes() == []
    assert enrol(store, b"hash", now=NOW + 899.9) is not None


def test_a_known_key_keeps_its_id_and_its_timestamp_guard(store):
    store.add_token(b"one", "", "", NOW, NOW + 900)
    first = enrol(store, b"one", timestamp=10)
    store.add_token(b"two", "renamed", "", NOW, NOW + 900)
    assert enrol(store, b"two", timestamp=10) is None
    again = enrol(store, b"two", timestamp=11)
    assert (again.id, again.name) == (first.id, "renamed")
    assert len(store.nodes()) == 1


def test_timestamps_only_rise_also_after_reopening(store, tmp_path):
    store.add_token(b"hash", "", "", NOW, NOW + 900)
    node = enrol(store, b"hash", timestamp=10)
    assert not store.raise_timestamp(node.id, 10, "192.0.2.9", NOW)
    assert store.raise_timestamp(node.id, 2**63 - 1, "192.0.2.9", NOW)
    store.close()
    reopened = Store(tmp_path / "hub.sqlite3")
    assert not reopened.raise_timestamp(node.id, 2**63 - 1, "192.0.2.9", NOW)
    assert not reopened.raise_timestamp("nobody", 2**63 - 1, "192.0.2.9", NOW)
    reopened.close()


def test_a_revoked_node_is_gone_for_good(store):
    store.add_token(b"hash", "", "", NOW, NOW + 900)
    node = enrol(store, b"hash")
    store.revoke(node.id)
    assert store.nodes() == []
    assert not store.raise_timestamp(node.id, 100, "192.0.2.9", NOW)


def test_names_are_unique(store):
    for number in range(1, 4):
        store.add_token(bytes((number,)), "phone", "", NOW, NOW + 900)
        enrol(store, bytes((number,)), number)
    by_name = {node.name: node for node in store.nodes()}
    assert set(by_name) == {"phone", "phone-2", "phone-3"}
    first = by_name["phone"]
    assert not store.change(first.id, name="phone-2")
    assert store.change(first.id, name="phone")


def test_the_database_is_for_its_owner_only_and_written_through(store, tmp_path):
    assert stat.S_IMODE((tmp_path / "hub.sqlite3").stat().st_mode) == 0o600
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "delete"


class Clocks:
    """A wall and a monotonic clock that stand still until told."""

    def __init__(self) -> None:
        self.wall, self.monotonic = NOW, 100.0


@pytest.fixture
def paired(store):
    clocks = Clocks()
    thread = StoreThread(store)
    pairing = Pairing(
        thread,
        HUB.public,
        lambda: [Endpoint("hub.example", 9000)],
        wall=lambda: clocks.wall,
        monotonic=lambda: clocks.monotonic,
    )
    return pairing, clocks


def request_for(token: bytes):
    node = PrivateKey.generate()
    hello = Hello(1)
    message = Initiator(node, HUB.public, hello, enroll=Enroll(token)).write_message_1()
    responder = Responder(HUB)
    return responder.read_message_1(message, responder.recognise(message))


async def redeem(pairing: Pairing, token: bytes):
    request = request_for(token)
    return await pairing.redeem(request, request.enroll, "192.0.2.1")


async def test_the_store_has_a_hash_of_the_token_only(paired, tmp_path):
    pairing, _ = paired
    invitation = await pairing.invite()
    content = (tmp_path / "hub.sqlite3").read_bytes()
    assert invitation.link.token not in content
    assert hashlib.sha256(invitation.link.token).digest() in content


@pytest.mark.parametrize(
    ("wall", "monotonic", "good"),
    [
        (899, 899, True),
        (901, 899, False),
        (899, 901, False),
        (-86400, 899, True),
        (-86400, 901, False),
    ],
)
async def test_a_token_dies_by_either_clock(paired, wall, monotonic, good):
    pairing, clocks = paired
    invitation = await pairing.invite()
    clocks.wall += wall
    clocks.monotonic += monotonic
    assert (await redeem(pairing, invitation.link.token) is not None) == good


async def test_of_many_threads_that_enrol_at_once_one_wins(store):
    store.add_token(b"hash", "", "", NOW, NOW + 900)
    thread = StoreThread(store)
    results = [await thread.call(enrol, store, b"hash", number) for number in range(1, 9)]
    assert sum(result is not None for result in results) == 1
    assert threading.active_count() < 10


async def test_links_carry_the_hubs_endpoints_and_key(paired):
    pairing, _ = paired
    link = (await pairing.invite("phone")).link
    assert link.hub == HUB.public
    assert str(link.endpoints[0]) == "hub.example:9000"
    assert link.expires_at == NOW + 900
    assert os.urandom(32) != link.token != (await pairing.invite()).link.token


@pytest.mark.parametrize(
    ("suggested", "name"),
    [
        ("Anna's phone", "Anna's phone"),
        ("a,b=c", "a-b-c"),
        (" \u202eevil\u009b31m ", "evil31m"),
        ("\u200b", ""),
    ],
)
def test_what_a_device_calls_itself_is_made_fit_for_use(suggested, name):
    assert usable_name(suggested) == name
