"""Relays between a TCP connection and a stream: whole, or visibly cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from restunnel_protocol import CloseReason
from restunnel_protocol.aio import Relay, peer_watch
from restunnel_protocol.aio import relay as relay_module
from restunnel_protocol.aio.sockets import PROXIED_NOTSENT_LOWAT, as_transport, tune_proxied
from support.links import Handler, open_stream
from support.services import reset

BIG = 40_000_000
"""Bytes that no chain of socket buffers takes without a reader."""


class Rig:
    """A stream whose node end is relayed to a TCP connection; `peer` is what a target holds."""

    def __init__(self, near, handler: Handler, relay: Relay, peer: socket.socket) -> None:
        self.near = near
        self.handler = handler
        self.relay = relay
        self.peer = peer
        self.done = asyncio.Event()

    async def read(self, size: int) -> bytes:
        data = b""
        loop = asyncio.get_running_loop()
        while len(data) < size:
            piece = await loop.sock_recv(self.peer, min(size - len(data), 1 << 18))
            if not piece:
                break
            data += piece
        return data

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.peer, data)

    async def event(self):
        return await self.handler.events.get()


@pytest.fixture
async def rig(links):
    """A relayed stream, connected."""
    handler = Handler()
    near, far = await open_stream(*links, handler)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rig = Rig(near, handler, Relay(far, lambda relay: rig.done.set()), None)
        await asyncio.get_running_loop().create_connection(
            lambda: rig.relay, *listener.getsockname()
        )
        rig.peer = listener.accept()[0]
        rig.peer.setblocking(False)
    yield rig
    rig.peer.close()
    rig.relay.abort(CloseReason.CANCELLED)
    await rig.done.wait()


async def test_bytes_and_ends_pass_in_both_directions(rig):
    rig.near.send(b"question")
    rig.near.send_eof()
    assert await rig.read(100) == b"question"  # the end has come too
    await rig.write(b"answer")
    assert await rig.event() == b"answer"
    rig.peer.shutdown(socket.SHUT_WR)
    assert await rig.event() == "eof"
    assert await rig.event() is None
    await rig.done.wait()
    assert (rig.relay.bytes_sent, rig.relay.bytes_received, rig.relay.alive) == (8, 6, False)


async def test_a_targets_reset_is_a_reset_of_the_stream(rig):
    await rig.write(b"half")
    assert await rig.event() == b"half"
    reset(rig.peer)
    assert await rig.event() is CloseReason.RESET
    await rig.done.wait()


async def test_what_a_target_sent_before_its_reset_still_arrives(rig):
    await rig.write(bytes(100_000))
    reset(rig.peer)
    size = 0
    while isinstance(event := await rig.event(), bytes):
        size += len(event)
        rig.near.consume(len(event))
    assert event is CloseReason.RESET
    assert size <= 100_000


@pytest.mark.parametrize("reason", [CloseReason.RESET, CloseReason.TUNNEL_LOST])
async def test_a_failed_stream_resets_the_target(rig, reason):
    rig.near.send(b"first")
    assert await rig.read(5) == b"first"
    rig.near.close(reason if reason is CloseReason.RESET else CloseReason.INTERNAL)
    with pytest.raises(ConnectionResetError):
        await rig.read(1)


async def test_a_stream_that_wants_no_more_closes_the_target_well(rig):
    rig.near.send(b"all")
    rig.near.close(CloseReason.NORMAL, drain=True)
    assert await rig.read(100) == b"all"
    await rig.done.wait()


async def send_until_stuck(rig) -> bytes:
    """Send small pieces until neither credit nor sockets take more; what was sent."""
    sent = b""
    block = bytes(range(256)) * 16
    while rig.near.send(block):
        sent += block
        await asyncio.sleep(0)
    return sent + block


async def test_what_a_slow_target_leaves_is_kept_in_one_piece_and_arrives(rig):
    sent = await send_until_stuck(rig)
    relay = rig.relay
    while not relay._backlog:
        await asyncio.sleep(0)
    assert isinstance(relay._backlog, bytearray)
    assert await rig.read(len(sent)) == sent
    assert await rig.event() == "writable"
    assert not relay._backlog
    assert relay._unconsumed == 0


@pytest.mark.parametrize("end", ["eof", "normal"])
async def test_what_a_slow_target_leaves_arrives_before_the_end(rig, end):
    sent = await send_until_stuck(rig)
    while not rig.relay._backlog:
        await asyncio.sleep(0)
    if end == "eof":
        rig.near.send_eof()
    else:
        rig.near.close(CloseReason.NORMAL, drain=True)
    assert await rig.read(len(sent)) == sent
    assert await rig.read(1) == b""


async def test_what_a_slow_target_gets_before_a_reset_is_right_and_the_end_is_visible(rig):
    """A reset overtakes what the kernel has not sent yet, as resets do."""
    sent = await send_until_stuck(rig)
    while not rig.relay._backlog:
        await asyncio.sleep(0)
    rig.near.close(CloseReason.RESET, drain=True)
    got = b""
    with pytest.raises(ConnectionResetError):
        while piece := await rig.read(1 << 16):
            got += piece
    assert sent.startswith(got)


async def test_a_reset_does_not_wait_for_a_target_for_ever(rig, monkeypatch):
    monkeypatch.setattr("restunnel_protocol.aio.relay.RESET_GRACE", 0.01)
    await send_until_stuck(rig)
    while not rig.relay._backlog:
        await asyncio.sleep(0)
    rig.near.close(CloseReason.RESET)
    await rig.done.wait()


async def test_a_target_is_read_only_as_far_as_the_stream_takes_it(rig):
    loop = asyncio.get_running_loop()
    writing = loop.create_task(rig.write(bytes(BIG)))
    received = 0
    while received < BIG:
        assert rig.relay._stream.link.connection._scheduler._waiting < 1 << 20
        event = await rig.event()
        received += len(event)
        rig.near.consume(len(event))
    await writing


async def test_a_target_that_is_gone_is_noticed_while_nobody_reads_from_it(rig, monkeypatch):
    monkeypatch.setattr(peer_watch, "INTERVAL", 0.01)
    loop = asyncio.get_running_loop()
    writing = loop.create_task(rig.write(bytes(BIG)))
    while rig.relay._peer._sock is None:  # reading has paused: nobody consumes
        await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await asyncio.sleep(0.03)  # a look that finds nothing wrong
    reset(rig.peer)
    await rig.done.wait()
    assert not rig.relay.alive


async def test_a_target_that_is_gone_after_its_end_is_noticed_too(rig, monkeypatch):
    monkeypatch.setattr(peer_watch, "INTERVAL", 0.01)
    rig.peer.shutdown(socket.SHUT_WR)
    assert await rig.event() == "eof"
    reset(rig.peer)
    assert await rig.event() is CloseReason.RESET


async def test_an_aborted_relay_ends_both_sides(rig):
    rig.relay.abort(CloseReason.GOING_AWAY)
    assert await rig.event() is CloseReason.GOING_AWAY
    with pytest.raises(ConnectionResetError):
        await rig.read(1)
    await rig.done.wait()
    rig.relay.abort(CloseReason.GOING_AWAY)
    rig.relay.buffer_updated(0)
    rig.relay.stream_eof()
    rig.relay.stream_closed(CloseReason.RESET, "")
    rig.relay.stream_writable()
    rig.relay._pause_reading()


async def test_a_connected_stream_is_not_connected_again(rig):
    with pytest.raises(AssertionError):
        rig.relay.stream_connected(None)
    with pytest.raises(AssertionError):
        rig.relay.stream_failed(None, "")


class Taker(asyncio.Protocol):
    """A protocol that gives its transport away, as the hub's proxies do."""

    def connection_made(self, transport) -> None:
        self.transport = as_transport(transport)
        self.transport.pause_reading()


