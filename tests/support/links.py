"""Links over a socket pair, with owners and handlers that remember what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from restunnel_protocol import Connection, GoAwayReason, Role, Settings, Target
from restunnel_protocol.aio import Link
from restunnel_protocol.testing import handshake_pair

TARGET, ADDRESS = Target("example.com", 80), Target("192.0.2.1", 80)


class Owner:
    """Owner of either end."""

    def __init__(self) -> None:
        self.offers: asyncio.Queue[Any] = asyncio.Queue()
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.ended = asyncio.get_running_loop().create_future()
        self.link: Link | None = None

    def connect_requested(self, stream, target) -> None:
        self.offers.put_nowait(stream)

    def established(self, link) -> None:
        self.events.put_nowait("established")

    def status_received(self, link, fields) -> None:
        self.events.put_nowait(fields)

    def go_away_received(self, link, event) -> None:
        self.events.put_nowait(event)

    def link_closed(self, link, reason, detail) -> None:
        self.ended.set_result((reason, detail))


class Handler:
    """Handler of a stream; fails if asked to."""

    def __init__(self, failing: bool = False) -> None:
        self.failing = failing
        self.events: asyncio.Queue[Any] = asyncio.Queue()

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


@contextlib.asynccontextmanager
async def linked(**settings: Any) -> AsyncIterator[tuple[Owner, Owner]]:
    """The owners of a hub's and a node's link that are connected to each other."""
    loop = asyncio.get_running_loop()
    owners = []
    for role, session, sock in zip(Role, handshake_pair(), socket.socketpair(), strict=True):
        owner = Owner()
        connection = Connection(role, session, loop.time(), Settings(**settings))
        owner.link = Link(connection, owner, loop=loop, dead_after=40)
        await loop.create_connection(lambda owner=owner: owner.link, sock=sock)
        owners.append(owner)
    try:
        yield owners[0], owners[1]
    finally:
        for owner in owners:
            owner.link.close(GoAwayReason.SHUTDOWN)
            await owner.ended


async def open_stream(hub: Owner, node: Owner, handler: Handler) -> tuple[Any, Any]:
    """A connected stream: the hub's end with its handler, the node's with one of its own."""
    near = hub.link.open_stream(TARGET, handler)
    far = await node.offers.get()
    far.handler = Handler()
    far.accept(ADDRESS)
    assert await handler.events.get() == "connected"
    return near, far
