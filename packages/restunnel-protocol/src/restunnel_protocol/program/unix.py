"""Unix sockets in data directories, also where the path is over the kernel's limit."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import ExitCode, ProgramError

_MAX_PATH: Final = 100
"""Bytes that every system takes in sun_path (104 on macOS, 108 on Linux, with the NUL)."""


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A name for `path` that fits, valid within the block."""
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def bind_unix(path: Path) -> socket.socket:
    """A listening socket at `path`, mode 0600. What lay there before is removed.

    The caller holds the data directory's lock, so nobody else listens there.
    """
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        with _short_path(path) as name:
            sock.bind(name)
        sock.listen()
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ProgramError(f"cannot listen on {path}: {str(error).lower()}") from error
    finally:
        os.umask(previous)
    return sock


def connect_unix(path: Path, *, not_running: str, hint: str, timeout: float) -> socket.socket:
    """A blocking connection to `path`; `ProgramError` (not running) if nobody listens."""
    if not hasattr(socket, "AF_UNIX"):  # Windows: nobody can listen either
        raise ProgramError(not_running, hint=hint, code=ExitCode.NOT_RUNNING)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        with _short_path(path) as name:
            sock.connect(name)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise ProgramError(not_running, hint=hint, code=ExitCode.NOT_RUNNING) from error
    except OSError as error:
        sock.close()
        raise ProgramError(f"cannot reach {path}: {str(error).lower()}") from error
    return sock
