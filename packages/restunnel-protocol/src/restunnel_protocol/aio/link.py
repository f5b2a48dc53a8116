"""A `Connection` on an asyncio socket: records in, events out, one timer, no task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from ..addresses import Target
from ..codec import Buffer
from ..connection import Connection
from ..errors import CloseReason, ConnectFailReason, GoAwayReason
from ..events import (
    Connected,
    ConnectFailed,
    ConnectRequested,
    DataReceived,
    EofReceived,
    Established,
    Event,
    GoAwayReceived,
    RoundTripMeasured,
    StatusReceived,
    StreamClosed,
    StreamWritable,
    TunnelEnded,
)
from ..messages import Status
from .sockets import as_transport, receive_buffer, transport_socket, tune_tunnel
from .throttle import Throttle

log = logging.getLogger(__name__)

WRITE_HIGH = 128 * 1024
WRITE_LOW = 32 * 1024
"""Bytes in the transport's own buffer at which the link stops and resumes writing."""

CLOSE_TIMEOUT = 5.0
"""Seconds that an ended tunnel may take to get its last records out."""


class StreamHandler(Protocol):
    """What the owner of a stream is told, always from the event loop's thread."""

    def stream_connected(self, address: Target) -> None:
        """Hub: the node has connected to the target."""

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        """Hub: it could not. Nothing follows."""

    def stream_data(self, data: memoryview) -> None:
        """Bytes in order; call `TunnelStream.consume` once they are passed on."""

    def stream_eof(self) -> None:
        """The peer's direction has ended, whole."""

    def stream_closed(self, reason: CloseReason | None, detail: str) -> None:
        """The stream is over; None: cleanly. Nothing follows."""

    def stream_writable(self) -> None:
        """A stream whose `send` returned False takes data again."""


class LinkOwner(Protocol):
    """What the owner of a link is told, always from the event loop's thread."""

    def established(self, link: Link) -> None:
        """The peer's first record has authenticated."""

    def connect_requested(self, stream: TunnelStream, target: Target) -> None:
        """Node: set `stream.handler`, then `accept` or `refuse`, at once or later."""

    def status_received(self, link: Link, fields: dict[str, Any]) -> None:
        """Hub: the node's STATUS."""

    def go_away_received(self, link: Link, event: GoAwayReceived) -> None:
        """The peer takes no new streams."""

    def link_closed(self, link: Link, reason: GoAwayReason | None, detail: str) -> None:
        """The tunnel and its socket are done with. Nothing follows."""


class TunnelStream:
    """One stream of a link, as its user sees it."""

    __slots__ = ("_link", "handler", "id")

    def __init__(self, link: Link, stream_id: int, handler: StreamHandler | None) -> None:
        self._link = link
        self.id = stream_id
        self.handler = handler

    @property
    def link(self) -> Link:
        return self._link

    @property
    def open(self) -> bool:
        """Whether the stream can still be used at all."""
        return self._link.has_stream(self) and not self._link.connection.ended

    def accept(self, address: Target) -> None:
        """Node: connected, to `address`."""
        self._link.connection.accept(self.id, address)
        self._link.flush_soon()

    def refuse(self, reason: ConnectFailReason, detail: str = "") -> None:
        """Node: not connected; the stream is over."""
        self._link.forget_stream(self)
        self._link.connection.refuse(self.id, reason, detail)
        self._link.flush_soon()

    def send(self, data: Buffer) -> bool:
        """Send bytes; False asks the caller to stop until `stream_writable`."""
        if self._link.connection.ended:
            return True  # the handler is about to hear of it
        go_on = self._link.connection.send_data(self.id, data)
        self._link.flush_soon()
        return go_on

    @property
    def offer_size(self) -> int:
        """Bytes that a source should read at once to send here."""
        return self._link.connection.offer_size(self.id)

    def send_eof(self) -> None:
        """End our direction after all data that waits."""
        if self._link.connection.ended:
            return
        self._link.connection.send_eof(self.id)
        self._link.flush_soon()

    def consume(self, size: int) -> None:
        """`size` received bytes have been passed on: the peer may send as many more."""
        self._link.connection.consume(self.id, size, self._link.time())
        self._link.flush_if_needed()

    def close(self, reason: CloseReason, detail: str = "", *, drain: bool = False) -> None:
        """End both directions, failed. The handler hears nothing more."""
        self._link.forget_stream(self)
        self._link.connection.close_stream(self.id, reason, detail, drain=drain)
        self._link.flush_soon()


