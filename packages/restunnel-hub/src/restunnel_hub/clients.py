"""Every client of the proxies, whatever owns its socket at the moment, and what it carries."""

from __future__ import annotations

import asyncio
from typing import Protocol

from restunnel_protocol import CloseReason
from restunnel_protocol.aio import Relay, TunnelStream
from restunnel_protocol.aio.sockets import reset_on_close, transport_socket

from .usage import Traffic

LINGER = 5.0
"""Seconds to read on after the last word, so that the client gets to see it."""


class Occupant(Protocol):
    """Whatever owns a client's socket: a negotiation, a relay, a forward, a farewell."""

    def abort(self, reason: CloseReason) -> None:
        """Cut the client off, visibly."""


class Meter:
    """What clients have carried, by account, until somebody takes it to the store."""

    def __init__(self) -> None:
        self._pending: dict[str, Traffic] = {}

    def count(self, account: str, received: int, sent: int, streams: int = 0) -> None:
        """Bytes from and to the client, and connections made for it."""
        traffic = self._pending.get(account)
        if traffic is None:
            traffic = self._pending[account] = Traffic()
        traffic.received += received
        traffic.sent += sent
        traffic.streams += streams

    def take(self) -> dict[str, Traffic]:
        """All that has not been taken yet."""
        pending, self._pending = self._pending, {}
        return pending


class Clients:
    """The occupants of all client sockets."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._occupants: set[Occupant] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._occupants)

    def all(self) -> list[Occupant]:
        """A copy, to act on each."""
        return list(self._occupants)

    def enter(self, occupant: Occupant) -> None:
        """It owns a socket now."""
        self._occupants.add(occupant)
        self._idle.clear()

    def leave(self, occupant: Occupant) -> None:
        """It does not any more."""
        self._occupants.discard(occupant)
        if not self._occupants:
            self._idle.set()

    def hand_over(self, occupant: Occupant) -> None:
        """It gives its socket to another: that one enters before this one has left.

        So draining never sees a moment without either.
        """
        asyncio.get_running_loop().call_soon(self.leave, occupant)

    def settle(self) -> None:
        """Have running relays count what they have carried so far."""
        for occupant in self._occupants:
            if isinstance(occupant, ClientRelay):
                occupant.settle()

    async def wait_idle(self) -> None:
        """Until no client is left."""
        await self._idle.wait()


class ClientRelay(Relay):
    """A relay between a client and a stream, on an account."""

    def __init__(self, clients: Clients, account: str, stream: TunnelStream) -> None:
        super().__init__(stream, self._leave)
        self._clients = clients
        self._account = account
        self._settled = (0, 0)
        clients.meter.count(account, 0, 0, streams=1)
        clients.enter(self)

    def settle(self) -> None:
        """Count what has been carried since the last time."""
        received, sent = self._settled
        self._settled = (self.bytes_received, self.bytes_sent)
        self._clients.meter.count(
            self._account, self.bytes_received - received, self.bytes_sent - sent
        )

    def _leave(self, _: Relay) -> None:
        self.settle()
        self._clients.leave(self)


class Farewell(asyncio.Protocol):
    """Says a last word and closes, reading on for a while.

    Closing with unread data would reset the connection and take the last word away
    from a client that is still sending its request.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, transport: asyncio.Transport, last_word: bytes) -> None:
        """Take over a client's transport."""
        self._transport = transport
        self._clients.enter(self)
        transport.set_protocol(self)
        reset_on_close(transport_socket(transport), False)
        transport.write(last_word)
        if transport.is_closing():
            return
        transport.write_eof()
        transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(LINGER, transport.close)

    def data_received(self, data: bytes) -> None:
        """Nobody wants it any more."""

    def eof_received(self) -> bool:
        return False  # both sides have ended: the transport closes

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        self._clients.leave(self)

    def abort(self, reason: CloseReason) -> None:
        if self._transport is not None:
            self._transport.abort()
