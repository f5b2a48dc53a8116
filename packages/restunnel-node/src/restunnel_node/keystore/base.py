"""The interface of a key store, and how a node comes by its key."""

from __future__ import annotations

from typing import Protocol

from restunnel_protocol import PrivateKey


class KeyStore(Protocol):
    """Keeps one private key."""

    def load(self) -> PrivateKey | None:
        """The key, or None if there is none yet. Raises `ProgramError`."""

    def save(self, key: PrivateKey) -> None:
        """Store a first key. Raises `FileExistsError` rather than replace one."""


def load_or_create(store: KeyStore) -> PrivateKey:
    """The stored key; a new one, stored first, where there is none."""
    key = store.load()
    if key is None:
        key = PrivateKey.generate()
        store.save(key)
    return key
