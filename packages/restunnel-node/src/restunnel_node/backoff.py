"""How long to wait before the next attempt: decorrelated jitter, capped.

Each delay is drawn between `first` and twice the one before, so that a
thousand nodes that lost the same hub at once do not come back at once (Brooker,
"Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random
from collections.abc import Callable

GROWTH = 2.0


class Backoff:
    """Delays in seconds between `first` and `cap`."""

    def __init__(
        self, first: float, cap: float, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._first = first
        self._cap = max(first, cap)
        self._uniform = uniform
        self._last = first

    def next(self) -> float:
        """The delay before the next attempt."""
        self._last = min(self._cap, self._uniform(self._first, self._last * GROWTH))
        return self._last

    def reset(self) -> None:
        """An attempt succeeded: begin anew."""
        self._last = self._first
