"""A private key in a file: 32 raw bytes."""

from __future__ import annotations

from pathlib import Path

from ..keys import PrivateKey
from .errors import ProgramError


def parse_key(path: Path, content: bytes) -> PrivateKey:
    """The key that a key file holds. Raises `ProgramError` naming the file."""
    try:
        return PrivateKey(content)
    except ValueError as error:
        raise ProgramError(
            f"cannot use the key file {path}: it has {len(content)} bytes instead of 32",
            hint="restore the file from a backup; a new key would have to be paired again",
        ) from error
