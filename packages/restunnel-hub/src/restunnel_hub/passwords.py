"""The dashboard's password, for those who expose it or dislike one-time links."""

from __future__ import annotations

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from .store import StoreThread

MIN_PASSWORD: Final = 12
"""Characters: what guessing over the network, slowed down as it is, does not find."""

FAILURE_PAUSE: Final = 0.5
"""Seconds that a wrong password takes, and the next one has to wait."""

MAX_WAITING: Final = 20
"""Tries that wait for their turn; more are refused unread."""

PROPERTY: Final = "dashboard_password"


class Passwords:
    """Argon2id with the library's parameters (RFC 9106, low memory): 50 ms a try, in a thread.

    One try at a time, so that guessing neither gets faster by asking in parallel nor
    takes the hub's memory.
    """

    def __init__(self, store: StoreThread) -> None:
        self._store = store
        self._hasher = PasswordHasher()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._hash: str | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._hash is not None

    async def load(self) -> None:
        """Take it from the store."""
        self._hash = await self._store.call(self._store.store.ledger.property, PROPERTY)

    async def set(self, password: str | None) -> None:
        """A new one, or none."""
        hashed = None
        if password is not None:
            hashed = await asyncio.to_thread(self._hasher.hash, password)
        await self._store.call(self._store.store.ledger.set_property, PROPERTY, hashed)
        self._hash = hashed

    async def verify(self, password: str) -> bool:
        """Whether this is it; false also if too many others are trying."""
        if self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        try:
            async with self._turn:
                return await self._try(password)
        finally:
            self._waiting -= 1

    async def _try(self, password: str) -> bool:
        if self._hash is None:
            return False
        try:
            return await asyncio.to_thread(self._hasher.verify, self._hash, password)
        except (VerificationError, InvalidHashError):
            await asyncio.sleep(FAILURE_PAUSE)
            return False
