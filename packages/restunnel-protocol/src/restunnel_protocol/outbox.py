"""The way out of a connection: frames collect in a record, records in a list.

Frames that are ready together share a record. A record is sealed when the next
frame does not fit or when somebody fetches; a fetched record is a buffer of its
own that nothing changes any more.
"""

from __future__ import annotations

from .codec import Buffer
from .frames import HEADER
from .limits import FRAME_HEADER_SIZE, MAX_PAYLOAD, MAX_PLAINTEXT, OUTPUT_LIMIT, OUTPUT_TARGET
from .records import RecordSealer

_MIN_PIECE = 2048
"""Bytes of room in a record below which data starts a new record instead."""

_spare_buffers: list[bytearray] = []
"""Plaintext buffers between two records, so that an idle tunnel holds none."""


class Outbox:
    """Collects frames and seals records."""

    __slots__ = ("_plain", "_plain_size", "_records", "_records_size", "_sealer")

    def __init__(self, sealer: RecordSealer) -> None:
        self._sealer = sealer
        self._plain: bytearray | None = None
        self._plain_size = 0
        self._records: list[bytearray] = []
        self._records_size = 0

    @property
    def room(self) -> int:
        """Bytes of data that may still go in; beyond that they wait with their stream."""
        return OUTPUT_TARGET - self._records_size - self._plain_size

    @property
    def overflows(self) -> bool:
        """Whether the peer lets so much pile up that it cannot be reading."""
        return self._records_size > OUTPUT_LIMIT

    @property
    def idle(self) -> bool:
        """Whether it holds nothing, not even a buffer."""
        return self._plain is None and not self._records

    def put(self, kind: int, stream_id: int, payload: Buffer) -> None:
        """Add a frame of at most `MAX_PAYLOAD` bytes of payload."""
        start = self._plain_size
        end = start + FRAME_HEADER_SIZE + len(payload)
        if end > MAX_PLAINTEXT:
            self._seal()
            start, end = 0, FRAME_HEADER_SIZE + len(payload)
        plain = self._plain
        if plain is None:
            plain = _spare_buffers.pop() if _spare_buffers else bytearray(MAX_PLAINTEXT)
            self._plain = plain
        HEADER.pack_into(plain, start, kind, stream_id, len(payload))
        plain[start + FRAME_HEADER_SIZE : end] = payload
        self._plain_size = end

    def put_data(self, kind: int, stream_id: int, data: Buffer) -> None:
        """Add bytes of any length, cut into frames that fill their records."""
        view = memoryview(data)
        while view:
            room = MAX_PAYLOAD - self._plain_size
            if room < len(view) and room < _MIN_PIECE:
                self._seal()
                room = MAX_PAYLOAD
            self.put(kind, stream_id, view[:room])
            view = view[room:]

    def take(self) -> list[bytearray]:
        """All records, the one at hand included; the outbox is empty then."""
        self._seal()
        records, self._records, self._records_size = self._records, [], 0
        return records

    def _seal(self) -> None:
        if self._plain is not None:
            record = self._sealer.seal(memoryview(self._plain)[: self._plain_size])
            _spare_buffers.append(self._plain)
            self._plain, self._plain_size = None, 0
            self._records.append(record)
            self._records_size += len(record)
