"""Streams' turns on the way out.

While little is waiting, data goes straight into the record under construction. Once
the outbox is full, or a stream's credit is spent, data stays with its stream, and
streams take turns, a record's worth each, as room comes.
"""

from __future__ import annotations

from collections import deque

from .codec import Buffer
from .frames import FrameType
from .limits import (
    MAX_PAYLOAD,
    OUTPUT_TARGET,
    PENDING_HIGH,
    PENDING_LOW,
    PENDING_SMALL,
    PENDING_TOTAL,
)
from .outbox import Outbox
from .streams import Stream


class Scheduler:
    """The data of all streams of a tunnel that waits for credit or for room."""

    __slots__ = ("_outbox", "_ready", "_waiting")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._ready: deque[Stream] = deque()
        self._waiting = 0

    @property
    def idle(self) -> bool:
        """Whether nobody has both data and credit."""
        return not self._ready

    def offer_size(self, stream: Stream) -> int:
        """Bytes that the stream's source should read at once: more would only be queued."""
        if self._waiting >= PENDING_TOTAL:
            return PENDING_SMALL
        return max(PENDING_SMALL, min(stream.send_window.credit, OUTPUT_TARGET))

    def offer(self, stream: Stream, data: Buffer) -> bool:
        """Send or queue bytes; whether the source may go on at once.

        `data` is used or copied before this returns.
        """
        size = len(data)
        fits = max(0, min(size, stream.send_window.credit, self._outbox.room))
        if stream.pending:
            fits = 0
        if fits == size:
            self._write(stream, data)
            return not stream.throttled
        view = memoryview(data)
        if fits:
            self._write(stream, view[:fits])
        return self._queue(stream, bytes(view[fits:]))

    def _queue(self, stream: Stream, data: bytes) -> bool:
        stream.pending.append(data)
        stream.pending_size += len(data)
        self._waiting += len(data)
        self.schedule(stream)
        stream.throttled = stream.throttled or stream.pending_size >= self._limit(stream)
        return not stream.throttled

    def schedule(self, stream: Stream) -> None:
        """Give the stream a turn if it has both data and credit."""
        if stream.pending and stream.send_window.credit and not stream.scheduled:
            stream.scheduled = True
            self._ready.append(stream)

    def serve(self) -> Stream | None:
        """The next stream's turn, a record's worth; None once nobody is ready or no room is."""
        if not self._ready or self._outbox.room <= 0:
            return None
        stream = self._ready.popleft()
        stream.scheduled = False
        limit = min(stream.send_window.credit, MAX_PAYLOAD)
        while limit and stream.pending:
            piece = stream.take(limit)
            limit -= len(piece)
            self._waiting -= len(piece)
            self._write(stream, piece)
        self.schedule(stream)
        return stream

    def resumes(self, stream: Stream) -> bool:
        """Whether the source of a throttled stream may go on from now."""
        if not stream.throttled or stream.pending_size > PENDING_LOW:
            return False
        stream.throttled = False
        return True

    def forget(self, stream: Stream) -> None:
        """Drop what waits. The stream may still stand in the queue, with nothing to do there."""
        self._waiting -= stream.pending_size
        stream.pending.clear()
        stream.pending_size = 0
        stream.throttled = False

    def clear(self) -> None:
        """Nobody gets a turn any more."""
        self._ready.clear()

    def _limit(self, stream: Stream) -> int:
        """Bytes queued at which the source should stop: a stalled stream queues next to nothing."""
        if not stream.send_window.credit:
            return 1
        return PENDING_SMALL if self._waiting >= PENDING_TOTAL else PENDING_HIGH

    def _write(self, stream: Stream, data: Buffer) -> None:
        """DATA frames for bytes that the credit covers, into the record at hand."""
        stream.send_window.spend(len(data))
        self._outbox.put_data(FrameType.DATA, stream.id, data)
