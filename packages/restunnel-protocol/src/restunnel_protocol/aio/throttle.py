"""A rate limit as a value: a token bucket that may be overdrawn once."""

from __future__ import annotations

from typing import Final

MIN_RATE: Final = 64 * 1024
"""Bytes a second: below that, one record would hold up a PING for too long."""

BURST_TIME: Final = 0.1
"""Seconds' worth of bytes that may pass at once after a pause."""


class Throttle:
    """Tells how long to pause after each piece, so that `rate` bytes a second pass."""

    __slots__ = ("_allowance", "_burst", "_rate", "_then")

    def __init__(self, rate: float, now: float) -> None:
        """`now` in seconds of any clock that rises. Raises `ValueError` below `MIN_RATE`."""
        if rate < MIN_RATE:
            raise ValueError(f"a rate is at least {MIN_RATE} bytes a second")
        self._rate = rate
        self._burst = rate * BURST_TIME
        self._allowance = self._burst
        self._then = now

    def take(self, size: int, now: float) -> float:
        """`size` bytes have passed; the seconds for which nothing more should."""
        earned = (now - self._then) * self._rate
        self._then = now
        self._allowance = min(self._burst, self._allowance + earned) - size
        return max(0.0, -self._allowance / self._rate)
