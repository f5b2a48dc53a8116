"""Plain HTTP requests through the proxy: h11 on both sides, by callbacks.

    client  --h11 server-->  request  --h11 client-->  stream  -->  target

One request at a time, as HTTP/1.1 has it; the connection to the target is kept
for the client's next request to the same place. Hop-by-hop fields are removed
(RFC 9110, section 7.6.1); nothing is added that would tell the target of a proxy.
A body that the target cuts short becomes a reset, never a complete response.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

import h11

from restunnel_protocol import CloseReason, ConnectFailReason, Target
from restunnel_protocol.aio import TunnelStream
from restunnel_protocol.aio.peer_watch import Watcher
from restunnel_protocol.aio.relay import WRITE_HIGH
from restunnel_protocol.aio.sockets import reset_on_close, transport_socket

from .access import ANONYMOUS, AccessDeniedError
from .clients import ClientRelay, Clients, Farewell
from .http_proxy import (
    MAX_HEAD,
    BadRequestError,
    HttpProxy,
    failure_response,
    read_request,
    refusal,
)
from .outlet import Dial, Outlet
from .proxy_request import Failure, ProxyRequest
from .routing import RouteError

HOP_BY_HOP: Final = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"upgrade",
}
"""Fields that concern one connection only; h11 itself handles Transfer-Encoding."""

EARLY_LIMIT: Final = 64 * 1024
"""Bytes of a body kept while its target is being connected."""

FRAMING: Final = {b"content-length", b"transfer-encoding", b"host", b"upgrade"}
"""Fields that a client cannot have removed by naming them in Connection."""

REPEATABLE: Final = {b"GET", b"HEAD", b"OPTIONS"}
"""Safe methods (RFC 9110, section 9.2.1): sent again if a kept connection turns out dead."""

Headers = list[tuple[bytes, bytes]]


class HttpForward(asyncio.Protocol):
    """A client of plain requests: protocol of its socket and handler of its streams."""

    def __init__(self, clients: Clients, outlet: Outlet, proxy: HttpProxy) -> None:
        self._clients = clients
        self._outlet = outlet
        self._access = proxy.access
        self._client = proxy.connection
        self._account = ANONYMOUS
        self._dial: Dial | None = None
        self._upstream: h11.Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._stream: TunnelStream | None = None
        self._reached: ProxyRequest | None = None
        self._request: h11.Request | None = None
        self._reused = False
        self._body_sent = False
        self._request_ended = False
        self._early = 0
        self._answered = False
        self._client_full = False
        self._backlog = bytearray()
        self._unconsumed = 0
        self._peer = Watcher(asyncio.get_running_loop(), self._on_peer_gone)

    def attach(
        self, transport: asyncio.Transport, head: h11.Request, request: ProxyRequest
    ) -> None:
        """Take over a client whose first request has been read."""
        self._transport = transport
        transport.set_protocol(self)
        reset_on_close(transport_socket(transport), True)
        transport.set_write_buffer_limits(WRITE_HIGH, 0)
        self._clients.enter(self)
        self._begin(head, request)

    # --- the client's socket ----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._clients.meter.count(self._account, len(data), 0)
        self._client.receive_data(data)
        if self._request is not None and (self._stream is None or self._request_ended):
            self._early += len(data)  # h11 keeps it until its turn comes
            if self._early > EARLY_LIMIT:
                self._pause_reading()
        self._pump_client()

    def eof_received(self) -> bool:
        self._client.receive_data(b"")
        self._pump_client()
        return self._transport is not None and not self._transport.is_closing()

    def pause_writing(self) -> None:
        self._client_full = True

    def resume_writing(self) -> None:
        self._client_full = False
        self._return_credit()
        self._feed_backlog()

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.stop()
        self._transport = None
        self._drop_stream()
        self._clients.leave(self)

    def _pause_reading(self) -> None:
        """Let the client wait, and notice if it does not."""
        if self._transport is not None:
            self._transport.pause_reading()
            self._peer.start(self._transport)

    def _resume_reading(self) -> None:
        self._early = 0
        self._peer.stop()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _on_peer_gone(self) -> None:
        self.abort(CloseReason.RESET)

    def drain(self) -> None:
        """Close between two requests; one that is under way may finish."""
        if self._request is None:
            self._close()

    def abort(self, reason: CloseReason) -> None:
        """Cut the client off."""
        if self._transport is not None:
            reset_on_close(transport_socket(self._transport), True)
            self._transport.abort()

    # --- from client to target --------------------------------------------------------------

    def _begin(self, head: h11.Request, request: ProxyRequest) -> None:
        """Send a request on the kept connection, or have a new one made for it."""
        self._answered = self._body_sent = self._request_ended = False
        self._account = request.account
        upstream = self._upstream
        self._reused = (
            self._reached == request
            and self._stream is not None
            and upstream is not None
            and upstream.our_state is h11.IDLE
        )
        if not self._reused:
            self._drop_stream()
        self._request = head
        if self._reused:
            self._send_head()
        else:
            self._connect(request)

    def _connect(self, request: ProxyRequest) -> None:
        self._reached = request
        try:
            self._dial = self._outlet.dial(request, self)
        except RouteError as error:
            self.dial_failed(Failure(str(error), route=error))

    def _send_head(self) -> None:
        assert self._request is not None and self._reached is not None
        self._to_target(outgoing_request(self._request))
        if self._request_ended:  # sent again: the client says its end only once
            self._to_target(h11.EndOfMessage())
        self._resume_reading()
        self._pump_client()

    def _pump_client(self) -> None:
        """Pass on what the client has sent, as far as the target can take it."""
        while self._transport is not None and not self._transport.is_closing():
            if self._request is not None and self._stream is None:
                return  # the body waits for the connection; h11 keeps it
            try:
                event = self._client.next_event()
            except h11.RemoteProtocolError as error:
                self._bad_request(error)
                return
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if not self._handle_client(event):
                return

    def _handle_client(self, event: h11.Event | type[h11.NEED_DATA | h11.PAUSED]) -> bool:
        """Act on one event of the client; whether to go on."""
        if isinstance(event, h11.Request):
            try:
                self._begin(event, read_request(event, self._access))
            except (BadRequestError, AccessDeniedError) as error:
                self._bad_request(error)
                return False
        elif isinstance(event, h11.Data):
            self._body_sent = True
            if not self._to_target(event):
                self._pause_reading()
        elif isinstance(event, h11.EndOfMessage):
            self._request_ended = True
            self._to_target(h11.EndOfMessage(headers=list(event.headers)))
            self._next_request()
        elif isinstance(event, h11.ConnectionClosed):
            if self._request is None:
                self._close()
            return False
        return True

    def _to_target(self, event: h11.Event) -> bool:
        """Write an event to the target; False asks to stop for a while."""
        upstream, stream = self._upstream, self._stream
        if stream is None or upstream is None or upstream.our_state in (h11.DONE, h11.ERROR):
            return True  # the target has answered without wanting the rest
        data = upstream.send(event)
        return stream.send(data) if data else True

    # --- from target to client --------------------------------------------------------------

    def dialled(self, stream: TunnelStream) -> None:
        """The node has connected."""
        self._dial = None
        self._stream = stream
        stream.handler = self
        self._clients.meter.count(self._account, 0, 0, streams=1)
        self._upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._send_head()

    def dial_failed(self, failure: Failure) -> None:
        """No node has."""
        self._dial = None
        self._refuse(failure)

    def stream_connected(self, address: Target) -> None:
        raise AssertionError("the dial has heard of it")

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        raise AssertionError("the dial has heard of it")

    def stream_data(self, data: memoryview) -> None:
        if self._client_full:
            self._backlog += data
        else:
            self._feed(bytes(data))

    def _feed(self, data: bytes) -> None:
        """Let h11 have bytes of the target; their credit goes back once the client has them."""
        assert self._upstream is not None
        self._unconsumed += len(data)
        self._upstream.receive_data(data)
        self._pump_target()
        if not self._client_full:
            self._return_credit()

    def _feed_backlog(self) -> None:
        if self._backlog:
            backlog, self._backlog = self._backlog, bytearray()
            self._feed(bytes(backlog))

    def _return_credit(self) -> None:
        if self._unconsumed and self._stream is not None:
            size, self._unconsumed = self._unconsumed, 0
            self._stream.consume(size)

    def stream_eof(self) -> None:
        self._feed_backlog()
        if self._upstream is None:
            return
        self._upstream.receive_data(b"")
        self._pump_target()

    def stream_closed(self, reason: CloseReason | None, detail: str) -> None:
        self._stream = None
        self._feed_backlog()
        if self._stream is not None:
            return  # that was the end of one exchange, and the next has its own stream
        if self._request is not None:
            self._target_failed(f"the target closed the connection: {detail or 'without answer'}")
        else:
            self._forget_target()

    def stream_writable(self) -> None:
        self._resume_reading()

    def _pump_target(self) -> None:
        """Pass on what the target has sent."""
        while self._upstream is not None and self._transport is not None:
            try:
                event = self._upstream.next_event()
            except h11.RemoteProtocolError as error:
                self._target_failed(str(error))
                return
            if event is h11.NEED_DATA:
                return
            if event is h11.PAUSED:
                if self._upstream.our_state is h11.SWITCHED_PROTOCOL:
                    self._switch_protocol()
                return
            if isinstance(event, h11.ConnectionClosed):
                self._target_gone()
                return
            self._handle_target(event)

    def _handle_target(self, event: h11.Event | type[h11.NEED_DATA | h11.PAUSED]) -> None:
        if isinstance(event, h11.InformationalResponse):
            upgrade = event.status_code == 101
            self._to_client(
                h11.InformationalResponse(
                    status_code=event.status_code,
                    reason=event.reason,
                    headers=_end_to_end(event.headers.raw_items(), upgrade=upgrade),
                )
            )
        elif isinstance(event, h11.Response):
            self._answered = True
            headers = _end_to_end(event.headers.raw_items(), upgrade=False)
            self._to_client(
                h11.Response(status_code=event.status_code, reason=event.reason, headers=headers)
            )
        elif isinstance(event, h11.Data):
            self._to_client(event)
        elif isinstance(event, h11.EndOfMessage):
            self._to_client(h11.EndOfMessage(headers=list(event.headers)))
            self._next_request()

    def _to_client(self, event: h11.Event) -> None:
        data = self._client.send(event)
        if data and self._transport is not None:
            self._clients.meter.count(self._account, 0, len(data))
            self._transport.write(data)

    def _target_gone(self) -> None:
        """The target has ended its side."""
        if self._request is None:
            self._drop_stream()
        else:
            self._target_failed("the target closed the connection without an answer")

    # --- between requests -------------------------------------------------------------------

    def _next_request(self) -> None:
        """If both sides are done with a request, get ready for the next."""
        client, upstream = self._client, self._upstream
        if client.our_state is h11.MUST_CLOSE or client.their_state is h11.MUST_CLOSE:
            if client.our_state in (h11.MUST_CLOSE, h11.DONE):
                self._request = None
                self._close()
            return
        if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
            return
        self._request = None
        self._answered = False
        if upstream is not None and upstream.our_state is upstream.their_state is h11.DONE:
            upstream.start_next_cycle()
        else:
            self._drop_stream()
        if self._outlet.closed:
            self._close()
            return
        client.start_next_cycle()
        self._resume_reading()
        self._pump_client()

    def _target_failed(self, detail: str) -> None:
        """The exchange cannot be completed: once more, an error, or a visible cut."""
        self._drop_stream()
        request, reached = self._request, self._reached
        if self._client.our_state in (h11.DONE, h11.MUST_CLOSE):
            self._say_farewell(b"")  # answered in full, without waiting for the body
        elif self._answered or request is None:
            self.abort(CloseReason.RESET)
        elif self._reused and not self._body_sent and request.method in REPEATABLE:
            assert reached is not None
            self._reused = False
            self._connect(reached)
        else:
            self._refuse(Failure(detail, ConnectFailReason.GENERAL))

    def _switch_protocol(self) -> None:
        """101: from here on both sides are bytes."""
        stream, upstream = self._stream, self._upstream
        assert upstream is not None
        if stream is None:
            self._target_failed("the target closed the connection")
            return
        self._stream = None
        relay = ClientRelay(self._clients, self._account, stream)
        early, ended = self._client.trailing_data
        relay.attach(self._give_up_transport(), bytes(early), ended=ended)
        answer = upstream.trailing_data[0]
        stream.consume(self._unconsumed - len(answer))
        self._unconsumed = 0
        if answer:
            relay.stream_data(memoryview(bytes(answer)))

    def _refuse(self, failure: Failure) -> None:
        self._drop_stream()
        self._say_farewell(failure_response(failure))

    def _bad_request(self, error: Exception) -> None:
        self._drop_stream()
        if self._answered:
            self.abort(CloseReason.RESET)
        else:
            self._say_farewell(refusal(error))

    def _say_farewell(self, last_word: bytes) -> None:
        if self._transport is not None:
            Farewell(self._clients).attach(self._give_up_transport(), last_word)

    def _give_up_transport(self) -> asyncio.Transport:
        self._peer.stop()
        transport, self._transport = self._transport, None
        assert transport is not None
        self._clients.hand_over(self)
        return transport

    def _close(self) -> None:
        """Close the client's side, whole."""
        self._drop_stream()
        if self._transport is not None:
            reset_on_close(transport_socket(self._transport), False)
            self._transport.close()

    def _drop_stream(self) -> None:
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
        stream = self._stream
        self._forget_target()
        if stream is not None:
            between_requests = self._request is None
            stream.close(CloseReason.NORMAL if between_requests else CloseReason.CANCELLED)

    def _forget_target(self) -> None:
        self._stream = self._upstream = None
        self._backlog.clear()
        self._unconsumed = 0


