"""Links over real sockets: streams that fail fail alone, and ends tell each other why."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from restunnel_protocol import (
    CloseReason,
    ConnectFailReason,
    Connection,
    GoAwayReason,
    LocalError,
    Role,
    Status,
)
from restunnel_protocol.aio import Link
from restunnel_protocol.frames import FrameType, encode_frame
from restunnel_protocol.testing import handshake_pair
from support.links import ADDRESS, TARGET, Handler, Owner, linked, open_stream
from support.services import reset


async def test_a_handler_that_fails_ends_its_stream_and_no_other(links, caplog):
    broken, sound = Handler(failing=True), Handler()
    _, far_of_broken = await open_stream(*links, broken)
    _, far_of_sound = await open_stream(*links, sound)
    far_of_broken.send(b"x")
    assert await far_of_broken.handler.events.get() is CloseReason.INTERNAL
    far_of_sound.send(b"still here")
    assert await sound.events.get() == b"still here"
    assert "ZeroDivisionError" in caplog.text


async def test_an_owner_that_fails_does_not_end_the_tunnel(links, caplog):
    hub, node = links
    hub.status_received = None
    node.link.send_status(Status({}))
    await open_stream(hub, node, Handler())
    assert "the handler of StatusReceived failed" in caplog.text


async def test_streams_of_a_lost_tunnel_fail(links):
    hub, node = links
    handler = Handler()
    near, far = await open_stream(hub, node, handler)
    assert near.open
    node.link._transport.abort()
    assert await handler.events.get() is CloseReason.TUNNEL_LOST
    assert (await hub.ended)[0] is None
    assert (await node.ended)[0] is None
    assert not near.open
    assert near.send(b"too late, and no error: the handler hears of it")
    near.send_eof()
    near.close(CloseReason.CANCELLED)
    hub.link.go_away(GoAwayReason.SHUTDOWN)
    with pytest.raises(LocalError):
        hub.link.open_stream(TARGET, handler)


async def test_a_refused_stream_tells_its_handler(links):
    hub, node = links
    handler = Handler()
    stream = hub.link.open_stream(TARGET, handler)
    assert stream.link is hub.link
    (await node.offers.get()).refuse(ConnectFailReason.REFUSED, "no")
    assert await handler.events.get() is ConnectFailReason.REFUSED
    assert hub.link.stream_count == 0


async def test_a_stream_that_nobody_handles_any_more_is_no_trouble(links):
    hub, node = links
    unheard, handler = Handler(), Handler()
    near, far = await open_stream(hub, node, unheard)
    refused = hub.link.open_stream(TARGET, unheard)
    cancelled = await node.offers.get()
    for stream in (near, refused):
        hub.link.forget_stream(stream)
    far.send(b"x")
    far.send_eof()
    far.close(CloseReason.RESET)
    cancelled.refuse(ConnectFailReason.REFUSED)
    accepted = hub.link.open_stream(TARGET, unheard)
    hub.link.forget_stream(accepted)
    stream = await node.offers.get()
    stream.accept(ADDRESS)
    await open_stream(hub, node, handler)
    assert unheard.events.empty()


async def test_each_direction_ends_by_itself(links):
    handler = Handler()
    near, far = await open_stream(*links, handler)
    near.send_eof()
    assert await far.handler.events.get() == "eof"
    far.send(b"answer")
    far.send_eof()
    assert [await handler.events.get() for _ in range(3)] == [b"answer", "eof", None]
    assert await far.handler.events.get() is None


async def test_backpressure_reaches_the_sender_and_is_lifted(links):
    handler = Handler()
    near, far = await open_stream(*links, handler)
    while near.send(bytes(65536)):
        await asyncio.sleep(0)
    assert near.link.connection._streams[near.id].pending_size > 0
    received = 0
    while handler.events.empty():
        piece = await far.handler.events.get()
        received += len(piece)
        far.consume(len(piece))
    assert await handler.events.get() == "writable"
    assert received > 0


async def test_a_full_socket_holds_data_back_until_it_has_room(links):
    """With endless credit it is the socket alone that limits the sender."""
    hub, node = links
    handler = Handler()
    near, far = await open_stream(hub, node, handler)
    size = 0
    node.link._transport.pause_reading()
    while hub.link._writable:
        hub.link.connection._streams[near.id].send_window.add(65536)
        node.link.connection._streams[near.id].receive_window.credit += 65536
        near.send(bytes(65536))
        size += 65536
        await asyncio.sleep(0)
    node.link._transport.resume_reading()
    received = 0
    while received < size:
        received += len(await far.handler.events.get())


async def test_status_and_goodbye_reach_the_other_end(links):
    hub, node = links
    assert await hub.events.get() == "established"
    assert await node.events.get() == "established"
    node.link.send_status(Status({"battery": 80}))
    assert await hub.events.get() == {"battery": 80}
    hub.link.go_away(GoAwayReason.SHUTDOWN, 5, "be right back")
    event = await node.events.get()
    assert (event.reason, event.retry_after, event.detail) == (0, 5, "be right back")


async def test_the_frame_that_broke_the_protocol_is_in_the_log(links, caplog):
    hub, node = links
    with caplog.at_level(logging.WARNING):
        connection = node.link.connection
        node.link._transport.write(connection.session.sealer.seal(encode_frame(0x7F, 3, b"ab")))
        assert (await hub.ended)[0] is GoAwayReason.UNKNOWN_TYPE
    assert "unknown_type in 0x7f id=3 length=2" in caplog.text
    assert (await node.events.get(), (await node.events.get()).reason) == ("established", 0x13)


async def test_a_peer_that_says_nothing_is_given_up():
    async with asyncio.timeout(30), linked(ping_interval=0.1, ping_timeout=0.1) as (hub, node):
        node.link._transport.pause_reading()
        node.link._timer.cancel()
        reason, detail = await hub.ended
        assert reason is GoAwayReason.PING_TIMEOUT
        assert "no sign of life" in detail


async def test_a_peer_that_answers_pings_is_kept():
    async with asyncio.timeout(30), linked(ping_interval=0.05, ping_timeout=5) as (hub, node):
        before = hub.link.bytes_received
        while hub.link.bytes_received < before + 300:
            await asyncio.sleep(0.01)
        assert not hub.ended.done()


async def test_idle_credit_is_returned_by_the_links_own_timer(links, monkeypatch):
    hub, node = links
    monkeypatch.setattr("restunnel_protocol.connection.WINDOW_IDLE", 0.01)
    near, _ = await open_stream(hub, node, Handler())
    window = node.link.connection._streams[near.id].receive_window
    full = window.size
    while window.size == full:
        await asyncio.sleep(0.01)
    assert window.size < full


async def lone_link(leftover: bytes = b"") -> tuple[Owner, socket.socket]:
    """A hub's link whose other end is a bare TCP socket."""
    loop = asyncio.get_running_loop()
    owner = Owner()
    hub_session, node_session = handshake_pair()
    if leftover:
        leftover = bytes(node_session.sealer.seal(leftover))
    connection = Connection(Role.HUB, hub_session, loop.time())
    owner.link = Link(connection, owner, loop=loop, dead_after=1, leftover=leftover)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await loop.create_connection(lambda: owner.link, *listener.getsockname())
        return owner, listener.accept()[0]


async def test_bytes_that_came_with_the_handshake_count():
    owner, peer = await lone_link(encode_frame(FrameType.STATUS, 0, b'{"early":1}'))
    with peer:
        assert await owner.events.get() == "established"
        assert await owner.events.get() == {"early": 1}
        peer.shutdown(socket.SHUT_WR)
        assert await owner.ended == (None, "closed by the peer")


async def test_an_error_of_the_socket_is_the_reason_that_is_told():
    owner, peer = await lone_link()
    reset(peer)
    reason, detail = await owner.ended
    assert reason is None
    assert "reset" in detail.lower()