@contextlib.asynccontextmanager
async def taken_over(links, early: bytes, *, ended: bool = False):
    """A relay that has taken over a transport: the stream's far end, its handler, the peer."""
    handler, done = Handler(), asyncio.Event()
    near, far = await open_stream(*links, handler)
    ours, peer = socket.socketpair()
    with peer:
        taker = Taker()
        await asyncio.get_running_loop().create_connection(lambda: taker, sock=ours)
        relay = Relay(far, lambda _: done.set())
        relay.attach(taker.transport, early, ended=ended)
        yield near, handler, peer, taker.transport
        relay.abort(CloseReason.CANCELLED)
        await done.wait()


@pytest.mark.parametrize(("early", "ended"), [(b"", False), (b"early", False), (b"early", True)])
async def test_a_relay_takes_over_what_another_protocol_has_read(links, early, ended):
    async with taken_over(links, early, ended=ended) as (_, handler, peer, _):
        if early:
            assert await handler.events.get() == early
        if ended:
            assert await handler.events.get() == "eof"
        else:
            peer.send(b"more")
            assert await handler.events.get() == b"more"


async def test_early_bytes_beyond_the_credit_keep_the_relay_from_reading(links):
    async with taken_over(links, bytes(1 << 20)) as (near, handler, peer, transport):
        assert not transport.is_reading()
        received = 0
        while received < 1 << 20:
            event = await handler.events.get()
            received += len(event)
            near.consume(len(event))
        peer.send(b"more")
        assert await handler.events.get() == b"more"