def outgoing_request(request: h11.Request) -> h11.Request:
    """The request as the target gets it: origin form, and no word about this hop."""
    parts = urlsplit(request.target.decode("ascii"))
    path = parts.path or ("*" if request.method == b"OPTIONS" and not parts.query else "/")
    target = f"{path}?{parts.query}" if parts.query else path
    authority = parts.netloc.rpartition("@")[2].encode("ascii")
    upgrade = any(name == b"upgrade" for name, _ in request.headers)
    headers = [
        (name, value)
        for name, value in _end_to_end(request.headers.raw_items(), upgrade=upgrade)
        if name.lower() != b"host"
    ]
    return h11.Request(
        method=request.method, target=target, headers=[(b"Host", authority), *headers]
    )


def _end_to_end(headers: Headers, *, upgrade: bool) -> Headers:
    """Without the fields of this hop; an upgrade concerns both hops and stays."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    kept = [
        (name, value)
        for name, value in headers
        if name.lower() not in HOP_BY_HOP and name.lower() not in named - FRAMING
    ]
    if any(name.lower() == b"transfer-encoding" for name, _ in kept):  # RFC 9112, section 6.3
        kept = [(name, value) for name, value in kept if name.lower() != b"content-length"]
    if upgrade:
        kept += [(name, value) for name, value in headers if name.lower() == b"upgrade"]
        kept.append((b"Connection", b"upgrade"))
    return kept
