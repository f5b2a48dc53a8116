"""What nodes and clients have carried: counted here, written to the store now and then."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


def today(now: float | None = None) -> str:
    """The day in UTC, as in `2026-11-22`; the first seven letters are the month."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


@dataclass(slots=True)
class Traffic:
    """Bytes from and to a node (or client), and streams, within some time."""

    received: int = 0
    sent: int = 0
    streams: int = 0

    def __bool__(self) -> bool:
        return bool(self.received or self.sent or self.streams)

    @property
    def bytes(self) -> int:
        """In both directions."""
        return self.received + self.sent

    def add(self, other: Traffic) -> None:
        """Count some more."""
        self.received += other.received
        self.sent += other.sent
        self.streams += other.streams


@dataclass(slots=True)
class Usage:
    """One node's traffic: ever, this day, this month; and what the store does not have yet.

    Bytes are those of its tunnels on the wire, which is what a data plan counts.
    `streams` counts the streams that were opened.
    """

    total: Traffic = field(default_factory=Traffic)
    day: str = ""
    day_bytes: int = 0
    month_bytes: int = 0
    streams: int = 0
    _counted_streams: int = 0
    _pending: dict[str, Traffic] = field(default_factory=dict)

    def count(self, received: int, sent: int, now: float | None = None) -> None:
        """So many bytes more; also takes up the streams opened since the last time."""
        streams, self._counted_streams = self.streams - self._counted_streams, self.streams
        traffic = Traffic(received, sent, streams)
        if not traffic:
            return
        self.turn(now)
        self.total.add(traffic)
        self.day_bytes += traffic.bytes
        self.month_bytes += traffic.bytes
        self._pending.setdefault(self.day, Traffic()).add(traffic)

    def exceeds(self, max_day: int | None, max_month: int | None) -> bool:
        """Whether the bytes of this day or month have reached a limit."""
        self.turn()
        return (max_day is not None and self.day_bytes >= max_day) or (
            max_month is not None and self.month_bytes >= max_month
        )

    def take_pending(self) -> dict[str, Traffic]:
        """What is to be written: traffic by day. It counts as written from here on."""
        pending, self._pending = self._pending, {}
        return pending

    def turn(self, now: float | None = None) -> None:
        """Begin a new day, and a new month, once they are there."""
        day = today(now)
        if day == self.day:
            return
        if day[:7] != self.day[:7]:
            self.month_bytes = 0
        self.day, self.day_bytes = day, 0