class Full:
    """A transport whose socket is full again after each write."""

    def __init__(self) -> None:
        self.written = []
        self.relay = None

    def write(self, data) -> None:
        self.written.append(bytes(data))
        self.relay.pause_writing()


class Counted:
    """A stream that counts the credit that goes back."""

    def __init__(self) -> None:
        self.consumed = 0

    def consume(self, size: int) -> None:
        self.consumed += size


async def test_credit_goes_back_once_the_kernel_has_everything():
    transport, stream = Full(), Counted()
    relay = Relay(stream, lambda _: None)
    transport.relay, relay._transport = relay, transport
    for byte in b"abc":
        relay.stream_data(memoryview(bytes((byte,))))
    relay.resume_writing()
    assert (transport.written, stream.consumed) == ([b"a", b"bc"], 0)
    relay.resume_writing()
    assert stream.consumed == 3
    relay.resume_writing()
    assert stream.consumed == 3


def test_reasons_follow_from_how_the_socket_failed():
    assert relay_module._close_reason(TimeoutError()) is CloseReason.TIMEOUT
    assert relay_module._close_reason(OSError()) is CloseReason.RESET
    assert relay_module._close_reason(None) is CloseReason.CANCELLED


async def test_events_that_come_after_the_end_change_nothing():
    relay = Relay(Counted(), lambda _: None)
    relay._stream_over = True
    assert relay.eof_received()
    assert relay.eof_received()
    relay._on_peer_gone()


async def test_one_watch_looks_after_many_sockets(monkeypatch):
    monkeypatch.setattr(peer_watch, "INTERVAL", 0.01)
    gone = asyncio.Queue()
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair() for _ in range(3)]
    watch = peer_watch.PeerWatch.of(loop)
    for near, _ in pairs:
        watch.add(near, lambda near=near: gone.put_nowait(near))
    monkeypatch.setattr(peer_watch, "peer_is_gone", lambda sock: sock is pairs[1][0])
    assert await gone.get() is pairs[1][0]
    for near, far in pairs:
        watch.remove(near)
        near.close()
        far.close()


def test_only_linux_tells_of_a_peer_that_went_after_its_end(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as near:
        monkeypatch.setattr(peer_watch.sys, "platform", "darwin")
        assert not peer_watch.peer_is_gone(near)


async def test_a_watcher_that_is_started_twice_watches_once(rig):
    watcher = rig.relay._peer
    watcher.start(rig.relay._transport)
    watcher.start(rig.relay._transport)
    watcher.stop()
    watcher.stop()


@pytest.mark.parametrize("named", [True, False])
def test_options_that_python_does_not_name_are_set_by_number_where_it_is_known(named, monkeypatch):
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT", raising=False)
    if not named:
        monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    with socket.socket() as sock:
        tune_proxied(sock)
        found = sock.getsockopt(socket.IPPROTO_TCP, 25)  # TCP_NOTSENT_LOWAT of Linux
        assert (found == PROXIED_NOTSENT_LOWAT) is named


def test_options_that_a_socket_does_not_have_are_no_error():
    near, far = socket.socketpair()
    with near, far:
        tune_proxied(near)


def test_a_peer_on_a_unix_socket_is_gone_once_it_has_closed_not_once_it_has_ended_its_side():
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(b"unread")
        theirs.shutdown(socket.SHUT_WR)
        assert not peer_watch.peer_is_gone(ours)
        theirs.close()
        assert peer_watch.peer_is_gone(ours)
