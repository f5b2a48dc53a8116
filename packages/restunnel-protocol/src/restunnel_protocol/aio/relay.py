"""Carries bytes between one TCP connection and one stream, by callbacks, without a task.

    TCP connection  --buffer_updated-->  stream.send      (paused while the tunnel is full)
    TCP connection  <--transport.write--  stream_data   (credit held while the socket is full)

What the socket does not take at once is kept here in one piece, so that it costs the
bytes that the stream's window counts and no more, in however small frames it came.

EOF becomes EOF, a reset becomes a reset, in both directions. Until both
directions have ended, the socket is set so that closing it resets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..addresses import Target
from ..codec import Buffer
from ..connection import Role
from ..errors import CloseReason, ConnectFailReason
from ..limits import PENDING_SMALL
from .link import TunnelStream
from .peer_watch import Watcher
from .sockets import as_transport, receive_buffer, reset_on_close, transport_socket

WRITE_HIGH = 4096
"""Bytes in the socket's transport at which it is full: small writes still leave together."""

RESET_GRACE = 10.0
"""Seconds that data received before a failure may take to leave before the reset."""


class Relay(asyncio.BufferedProtocol):
    """Protocol of the TCP connection and handler of the stream at once.

    Give it to `create_connection`, or call `attach` with a transport that already
    exists; then it becomes the stream's handler. Its socket is to be tuned before that
    (`tune_proxied`). `done` is called once, when the TCP connection is closed.
    """

    def __init__(self, stream: TunnelStream, done: Callable[[Relay], None]) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self._stream = stream
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = receive_buffer()
        self._small_buffer = self._buffer[:PENDING_SMALL]
        self._reads_much = False
        self._socket_full = False
        self._backlog = bytearray()
        self._unconsumed = 0
        self._stream_over = False
        self._resetting: asyncio.TimerHandle | None = None
        self._ended = False
        self._peer = Watcher(self._loop, self._on_peer_gone)
        self._peer_gone = False

    @property
    def alive(self) -> bool:
        """Whether the TCP connection is there (still flushing, maybe)."""
        return self._transport is not None

    def attach(
        self, transport: asyncio.Transport, early: Buffer = b"", *, ended: bool = False
    ) -> None:
        """Take over a transport from the protocol that it has.

        `early` is what that has read and not used; `ended` tells that it has read the end.
        """
        transport.set_protocol(self)
        self.connection_made(transport)
        self.bytes_received += len(early)
        if early and not self._stream.send(early):
            self._pause_reading()
        elif not ended:
            transport.resume_reading()
        if ended:
            self.eof_received()

    def abort(self, reason: CloseReason) -> None:
        """End both sides at once, visibly failed."""
        if not self._stream_over:
            self._stream_over = True
            self._stream.close(reason)
        self._reset()

    # --- the TCP connection --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = as_transport(transport)
        transport.set_write_buffer_limits(WRITE_HIGH, 0)
        reset_on_close(transport_socket(transport), True)
        self._stream.handler = self

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._reads_much:
            return self._buffer[: self._stream.offer_size]
        return self._small_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._stream_over:
            return
        self.bytes_received += nbytes
        self._reads_much = nbytes >= PENDING_SMALL
        if not self._stream.send(self._buffer[:nbytes]):
            self._pause_reading()

    def eof_received(self) -> bool:
        if self._ended:  # uvloop says it again after each resume_reading
            return True
        self._ended = True
        if self._transport is not None:
            self._peer.start(self._transport)
        if not self._stream_over:
            self._stream.send_eof()
        return True  # the other direction goes on

    def pause_writing(self) -> None:
        self._socket_full = True

    def resume_writing(self) -> None:
        self._socket_full = False
        self._write_backlog()
        if self._socket_full:
            return
        if self._resetting is not None:
            self._reset()
        elif self._unconsumed and not self._stream_over:
            size, self._unconsumed = self._unconsumed, 0
            self._stream.consume(size)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.stop()
        self._transport = None
        if self._resetting is not None:
            self._resetting.cancel()
        if not self._stream_over:
            self._stream_over = True
            # What a target sent before its reset still reaches the client. A client that is
            # gone leaves nobody who could want the rest, and draining might never end.
            drain = self._stream.link.connection.role is Role.NODE
            reason = CloseReason.RESET if self._peer_gone else _close_reason(exc)
            self._stream.close(reason, drain=drain)
        self._done(self)

    # --- the stream ----------------------------------------------------------------

    def stream_connected(self, address: Target) -> None:
        raise AssertionError("the stream was connected before the relay got it")

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        raise AssertionError("the stream was connected before the relay got it")

    def stream_data(self, data: memoryview) -> None:
        size = len(data)
        self.bytes_sent += size
        assert self._transport is not None
        if self._socket_full:
            self._backlog += data
        else:
            self._transport.write(data)
        if self._socket_full:
            self._unconsumed += size
        else:
            self._stream.consume(size)

    def stream_eof(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._write_backlog()
            self._transport.write_eof()

    def stream_closed(self, reason: CloseReason | None, detail: str) -> None:
        self._stream_over = True
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._write_backlog()
        if reason in (None, CloseReason.NORMAL):
            reset_on_close(transport_socket(transport), False)
            transport.close()
        elif transport.get_write_buffer_size() == 0:
            self._reset()
        else:
            # resume_writing comes once all of it is with the kernel.
            self._resetting = self._loop.call_later(RESET_GRACE, self._reset)
            transport.set_write_buffer_limits(0)

    def stream_writable(self) -> None:
        if self._transport is None or self._transport.is_closing() or self._ended:
            return
        self._peer.stop()
        self._transport.resume_reading()

    def _write_backlog(self) -> None:
        if self._backlog and self._transport is not None:
            backlog, self._backlog = self._backlog, bytearray()
            self._transport.write(backlog)

    def _pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()
            self._peer.start(self._transport)

    def _on_peer_gone(self) -> None:
        self._peer_gone = True
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        if self._transport is not None:
            reset_on_close(transport_socket(self._transport), True)
            self._transport.abort()


def _close_reason(exc: Exception | None) -> CloseReason:
    if isinstance(exc, TimeoutError):
        return CloseReason.TIMEOUT
    return CloseReason.RESET if isinstance(exc, OSError) else CloseReason.CANCELLED
