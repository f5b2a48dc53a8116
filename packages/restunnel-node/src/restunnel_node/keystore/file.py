"""The key as 32 bytes in `node_key.bin`, mode 0600: the default on Linux."""

from __future__ import annotations

from pathlib import Path

from restunnel_protocol import PrivateKey
from restunnel_protocol.program.files import read_private, write_private
from restunnel_protocol.program.keyfile import parse_key


class FileKeyStore:
    """A file that only its owner can read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> PrivateKey | None:
        try:
            return parse_key(self._path, read_private(self._path))
        except FileNotFoundError:
            return None

    def save(self, key: PrivateKey) -> None:
        write_private(self._path, key.raw, replace=False)
