"""Whether the peer is still there, and how far away: silence, PINGs, round trips.

All times are in seconds of the caller's clock.
"""

from __future__ import annotations

from .limits import MAX_OUTSTANDING_PINGS
from .messages import PING_SIZE

_RTT_REFRESH = 1.0
"""Seconds after which a busy tunnel asks for a fresh round-trip measurement."""

_RTT_MEMORY = 0.75
"""Weight of what was known against a new, longer sample."""


class Liveness:
    """Counts the silence of the peer and measures round trips."""

    __slots__ = (
        "_count",
        "_deadline",
        "_interval",
        "_last_ping",
        "_last_received",
        "_outstanding",
        "_timeout",
        "round_trip",
    )

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._last_received = now
        self._last_ping = now
        self._deadline: float | None = None
        self._outstanding: dict[bytes, float] = {}
        self._count = 0
        self.round_trip: float | None = None
        """The estimate; None before the first PONG."""

    def received(self, now: float) -> None:
        """A byte has come: whatever it is, it proves the peer alive."""
        self._last_received = now
        self._deadline = None

    def new_ping(self, now: float) -> bytes:
        """The payload of a PING that is sent now."""
        self._count += 1
        payload = self._count.to_bytes(PING_SIZE, "big")
        while len(self._outstanding) >= MAX_OUTSTANDING_PINGS:
            del self._outstanding[next(iter(self._outstanding))]
        self._outstanding[payload] = now
        self._last_ping = now
        return payload

    def answered(self, payload: bytes, now: float) -> float | None:
        """A PONG has come: the sample that it gives, None if we did not ask."""
        sent = self._outstanding.pop(payload, None)
        if sent is None:
            return None
        sample, known = now - sent, self.round_trip
        # The best of the last and this: a PONG that queued behind data says little.
        if known is not None:
            self.round_trip = min(sample, _RTT_MEMORY * known + (1 - _RTT_MEMORY) * sample)
        else:
            self.round_trip = sample
        return sample

    def is_stale(self, now: float) -> bool:
        """Whether a busy tunnel should measure its round trip again."""
        return self.round_trip is None or now - self._last_ping > _RTT_REFRESH

    @property
    def due(self) -> float:
        """When to look again: for a PING, or for the end."""
        if self._deadline is not None:
            return self._deadline
        return self._last_received + self._interval

    @property
    def asked(self) -> bool:
        """Whether the peer has been asked for a sign of life and has not given one."""
        return self._deadline is not None

    def ask(self, now: float) -> bytes:
        """The payload of a PING that must be answered, by any byte, before the timeout."""
        self._deadline = now + self._timeout
        return self.new_ping(now)
