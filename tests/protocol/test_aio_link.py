"""Links over real sockets: streams that fail fail alone."""

from __future__ import annotations

import asyncio
import socket

import pytest

from restunnel_protocol import (
    CloseReason,
    ConnectFailReason,
    Connection,
    GoAwayReason,
    Role,
    Target,
)
from restunnel_protocol.aio import Link
from restunnel_protocol.testing import handshake_pair

TARGET, ADDRESS = Target("example.com", 80), Target("192.0.2.1", 80)


class Owner:
    """Owner of either end; remembers what it is told."""

    def __init__(self) -> None:
        self.offers: asyncio.Queue = asyncio.Queue()
        self.ended = asyncio.get_running_loop().create_future()

    def connect_requested(self, stream, target) -> None:
        self.offers.put_nowait(stream)

    def established(self, link) -> None:
        """Nothing to do."""

    status_received = go_away_received = lambda *_: None

    def link_closed(self, link, reason, detail) -> None:
        self.ended.set_result(reason)


class Handler:
    """Handler of a stream; remembers what it is told, and fails if asked to."""

    def __init__(self, failing: bool = False) -> None:
        self.failing = failing
        self.events: asyncio.Queue = asyncio.Queue()

    def stream_connected(self, address) -> None:
        self.events.put_nowait("connected")

    def stream_failed(self, reason, detail) -> None:
        self.events.put_nowait(reason)

    def stream_data(self, data) -> None:
        if self.failing:
            raise ZeroDivisionError("a bug in a handler")
        self.events.put_nowait(bytes(data))

    def stream_eof(self) -> None:
        self.events.put_nowait("eof")

    def stream_closed(self, reason, detail) -> None:
        self.events.put_nowait(reason)

    def stream_writable(self) -> None:
        self.events.put_nowait("writable")


@pytest.fixture
async def links():
    """A hub's and a node's link on a socket pair, and their owners."""
    loop = asyncio.get_running_loop()
    made = []
    for role, session, sock in zip(Role, handshake_pair(), socket.socketpair(), strict=True):
        owner = Owner()
        link = Link(Connection(role, session, loop.time()), owner, loop=loop, dead_after=40)
        await loop.create_connection(lambda link=link: link, sock=sock)
        made.append((link, owner))
    yield made
    for link, owner in made:
        link.close(GoAwayReason.SHUTDOWN)
        await owner.ended


async def open_stream(links, handler: Handler) -> tuple:
    (hub, _), (_, node_owner) = links
    near = hub.open_stream(TARGET, handler)
    far = await node_owner.offers.get()
    far.handler = Handler()
    far.accept(ADDRESS)
    assert await handler.events.get() == "connected"
    return near, far


async def test_a_handler_that_fails_ends_its_stream_and_no_other(links, caplog):
    broken, sound = Handler(failing=True), Handler()
    _, far_of_broken = await open_stream(links, broken)
    _, far_of_sound = await open_stream(links, sound)
    far_of_broken.send(b"x")
    assert await far_of_broken.handler.events.get() is CloseReason.INTERNAL
    far_of_sound.send(b"still here")
    assert await sound.events.get() == b"still here"
    assert "ZeroDivisionError" in caplog.text


async def test_streams_of_a_lost_tunnel_fail(links):
    handler = Handler()
    await open_stream(links, handler)
    (_, hub_owner), (node, node_owner) = links
    node._transport.abort()
    assert await handler.events.get() is CloseReason.TUNNEL_LOST
    assert await hub_owner.ended is None
    assert await node_owner.ended is None


async def test_a_refused_stream_tells_its_handler(links):
    (hub, _), (_, node_owner) = links
    handler = Handler()
    hub.open_stream(TARGET, handler)
    (await node_owner.offers.get()).refuse(ConnectFailReason.REFUSED, "no")
    assert await handler.events.get() is ConnectFailReason.REFUSED
    assert hub.stream_count == 0


async def test_backpressure_reaches_the_sender_and_is_lifted(links):
    handler = Handler()
    near, far = await open_stream(links, handler)
    while near.send(bytes(65536)):
        await asyncio.sleep(0)
    sent = near.link.connection._streams[near.id].pending_size
    assert sent > 0
    received = 0
    while handler.events.empty():
        piece = await far.handler.events.get()
        received += len(piece)
        far.consume(len(piece))
    assert await handler.events.get() == "writable"
    assert received > 0
