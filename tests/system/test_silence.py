"""Port 9000 says nothing to strangers and never closes first."""

from __future__ import annotations

import itertools
import os
import random
import select
import shutil
import socket
import time
from collections.abc import Iterator

import pytest

from restunnel_hub.client import request
from restunnel_protocol import Enroll, Hello, Initiator, PairingLink, PrivateKey, Suite
from restunnel_protocol.keys import PublicKey
from restunnel_protocol.noise import compute_mac1, mac1_key
from support.capture import ACK, FIN, PSH, RST, SYN, Capture, Packet
from support.services import PATIENCE, Hub, Node, faketime, reset, wait_until

WATCH = 3.0
"""Seconds of silence to watch where the main tests have shown that it lasts."""

LOW_ORDER = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
"""An X25519 point of small order (cr.yp.to/ecdh.html)."""


@pytest.fixture
def silent_hub(hub: Hub) -> Hub:
    """A running hub with one open pairing link in `hub.open_link`."""
    hub.start()
    hub.open_link = PairingLink.parse(hub.link())
    return hub


def enrolled(hub: Hub) -> tuple[PublicKey, PrivateKey]:
    """The hub's key, and that of a device that has enrolled with a link of its own."""
    link, key = PairingLink.parse(hub.link()), PrivateKey.generate()
    with say(hub.address("tunnel"), message_1(link.hub, key, enroll=Enroll(link.token))) as sock:
        assert sock.recv(2)
    return link.hub, key


class Stranger:
    """Makes what each kind of stranger says that gets as far as a right mac1."""

    def __init__(self, hub: Hub) -> None:
        self.hub, revoked = enrolled(hub)
        name = hub.nodes()[-1]["id"]
        used = PairingLink.parse(hub.link())
        with say(hub.address("tunnel"), message_1(self.hub, enroll=Enroll(used.token))) as sock:
            assert sock.recv(2)
        _, known = enrolled(hub)
        recorded = message_1(self.hub, known)
        with say(hub.address("tunnel"), recorded) as sock:
            assert sock.recv(2)
        expired = PairingLink.parse(hub.link("--ttl", "1s"))
        hub.call("node", "revoke", name)
        wait_until(lambda: time.time() > expired.expires_at + 1, "a link to expire")
        self.makes = {
            "unknown key": lambda: message_1(self.hub),
            "unknown key, other suite": lambda: message_1(self.hub, suite=Suite.CHACHAPOLY_BLAKE2S),
            "revoked key": lambda: message_1(self.hub, revoked),
            "invented token": lambda: message_1(self.hub, enroll=Enroll(os.urandom(32))),
            "used token": lambda: message_1(self.hub, enroll=Enroll(used.token)),
            "expired token": lambda: message_1(self.hub, enroll=Enroll(expired.token)),
            "replay": lambda: recorded,
            "low order": self._low_order,
        }

    def _low_order(self) -> bytes:
        message = bytearray(message_1(self.hub))
        message[18:50] = bytes.fromhex(LOW_ORDER)
        key = mac1_key(self.hub, Suite.AESGCM_SHA256)
        message[2:18] = compute_mac1(key, bytes(message[:2]), message[18:])
        return bytes(message)


def message_1(hub: PublicKey, key: PrivateKey | None = None, **options) -> bytes:
    """A well-formed message 1 of a device that the hub does not know."""
    hello = Hello(time.time_ns())
    return Initiator(key or PrivateKey.generate(), hub, hello, **options).write_message_1()


def strangers(link: PairingLink) -> Iterator[tuple[str, bytes]]:
    """All that a stranger might say, with a word for it."""
    hub = link.hub
    yield "nothing", b""
    yield "TLS", bytes.fromhex("16030100c8010000c40303") + os.urandom(200)
    yield "HTTP", b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"
    yield "SSH", b"SSH-2.0-OpenSSH_9.2\r\n"
    yield "SMB", b"\x00\x00\x00\x54\xffSMBr\x00\x00\x00\x00" + bytes(70)
    yield "a megabyte", os.urandom(1 << 20)
    good = message_1(hub)
    yield "another hub's key", message_1(PrivateKey.generate().public)
    for number in range(len(good)):
        yield f"cut after {number}", good[:number]
        yield f"bad byte {number}", good[:number] + bytes((good[number] ^ 1,)) + good[number + 1 :]
    yield "one byte too many", message_1(hub, enroll=Enroll(link.token)) + b"\0"
    for length in (0, 1, 111, 112, 1024, 1025, 65535):
        yield f"length {length}", length.to_bytes(2, "big") + bytes(min(length, 2000))


def assert_silent(sockets: dict[socket.socket, str], seconds: float) -> None:
    """No connection gets a byte, an end or a reset within `seconds`."""
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLRDHUP | select.POLLERR)
    ready = {descriptor for descriptor, _ in poll.poll(seconds * 1000)}
    assert [word for sock, word in sockets.items() if sock.fileno() in ready] == []


def say(address: tuple[str, int], data: bytes) -> socket.socket:
    sock = socket.create_connection(address, PATIENCE)
    sock.sendall(data)
    return sock


