"""Clients of both proxies: negotiate, have a node connect, then relay.

accepted -> Client (Socks5 or HttpProxy) -> Outlet.open -> Relay or HttpForward
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from restunnel_protocol import CloseReason, ConnectFailReason, Target
from restunnel_protocol.aio import Relay, TunnelStream
from restunnel_protocol.aio.sockets import as_transport

from .clients import Clients, Farewell
from .http_forward import HttpForward
from .http_proxy import HttpProxy
from .outlet import Outlet
from .proxy_request import Failure, ProxyRequest
from .routing import RouteError
from .socks5 import Socks5

log = logging.getLogger(__name__)

NEGOTIATION_TIMEOUT = 30.0
"""Seconds that a client may take to say what it wants."""

EARLY_LIMIT = 64 * 1024
"""Bytes kept of what a client sends before it is connected."""


class Negotiation(Protocol):
    """What `Socks5` and `HttpProxy` have in common."""

    request: ProxyRequest | None
    failed: bool

    def receive_data(self, data: bytes) -> bytes:
        """Take bytes from the client; the bytes to answer with."""

    def success(self) -> bytes:
        """The answer once the node has connected."""

    def failure(self, failure: Failure) -> bytes:
        """The answer if it could not."""

    @property
    def leftover(self) -> bytes:
        """What the client sent after its request."""


class ProxyServer:
    """Both proxies, and every client that is being served."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self.clients = Clients()

    def socks(self) -> Client:
        """A protocol for a client of the SOCKS5 port."""
        return Client(self.clients, self._outlet, Socks5())

    def http(self) -> Client:
        """A protocol for a client of the HTTP port."""
        return Client(self.clients, self._outlet, HttpProxy())

    def drain(self) -> None:
        """Take no new requests; clients between two requests are let go."""
        self._outlet.close()
        for occupant in self.clients.all():
            if isinstance(occupant, Client | HttpForward):
                occupant.drain()

    def abort(self) -> None:
        """Cut off everybody, visibly."""
        for occupant in self.clients.all():
            occupant.abort(CloseReason.GOING_AWAY)


class Client(asyncio.Protocol):
    """A client until it is connected: protocol of its socket, then handler of its stream."""

    def __init__(self, clients: Clients, outlet: Outlet, negotiation: Negotiation) -> None:
        self._clients = clients
        self._outlet = outlet
        self._negotiation = negotiation
        self._transport: asyncio.Transport | None = None
        self._stream: TunnelStream | None = None
        self._early = 0
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    # --- the client's socket --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = as_transport(transport)
        self._clients.enter(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(NEGOTIATION_TIMEOUT, transport.close)

    def data_received(self, data: bytes) -> None:
        negotiation, transport = self._negotiation, self._transport
        if transport is None:
            return
        if negotiation.request is not None:
            self._keep(data)
            return
        answer = negotiation.receive_data(data)
        if negotiation.failed:
            self._say_farewell(answer)
            return
        if answer:
            transport.write(answer)
        if negotiation.request is not None:
            self._open(negotiation.request)

    def eof_received(self) -> bool:
        if self._stream is None:
            return False
        self._ended = True
        return True  # a client may end its side and still wait for the answer

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._stop_timer()
        if self._stream is not None:
            self._stream.close(CloseReason.CANCELLED)
        self._clients.leave(self)

    def drain(self) -> None:
        """Let go of a client that has not asked for anything yet."""
        if self._negotiation.request is None and self._transport is not None:
            self._transport.close()

    def abort(self, reason: CloseReason) -> None:
        """Cut the client off."""
        if self._transport is not None:
            self._transport.abort()

    def _keep(self, data: bytes) -> None:
        """What a client sends before it is connected; h11 or the parser holds it."""
        self._negotiation.receive_data(data)
        self._early += len(data)
        if self._early > EARLY_LIMIT and self._transport is not None:
            self._transport.pause_reading()

    def _open(self, request: ProxyRequest) -> None:
        self._stop_timer()
        negotiation = self._negotiation
        if isinstance(negotiation, HttpProxy) and negotiation.head is not None:
            transport = self._give_up_transport()
            forward = HttpForward(self._clients, self._outlet, negotiation.connection)
            forward.attach(transport, negotiation.head, request)
            return
        try:
            self._stream = self._outlet.open(request, self)
        except RouteError as error:
            self._refuse(Failure(str(error), route=error))
            return
        if self._outlet.is_optimistic(request):
            self._relay(OptimisticRelay)

    def _relay(self, kind: type[Relay]) -> None:
        """Tell the client of success, and give its socket and its stream to a relay."""
        stream, self._stream = self._stream, None
        assert stream is not None
        transport = self._give_up_transport()
        transport.write(self._negotiation.success())
        relay = kind(stream, self._clients.leave)
        self._clients.enter(relay)
        relay.attach(transport, self._negotiation.leftover, ended=self._ended)

    def _refuse(self, failure: Failure) -> None:
        self._stream = None
        self._say_farewell(self._negotiation.failure(failure))

    def _say_farewell(self, last_word: bytes) -> None:
        self._stop_timer()
        Farewell(self._clients).attach(self._give_up_transport(), last_word)

    def _give_up_transport(self) -> asyncio.Transport:
        transport, self._transport = self._transport, None
        assert transport is not None
        self._clients.hand_over(self)
        return transport

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- its stream -------------------------------------------------------------------------

    def stream_connected(self, address: Target) -> None:
        self._relay(Relay)

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        self._refuse(Failure(detail or reason.name.lower().replace("_", " "), reason))

    def stream_data(self, data: memoryview) -> None:
        raise AssertionError("data before CONNECT_OK is a protocol error")

    def stream_eof(self) -> None:
        raise AssertionError("EOF before CONNECT_OK is a protocol error")

    def stream_closed(self, reason: CloseReason | None, detail: str) -> None:
        self._refuse(Failure(f"the node is gone: {detail}", ConnectFailReason.GOING_AWAY))

    def stream_writable(self) -> None:
        """Nothing has been sent yet."""


class OptimisticRelay(Relay):
    """A relay that begins before the target is connected: what the client says travels along."""

    def stream_connected(self, address: Target) -> None:
        """The client has been told so already."""

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        self.stream_closed(CloseReason.RESET, detail)
