"""A key store that forgets: for tests, and for nodes that live once."""

from __future__ import annotations

from restunnel_protocol import PrivateKey


class MemoryKeyStore:
    """The in-memory twin of every other store."""

    def __init__(self, key: PrivateKey | None = None) -> None:
        self._key = key

    def load(self) -> PrivateKey | None:
        return self._key

    def save(self, key: PrivateKey) -> None:
        if self._key is not None:
            raise FileExistsError("there is a key already")
        self._key = key
