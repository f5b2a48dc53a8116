"""Clients of the proxies: negotiate, have a node connect, then relay.

accepted -> Client (Socks5, Socks4 or HttpProxy) -> Outlet.dial -> ClientRelay or HttpForward
"""

from __future__ import annotations

import asyncio

from restunnel_protocol import CloseReason, ConnectFailReason, Target
from restunnel_protocol.aio import TunnelStream
from restunnel_protocol.aio.sockets import as_transport

from .access import Access
from .clients import ClientRelay, Clients, Farewell
from .http_forward import HttpForward
from .http_proxy import HttpProxy
from .negotiation import Default, Negotiation, recognise
from .outlet import Dial, Outlet
from .proxy_request import Failure, ProxyRequest
from .routing import RouteError
from .socks5 import Socks5

NEGOTIATION_TIMEOUT = 30.0
"""Seconds that a client may take to say what it wants."""

EARLY_LIMIT = 64 * 1024
"""Bytes kept of what a client sends before it is connected."""


class ProxyServer:
    """The proxies, and every client that is being served."""

    def __init__(self, outlet: Outlet, access: Access) -> None:
        self._outlet = outlet
        self._access = access
        self.clients = Clients()

    def socks(self) -> Client:
        """A protocol for a client of the SOCKS5 port."""
        return Client(self.clients, self._outlet, self._access, Socks5)

    def http(self) -> Client:
        """A protocol for a client of the HTTP port, or of the Unix socket."""
        return Client(self.clients, self._outlet, self._access, HttpProxy)

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
    """A client until it is connected: it says what it wants, and waits for a node."""

    def __init__(self, clients: Clients, outlet: Outlet, access: Access, default: Default) -> None:
        self._clients = clients
        self._outlet = outlet
        self._access = access
        self._default = default
        self._negotiation: Negotiation | None = None
        self._request: ProxyRequest | None = None
        self._transport: asyncio.Transport | None = None
        self._dial: Dial | None = None
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
        transport, negotiation = self._transport, self._negotiation
        if transport is None:
            return
        if negotiation is None:
            negotiation = recognise(data[0], self._access, self._default)
            self._negotiation = negotiation
        answer = negotiation.receive_data(data)
        if self._request is not None:
            self._hold_early(len(data))
        elif negotiation.failed:
            self._say_farewell(answer)
        else:
            if answer:
                transport.write(answer)
            if negotiation.request is not None:
                self._begin(negotiation, negotiation.request)

    def eof_received(self) -> bool:
        if self._dial is None:
            return False
        self._ended = True
        return True  # a client may end its side and still wait for the answer

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._stop_timer()
        if self._dial is not None:
            self._dial.cancel()
        self._clients.leave(self)

    def drain(self) -> None:
        """Let go of a client that has not asked for anything yet."""
        if self._request is None and self._transport is not None:
            self._transport.close()

    def abort(self, reason: CloseReason) -> None:
        """Cut the client off."""
        if self._transport is not None:
            self._transport.abort()

    def _hold_early(self, size: int) -> None:
        """What a client sends before it is connected; h11 or the parser holds it."""
        self._early += size
        if self._early > EARLY_LIMIT and self._transport is not None:
            self._transport.pause_reading()

    # --- its request ------------------------------------------------------------------------

    def _begin(self, negotiation: Negotiation, request: ProxyRequest) -> None:
        self._stop_timer()
        self._request = request
        if isinstance(negotiation, HttpProxy) and negotiation.head is not None:
            transport = self._give_up_transport()
            forward = HttpForward(self._clients, self._outlet, negotiation)
            forward.attach(transport, negotiation.head, request)
            return
        try:
            if self._outlet.is_optimistic(request):
                self._relay(OptimisticRelay, self._outlet.open(request))
            else:
                self._dial = self._outlet.dial(request, self)
        except RouteError as error:
            self.dial_failed(Failure(str(error), route=error))

    def dialled(self, stream: TunnelStream) -> None:
        """The node has connected."""
        self._relay(ClientRelay, stream)

    def dial_failed(self, failure: Failure) -> None:
        """No node has."""
        assert self._negotiation is not None
        self._dial = None
        self._say_farewell(self._negotiation.failure(failure))

    def _relay(self, kind: type[ClientRelay], stream: TunnelStream) -> None:
        """Tell the client of success, and give its socket and its stream to a relay."""
        assert self._negotiation is not None and self._request is not None
        self._dial = None
        transport = self._give_up_transport()
        transport.write(self._negotiation.success())
        relay = kind(self._clients, self._request.account, stream)
        relay.attach(transport, self._negotiation.leftover, ended=self._ended)

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


class OptimisticRelay(ClientRelay):
    """A relay that begins before the target is connected: what the client says travels along."""

    def stream_connected(self, address: Target) -> None:
        """The client has been told so already."""

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        self.stream_closed(CloseReason.RESET, detail)
