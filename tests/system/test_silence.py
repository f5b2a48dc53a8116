"""Port 9000 says nothing to strangers and never closes first."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator

import pytest

from restunnel_protocol import Enroll, Hello, Initiator, PairingLink, PrivateKey, Suite
from restunnel_protocol.keys import PublicKey
from support.services import PATIENCE, Hub, Node, reset, wait_until

WATCH = 3.0
"""Seconds of silence to watch, for all connections of a test at once."""


@pytest.fixture
def silent_hub(hub: Hub) -> Hub:
    """A running hub with one open pairing link in `hub.open_link`."""
    hub.start()
    hub.open_link = PairingLink.parse(hub.link())
    return hub


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
    for suite in Suite:
        yield f"unknown key, {suite.name}", message_1(hub, suite=suite)
    yield "invented token", message_1(hub, enroll=Enroll(os.urandom(32)))
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


def test_strangers_get_neither_a_byte_nor_a_close(silent_hub: Hub):
    address = silent_hub.address("tunnel")
    sockets = {say(address, data): word for word, data in strangers(silent_hub.open_link)}
    assert_silent(sockets, WATCH)
    assert silent_hub.status()["strangers"] == len(sockets)
    for sock in sockets:
        reset(sock)
    wait_until(lambda: silent_hub.status()["strangers"] == 0, "strangers to be forgotten")
    assert silent_hub.nodes() == []


@pytest.mark.slow
def test_strangers_are_met_with_silence_for_a_minute(silent_hub: Hub):
    address = silent_hub.address("tunnel")
    sockets = {say(address, data): word for word, data in strangers(silent_hub.open_link)}
    assert_silent(sockets, 60)
    for sock in sockets:
        sock.close()


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
