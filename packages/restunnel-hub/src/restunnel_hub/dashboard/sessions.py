"""Who may see the dashboard: one-time login URLs, and the sessions that come of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LOGIN_LIFETIME: Final = 5 * 60.0
"""Seconds for which a login URL is good."""

SESSION_LIFETIME: Final = 12 * 3600.0
"""Seconds for which a browser stays logged in."""

MAX_OPEN: Final = 100
"""Logins and sessions kept at once; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Session:
    """A logged-in browser; `csrf` goes into every form it gets."""

    expires_at: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))


class Sessions:
    """Logins and sessions, in memory: a restart of the hub logs everybody out."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._logins: dict[str, float] = {}
        self._sessions: dict[str, Session] = {}

    def new_login(self) -> str:
        """A token for one login."""
        token = secrets.token_urlsafe(32)
        self._logins[token] = self._monotonic() + LOGIN_LIFETIME
        _trim(self._logins)
        return token

    def redeem(self, token: str) -> str | None:
        """The id of a new session, for a login token that is still good, once."""
        expires_at = self._logins.pop(token, 0.0)
        return self.begin() if self._monotonic() < expires_at else None

    def begin(self) -> str:
        """The id of a new session."""
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = Session(self._monotonic() + SESSION_LIFETIME)
        _trim(self._sessions)
        return session_id

    def find(self, session_id: str) -> Session | None:
        """A session that has not expired."""
        session = self._sessions.get(session_id)
        if session is None or self._monotonic() >= session.expires_at:
            return None
        return session


def _trim(entries: dict[str, float] | dict[str, Session]) -> None:
    while len(entries) > MAX_OPEN:
        del entries[next(iter(entries))]