@pytest.mark.patient
@pytest.mark.parametrize("seconds", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_strangers_get_neither_a_byte_nor_a_close(silent_hub: Hub, seconds: int):
    address = silent_hub.address("tunnel")
    makes = Stranger(silent_hub).makes
    known = len(silent_hub.nodes())
    sockets = {say(address, data): word for word, data in strangers(silent_hub.open_link)}
    sockets |= {say(address, make()): word for word, make in makes.items()}
    talker = say(address, b"")
    sockets[talker] = "a byte a second"
    whole = message_1(silent_hub.open_link.hub)
    for number in range(int(seconds)):
        talker.sendall(whole[number : number + 1] or b"x")
        assert_silent(sockets, 1)
    assert silent_hub.status()["strangers"] == len(sockets)
    for sock in sockets:
        reset(sock)
    wait_until(lambda: silent_hub.status()["strangers"] == 0, "strangers to be forgotten")
    assert len(silent_hub.nodes()) == known


def test_a_stranger_that_half_closes_is_held_too_and_then_forgotten(silent_hub: Hub):
    sock = say(silent_hub.address("tunnel"), b"hello?")
    sock.shutdown(socket.SHUT_WR)
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLRDHUP | select.POLLERR)
    assert poll.poll(WATCH * 1000) == []
    assert silent_hub.status()["strangers"] == 1
    sock.close()


def test_a_replayed_message_1_meets_silence_also_after_a_crash_of_the_hub(silent_hub: Hub):
    link, key = silent_hub.open_link, PrivateKey.generate()
    enrolment = message_1(link.hub, key, enroll=Enroll(link.token))
    with say(silent_hub.address("tunnel"), enrolment) as sock:
        assert sock.recv(2)
    again = message_1(link.hub, key)
    with say(silent_hub.address("tunnel"), again) as sock:
        assert sock.recv(2)
    replays = {"enrolment": enrolment, "reconnection": again}
    for crash in (False, True):
        if crash:
            silent_hub.destroy()
            silent_hub.start()
        address = silent_hub.address("tunnel")
        sockets = {say(address, data): word for word, data in replays.items()}
        assert_silent(sockets, WATCH)
        for sock in sockets:
            sock.close()


@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
def test_a_replayed_message_1_meets_silence_after_the_hubs_clock_went_back(silent_hub: Hub):
    hub, key = enrolled(silent_hub)
    recorded = message_1(hub, key)
    with say(silent_hub.address("tunnel"), recorded) as sock:
        assert sock.recv(2)
    silent_hub.stop()
    silent_hub.start(environment=faketime("-1d"))
    address = silent_hub.address("tunnel")
    assert PairingLink.parse(silent_hub.link()).expires_at < time.time() - 80_000
    with say(address, recorded) as sock:
        assert_silent({sock: "replay"}, WATCH)
    with say(address, message_1(hub, key)) as sock:
        assert sock.recv(2)  # the device itself is as welcome as ever


def test_a_used_token_meets_silence_from_every_key(silent_hub: Hub, node: Node):
    link, key = silent_hub.open_link, PrivateKey.generate()
    address = silent_hub.address("tunnel")
    with say(address, message_1(link.hub, key, enroll=Enroll(link.token))) as sock:
        assert sock.recv(2)
    enroll = Enroll(link.token)
    sockets = {
        say(address, message_1(link.hub, key, enroll=enroll)): "the same key",
        say(address, message_1(link.hub, enroll=enroll)): "another key",
    }
    assert_silent(sockets, WATCH)
    for sock in sockets:
        sock.close()


def test_of_many_that_race_for_a_token_one_wins(silent_hub: Hub):
    link = silent_hub.open_link
    sockets = [socket.create_connection(silent_hub.address("tunnel")) for _ in range(20)]
    for sock in sockets:
        sock.sendall(message_1(link.hub, enroll=Enroll(link.token)))
    wait_until(lambda: select.select(sockets, [], [], 0)[0], "an answer")
    assert len(silent_hub.nodes()) == 1
    assert len(select.select(sockets, [], [], 0)[0]) == 1
    for sock in sockets:
        sock.close()


@pytest.mark.slow
def test_of_two_that_race_for_a_token_one_wins_a_thousand_times(hub: Hub):
    hub.start()
    control, address = hub.data_dir / "hub.sock", hub.address("tunnel")
    for _ in range(1000):
        link = PairingLink.parse(request(control, "POST", "/pairings", {})["link"])
        sockets = [socket.create_connection(address) for _ in range(2)]
        messages = [message_1(link.hub, enroll=Enroll(link.token)) for _ in sockets]
        for sock, message in zip(sockets, messages, strict=True):
            sock.sendall(message)
        (winner,) = select.select(sockets, [], [], 10)[0]
        assert winner.recv(1)
        for sock in sockets:
            sock.close()
    assert len(hub.nodes()) == 1000


