"""How long a client's session stays with its node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

MAX_SESSIONS: Final = 100_000
"""Sessions with a lifetime that are remembered; those unused for longest go first."""


class SessionClock:
    """Counts the generations of sessions that have a lifetime.

    A session's first generation begins with its first use. Once its lifetime is over,
    the next use begins another, for which the choice of a node is made anew. Kept in
    memory: after a restart of the hub a session is in its first generation again.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._sessions: dict[tuple[str, str], tuple[float, int]] = {}

    def generation(self, scope: str, session: str, lifetime: float, *, use: bool = True) -> int:
        """The generation of a session within a group (`scope`).

        `lifetime` in seconds, 0: no end. Without `use` it is only looked at.
        """
        if not lifetime:
            return 0
        key, now = (scope, session), self._monotonic()
        begun, number = self._sessions.get(key, (now, 0))
        if now - begun >= lifetime:
            begun, number = now, number + 1
        if not use:
            return number
        self._sessions.pop(key, None)
        self._sessions[key] = (begun, number)  # at the end of the dict: used last
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return number
