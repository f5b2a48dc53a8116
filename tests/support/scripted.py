"""Nodes within the test's own event loop, which do with each CONNECT what the test wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from restunnel_protocol import (
    ConnectFailReason,
    Connection,
    Enroll,
    GoAwayReason,
    Hello,
    PairingLink,
    PrivateKey,
    Role,
    Target,
)
from restunnel_protocol.aio import Link, dial_hub

from .services import Hub


class Echo:
    """Handler of a stream that sends everything back."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def stream_data(self, data: memoryview) -> None:
        self.stream.send(bytes(data))
        self.stream.consume(len(data))

    def stream_eof(self) -> None:
        self.stream.send_eof()

    def stream_closed(self, reason: Any, detail: str) -> None:
        """Nothing is held for it."""

    def stream_writable(self) -> None:
        """Echoes are small."""


class ScriptedNode:
    """A node of the public API. `answer` refuses with a reason, or, None, echoes."""

    def __init__(self, answer: Callable[[Target], ConnectFailReason | None]) -> None:
        self.answer = answer
        self.asked: list[Target] = []
        self.key = PrivateKey.generate()
        self.link: Link | None = None
        self.ended = asyncio.get_running_loop().create_future()

    async def join(self, hub: Hub, *arguments: str) -> None:
        """Enrol with a new link of the hub, made with these arguments of `pair`."""
        await self.enrol(PairingLink.parse(await asyncio.to_thread(hub.link, *arguments)))

    async def enrol(self, link: PairingLink) -> None:
        """Connect with a pairing link."""
        await self._connect(link, Enroll(link.token, "scripted"))

    async def come_again(self, link: PairingLink) -> None:
        """Connect by key alone; of the link only the hub's address and key are used."""
        await self._connect(link, None)

    async def _connect(self, link: PairingLink, enroll: Enroll | None) -> None:
        loop = asyncio.get_running_loop()
        hello = Hello(time.time_ns())
        dialled = await dial_hub(link.endpoints[0], self.key, link.hub, hello, enroll=enroll)
        self.ended = loop.create_future()
        connection = Connection(Role.NODE, dialled.session, loop.time())
        tunnel = Link(connection, self, loop=loop, dead_after=40, leftover=dialled.leftover)
        await loop.create_connection(lambda: tunnel, sock=dialled.sock)
        self.link = tunnel

    def close(self) -> None:
        """Begin to end the tunnel."""
        assert self.link is not None
        self.link.close(GoAwayReason.SHUTDOWN)

    async def leave(self) -> None:
        """End the tunnel, if the hub has not, and see its socket closed."""
        if not self.ended.done():
            self.close()
        await self.ended

    def connect_requested(self, stream: Any, target: Target) -> None:
        self.asked.append(target)
        reason = self.answer(target)
        if reason is None:
            stream.handler = Echo(stream)
            stream.accept(Target("192.0.2.1", 80))
        else:
            stream.refuse(reason)

    def established(self, link: Link) -> None:
        """Nothing to do."""

    def status_received(self, link: Link, fields: Any) -> None:
        """A hub sends none."""

    def go_away_received(self, link: Link, event: Any) -> None:
        """The test looks at the end."""

    def link_closed(self, link: Link, reason: GoAwayReason | None, detail: str) -> None:
        if not self.ended.done():
            self.ended.set_result((reason, detail))
