"""The node's small parts: back-off, clock, hub list, key store, owner's policy."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_node.backoff import Backoff
from restunnel_node.clock import RisingClock
from restunnel_node.hubs import Hub, HubFile, confirmed
from restunnel_node.keystore import FileKeyStore, MemoryKeyStore, load_or_create
from restunnel_node.pairing import parse_link
from restunnel_node.policy import OwnerPolicy, parse_rule, parse_rules
from restunnel_protocol import Endpoint, PairingLink, PrivateKey
from restunnel_protocol.program.errors import ProgramError


@given(st.lists(st.floats(0, 1), max_size=40), st.floats(0.1, 5), st.floats(5, 100))
def test_delays_stay_between_the_first_and_the_cap(draws, first, cap):
    remaining = iter(draws)
    backoff = Backoff(first, cap, lambda low, high: low + (high - low) * next(remaining))
    for _ in draws:
        assert first <= backoff.next() <= cap


def test_delays_grow_are_capped_and_begin_anew():
    backoff = Backoff(1.0, 30.0, lambda low, high: high)
    assert [backoff.next() for _ in range(6)] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    backoff.reset()
    assert backoff.next() == 2.0


def test_many_nodes_do_not_come_back_at_once():
    assert len({round(Backoff(1.0, 60.0).next(), 2) for _ in range(100)}) > 30


def test_timestamps_rise_although_the_clock_goes_back(tmp_path: Path):
    now = [1000]
    path = tmp_path / "timestamp"
    clock = RisingClock(path, lambda: now[0])
    assert [clock.next(), clock.next()] == [1000, 1001]
    now[0] = 5
    assert clock.next() == 1002
    assert RisingClock(path, lambda: 7).next() == 1003
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_timestamp_is_an_error_and_not_a_zero(tmp_path: Path):
    path = tmp_path / "timestamp"
    path.write_text("garbage")
    path.chmod(0o600)
    with pytest.raises(ProgramError, match="damaged"):
        RisingClock(path).next()


@pytest.mark.parametrize("make", [lambda p: FileKeyStore(p / "key"), lambda p: MemoryKeyStore()])
def test_every_key_store_keeps_the_first_key(tmp_path, make):
    store = make(tmp_path)
    assert store.load() is None
    key = load_or_create(store)
    assert load_or_create(store) == key == store.load()
    with pytest.raises(FileExistsError):
        store.save(PrivateKey.generate())


def test_the_key_file_is_private_and_refused_when_it_is_not(tmp_path):
    path = tmp_path / "node_key.bin"
    store = FileKeyStore(path)
    key = load_or_create(store)
    assert path.read_bytes() == key.raw
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["node_key.bin"]
    path.chmod(0o640)
    with pytest.raises(ProgramError, match="other users can read it"):
        store.load()
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(ProgramError, match="cannot read"):
        store.load()


def hub(number: int, host: str = "hub.example") -> Hub:
    key = PrivateKey(bytes((number,)) * 32).public
    return Hub(key, (Endpoint(host, 9000), Endpoint("::1", 9001)))


def test_hubs_are_kept_in_order_and_replaced_by_key(tmp_path):
    file = HubFile(tmp_path / "hubs.toml")
    assert file.load() == []
    file.put(hub(1))
    file.put(confirmed(hub(2), "id2", "phone"))
    file.put(confirmed(hub(1, "new.example"), "id1", "phone"))
    assert [(h.label, h.node_id, h.paired) for h in file.load()] == [
        ("new.example:9000", "id1", True),
        ("hub.example:9000", "id2", True),
    ]
    assert file.forget("hub.example:9000").node_id == "id2"
    with pytest.raises(ProgramError, match="no hub is called"):
        file.forget("hub.example:9000")
    assert len(file.load()) == 1


@pytest.mark.parametrize("content", ["hub = 1", "[[hub]]\nkey = 'x'", "\xff", "[[hub", "[[hub]]"])
def test_a_damaged_hub_list_is_named(tmp_path, content):
    path = tmp_path / "hubs.toml"
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ProgramError, match=r"hubs\.toml is damaged"):
        HubFile(path).load()


def test_rules_of_file_and_configuration_apply_together_and_at_once(tmp_path):
    configured = parse_rules({"deny": ["*:22"]}, "test")
    policy = OwnerPolicy(tmp_path / "policy.toml", configured)
    assert [str(rule) for rule in policy.current().rules] == ["*:22"]
    other_process = OwnerPolicy(tmp_path / "policy.toml")
    other_process.add(parse_rule("allow", "127.0.0.1:8000", "test"))
    assert [str(rule) for rule in policy.current().rules] == ["*:22", "127.0.0.1:8000"]
    other_process.add(parse_rule("deny", "127.0.0.1:8000", "test"))
    assert [rule.action for rule in policy.current().rules] == ["deny", "deny"]
    other_process.remove("127.0.0.1:8000")
    assert len(policy.current().rules) == 1
    with pytest.raises(ProgramError, match="no rule"):
        other_process.remove("127.0.0.1:8000")


@pytest.mark.parametrize(
    "section", [[], {"permit": []}, {"allow": "x"}, {"allow": [1]}, {"allow": ["a b"]}]
)
def test_malformed_rules_in_a_configuration_are_named(section):
    with pytest.raises(ProgramError, match="node.toml"):
        parse_rules(section, "node.toml")


def test_a_link_is_refused_by_the_devices_clock():
    link = PairingLink((Endpoint("h", 1),), hub(1).key, b"t" * 32, 1000)
    assert parse_link(str(link), lambda: 999.9) == link
    for now, words in (
        (1000, "0 seconds"),
        (1080, "80 seconds"),
        (4600, "60 minutes"),
        (99999, "27 hours"),
    ):
        with pytest.raises(ProgramError, match=f"expired {words} ago"):
            parse_link(str(link), lambda now=now: now)


def test_private_files_survive_a_crash_at_any_point(tmp_path, monkeypatch):
    """A write that is cut off before its rename leaves the old content."""
    from restunnel_protocol.program import files

    path = tmp_path / "f"
    files.write_private(path, b"old")
    monkeypatch.setattr(files.os, "fsync", _crash)
    with pytest.raises(_CrashError):
        files.write_private(path, b"new")
    assert path.read_bytes() == b"old"


class _CrashError(BaseException):
    pass


def _crash(*_):
    raise _CrashError


def test_a_lock_has_one_holder_and_is_given_back(tmp_path):
    from restunnel_protocol.program.files import lock

    holder = lock(tmp_path / "lock", "a node")
    with pytest.raises(ProgramError, match="a node is already running"):
        lock(tmp_path / "lock", "a node")
    holder.close()
    lock(tmp_path / "lock", "a node").close()


def test_unix_sockets_work_at_any_path_length(tmp_path):
    from restunnel_protocol.program.unix import bind_unix, connect_unix

    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = directory / "node.sock"
    listener = bind_unix(path)
    listener.setblocking(True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    thread = threading.Thread(target=lambda: listener.accept()[0].close())
    thread.start()
    with connect_unix(path, not_running="no", hint="", timeout=5) as sock:
        assert sock.recv(1) == b""
    thread.join()
    listener.close()
    with pytest.raises(ProgramError, match="no"):
        connect_unix(path, not_running="no", hint="", timeout=5)
    assert os.path.exists(path)