@pytest.mark.parametrize(("age", "good"), [(899, True), (901, False)])
def test_a_token_lives_for_fifteen_minutes_of_the_wall_clock(hub: Hub, tmp_path, age, good):
    if not shutil.which("faketime"):
        pytest.skip("faketime is not installed")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = faketime("+0")
    del environment["FAKETIME"]
    hub.start(
        environment={
            **environment,
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
        }
    )
    link = PairingLink.parse(hub.link())
    clock.write_text(f"+{age}")
    with socket.create_connection(hub.address("tunnel")) as sock:
        sock.sendall(message_1(link.hub, enroll=Enroll(link.token)))
        assert bool(select.select([sock], [], [], 2)[0]) is good
    assert len(hub.nodes()) == good


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="capturing packets needs root")


@needs_root
def test_a_wiretap_sees_one_kind_of_connection(silent_hub: Hub):
    """Whatever a stranger says, the hub's side is a SYN-ACK and bare acknowledgements."""
    address = silent_hub.address("tunnel")
    makes = Stranger(silent_hub).makes
    with Capture(address[1]) as capture:
        sockets = {say(address, data): word for word, data in strangers(silent_hub.open_link)}
        sockets |= {say(address, make()): word for word, make in makes.items()}
        assert_silent(sockets, WATCH)
    ports = {sock.getsockname()[1]: word for sock, word in sockets.items()}
    seen = {word: set() for word in ports.values()}
    for packet in capture.packets:
        if packet.source == address[1] and packet.destination in ports:
            seen[ports[packet.destination]].add(
                (packet.flags & (FIN | SYN | RST | PSH | ACK), packet.size)
            )
    for sock in sockets:
        sock.close()
    for word, packets in seen.items():
        silent = (
            {(SYN | ACK, 0)} if word in ("nothing", "cut after 0") else {(SYN | ACK, 0), (ACK, 0)}
        )
        assert packets == silent, word


ROUNDS = 1000
"""Connections of each kind: 0.05 of area is then four standard deviations."""


def area_under_curve(first: list[float], second: list[float]) -> float:
    """The chance that one of `first` is greater than one of `second` (Mann and Whitney)."""
    ranked = sorted([(value, 0) for value in first] + [(value, 1) for value in second])
    below = area = 0.0
    for _, group in itertools.groupby(ranked, key=lambda item: item[0]):
        tied = [kind for _, kind in group]
        ones = sum(tied)
        area += (len(tied) - ones) * (below + ones / 2)
        below += ones
    return area / (len(first) * len(second))


def acknowledged(packets: list[Packet], port: int) -> dict[int, float]:
    """Seconds, by the client's port, from its words to the hub's acknowledgement of them."""
    said: dict[int, float] = {}
    took: dict[int, float] = {}
    for packet in packets:
        if packet.destination == port and packet.size:
            said.setdefault(packet.source, packet.time)
        elif packet.source == port and packet.destination in said:
            took.setdefault(packet.destination, packet.time - said[packet.destination])
    return took


def largest_area(address: tuple[str, int], makes: dict) -> tuple[float, str]:
    """How well the most different two kinds of stranger can be told apart by time."""
    times: dict[str, list[float]] = {word: [] for word in makes}
    for _ in range(10):
        words = [word for word in makes for _ in range(ROUNDS // 10)]
        random.shuffle(words)
        messages = [makes[word]() for word in words]
        sockets = []
        with Capture(address[1]) as capture:
            for message in messages:
                sockets.append(say(address, message))
                time.sleep(0.0002)  # one stranger's costs are not the next one's time
        took = acknowledged(capture.packets, address[1])
        for word, sock in zip(words, sockets, strict=True):
            times[word].append(took[sock.getsockname()[1]])
            reset(sock)
    pairs = itertools.combinations(makes, 2)
    return max(
        (0.5 + abs(area_under_curve(times[a], times[b]) - 0.5), f"{a}, {b}") for a, b in pairs
    )


@needs_root
@pytest.mark.alone
def test_time_does_not_tell_one_stranger_from_another(silent_hub: Hub):
    good = message_1(silent_hub.open_link.hub)
    makes = Stranger(silent_hub).makes
    makes = {
        "garbage": lambda: os.urandom(len(good)),
        "bad mac1": lambda: good[:2] + os.urandom(16) + good[18:],
        **{
            word: makes[word] for word in ("unknown key", "revoked key", "invented token", "replay")
        },
    }
    found = []
    for _ in range(3):  # noise is not the same twice; a leak is
        found.append(largest_area(silent_hub.address("tunnel"), makes))
        if found[-1][0] <= 0.55:
            return
    pytest.fail(str(found))


def test_nothing_is_visibly_closed_when_descriptors_run_out(hub: Hub, monkeypatch):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, limits[1]))
        hub.start("--grace=1s")
        resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        sockets = {}
        for number in range(500):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(hub.address("tunnel"))
            sockets[sock] = str(number)
        time.sleep(0.5)  # for the accepting to come to its limit
        connected = {
            sock: word
            for sock, word in sockets.items()
            if select.select([], [sock], [], 0)[1]
            and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        }
        assert_silent(connected, WATCH)
        for sock in sockets:
            sock.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