class Link(asyncio.BufferedProtocol):
    """An asyncio protocol around one `Connection`; create it after the handshake.

    `leftover` is what was read from the socket after the handshake message;
    `dead_after` bounds, in seconds, how long unacknowledged data may linger.
    """

    def __init__(
        self,
        connection: Connection,
        owner: LinkOwner,
        *,
        loop: asyncio.AbstractEventLoop,
        dead_after: float,
        leftover: bytes = b"",
    ) -> None:
        self.connection = connection
        self.bytes_received = 0
        self.bytes_sent = 0
        self._owner = owner
        self._loop = loop
        self._dead_after = dead_after
        self._leftover = leftover
        self._streams: dict[int, TunnelStream] = {}
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._end: tuple[GoAwayReason | None, str] | None = None
        self._buffer = receive_buffer()
        self._throttles: tuple[Throttle, Throttle] | None = None
        self._sending_paused: asyncio.TimerHandle | None = None
        self._reading_paused: asyncio.TimerHandle | None = None
        self.time = loop.time
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Established: self._on_established,
            ConnectRequested: self._on_connect_requested,
            Connected: self._on_connected,
            ConnectFailed: self._on_connect_failed,
            DataReceived: self._on_data,
            EofReceived: self._on_eof,
            StreamClosed: self._on_stream_closed,
            StreamWritable: self._on_writable,
            StatusReceived: self._on_status,
            RoundTripMeasured: self._on_round_trip,
            GoAwayReceived: self._on_go_away,
            TunnelEnded: self._on_ended,
        }

    # --- for the owner ---------------------------------------------------------

    def open_stream(self, target: Target, handler: StreamHandler | None) -> TunnelStream:
        """Hub: ask for a connection. Raises `LocalError` if the tunnel is draining.

        None: the caller sets the stream's `handler` before it returns to the loop.
        """
        stream_id = self.connection.connect(target, self.time())
        stream = self._streams[stream_id] = TunnelStream(self, stream_id, handler)
        self.flush_soon()
        return stream

    def send_status(self, status: Status) -> None:
        """Node: report to the hub."""
        self.connection.send_status(status)
        self.flush_soon()

    def go_away(self, reason: GoAwayReason, retry_after: int = 0, detail: str = "") -> None:
        """Take no new streams; the running ones go on."""
        if not self.connection.ended:
            self.connection.go_away(reason, retry_after, detail)
            self.flush_soon()

    def close(self, reason: GoAwayReason, detail: str = "") -> None:
        """End the tunnel and all its streams at once."""
        self._dispatch(self.connection.terminate(reason, detail))

    def limit_rate(self, rate: float | None) -> None:
        """Let `rate` bytes a second pass in each direction; None: as many as there are."""
        now = self.time()
        self._throttles = (Throttle(rate, now), Throttle(rate, now)) if rate is not None else None

    def end_streams(self, reason: CloseReason, detail: str) -> None:
        """End all streams, visibly to both ends; the tunnel goes on."""
        for stream in list(self._streams.values()):
            handler = stream.handler
            stream.close(reason, detail)
            if handler is not None:
                handler.stream_closed(reason, detail)

    @property
    def stream_count(self) -> int:
        return self.connection.stream_count

    def has_stream(self, stream: TunnelStream) -> bool:
        return self._streams.get(stream.id) is stream

    def forget_stream(self, stream: TunnelStream) -> None:
        """The stream's handler wants to hear nothing more."""
        self._streams.pop(stream.id, None)

    # --- asyncio protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = as_transport(transport)
        transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)
        tune_tunnel(transport_socket(transport), self._dead_after)
        self._arm_timer()
        if self._leftover:
            leftover, self._leftover = self._leftover, b""
            self._dispatch(self.connection.receive_data(leftover, self.time()))
        self.flush_soon()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_received += nbytes
        self._dispatch(self.connection.receive_data(self._buffer[:nbytes], self.time()))
        if self._throttles is not None:
            self._pause_reading(self._throttles[0].take(nbytes, self.time()))
        self.flush_if_needed()

    def eof_received(self) -> bool:
        self._dispatch(self.connection.receive_eof())
        return False

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for timer in (self._timer, self._sending_paused, self._reading_paused):
            if timer is not None:
                timer.cancel()
        self._dispatch(self.connection.receive_eof())
        assert self._end is not None
        reason, detail = self._end
        if exc is not None and reason is None:
            detail = str(exc) or type(exc).__name__
        self._owner.link_closed(self, reason, detail)

    # --- writing -----------------------------------------------------------------

    def flush_soon(self) -> None:
        """Write what has collected at the end of this turn of the loop, as few records."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def flush_if_needed(self) -> None:
        """The same, if there is anything: an idle turn of the loop costs microseconds, too."""
        if self.connection.has_output or self.connection.timeout_advanced:
            self.flush_soon()

    def _flush(self) -> None:
        self._flush_scheduled = False
        transport = self._transport
        while transport is not None and self._writable and self._sending_paused is None:
            records = self.connection.data_to_send()
            if not records:
                break
            size = 0
            for record in records:
                size += len(record)
                transport.write(record)
            self.bytes_sent += size
            if self._throttles is not None:
                self._pause_sending(self._throttles[1].take(size, self.time()))
        self._dispatch(self.connection.next_event_list())
        if self.connection.timeout_advanced:
            self._arm_timer()

    def _pause_sending(self, seconds: float) -> None:
        if seconds > 0.0:
            self._sending_paused = self._loop.call_later(seconds, self._resume_sending)

    def _resume_sending(self) -> None:
        self._sending_paused = None
        self._flush()

    def _pause_reading(self, seconds: float) -> None:
        if seconds > 0.0 and self._transport is not None and self._reading_paused is None:
            self._transport.pause_reading()
            self._reading_paused = self._loop.call_later(seconds, self._resume_reading)

    def _resume_reading(self) -> None:
        self._reading_paused = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- timer -------------------------------------------------------------------

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.connection.next_timeout()
        if due is not None and self._transport is not None:
            # Bytes that arrive only move the time out; one early call arms it again.
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._dispatch(self.connection.handle_timeout(self.time()))
        self.flush_soon()
        self._arm_timer()

    # --- events ------------------------------------------------------------------

    def _dispatch(self, events: list[Event]) -> None:
        handlers = self._handlers
        for event in events:
            try:
                handlers[type(event)](event)
            except Exception:
                self._contain(event)

    def _contain(self, event: Event) -> None:
        """A handler failed: that ends its stream, and the tunnel goes on with the others."""
        log.exception("the handler of %s failed", type(event).__name__)
        stream = self._streams.get(getattr(event, "stream_id", 0))
        if stream is not None:
            stream.close(CloseReason.INTERNAL, "the other end failed in a way of its own")

    def _handler(self, stream_id: int) -> StreamHandler | None:
        stream = self._streams.get(stream_id)
        return stream.handler if stream is not None else None

    def _on_established(self, event: Established) -> None:
        self._owner.established(self)

    def _on_connect_requested(self, event: ConnectRequested) -> None:
        stream = self._streams[event.stream_id] = TunnelStream(self, event.stream_id, None)
        self._owner.connect_requested(stream, event.target)

    def _on_connected(self, event: Connected) -> None:
        if handler := self._handler(event.stream_id):
            handler.stream_connected(event.address)

    def _on_connect_failed(self, event: ConnectFailed) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None and stream.handler is not None:
            stream.handler.stream_failed(event.reason, event.detail)

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None and stream.handler is not None:
            stream.handler.stream_data(event.data)

    def _on_eof(self, event: EofReceived) -> None:
        if handler := self._handler(event.stream_id):
            handler.stream_eof()

    def _on_stream_closed(self, event: StreamClosed) -> None:
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None and stream.handler is not None:
            stream.handler.stream_closed(event.reason, event.detail)

    def _on_writable(self, event: StreamWritable) -> None:
        if handler := self._handler(event.stream_id):
            handler.stream_writable()

    def _on_status(self, event: StatusReceived) -> None:
        self._owner.status_received(self, event.fields)

    def _on_round_trip(self, event: RoundTripMeasured) -> None:
        """`Connection.round_trip` holds the estimate."""

    def _on_go_away(self, event: GoAwayReceived) -> None:
        self._owner.go_away_received(self, event)

    def _on_ended(self, event: TunnelEnded) -> None:
        if event.reason is not None and event.reason.is_protocol_error:
            where = f" in {event.frame}" if event.frame else ""
            log.warning("%s%s: %s", event.reason.name.lower(), where, event.detail)
        self._end = (event.reason, event.detail)
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._throttles = self._sending_paused = None
            self._writable = True  # the last records go out even if the buffer is full
            self._flush()
            if event.reason is GoAwayReason.PING_TIMEOUT:
                transport.abort()  # nobody is there to read on
                return
            if event.reason is not None and transport.can_write_eof():
                # Reading on until the peer closes keeps a late frame of its from turning
                # our last records into a reset.
                transport.write_eof()
            else:
                transport.close()
            self._loop.call_later(CLOSE_TIMEOUT, transport.abort)
