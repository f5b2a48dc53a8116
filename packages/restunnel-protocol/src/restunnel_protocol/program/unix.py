"""Unix sockets in data directories, also where the path is over the kernel's limit."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import ExitCode, ProgramError, describe_os_error

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
    """A listening socket at `path`, mode 0600, in the place of one that nobody listens on.

    Raises `ProgramError` if somebody does, or if something else lies there.
    """
    _make_room(path)
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


def _make_room(path: Path) -> None:
    """Remove a socket that was left behind."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ProgramError(f"cannot listen on {path}: there is a file, and no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, _short_path(path) as name:
            probe.connect(name)
    except (FileNotFoundError, ConnectionRefusedError):
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ProgramError(f"cannot listen on {path}: {describe_os_error(error)}") from error
    else:
        raise ProgramError(
            f"cannot listen on {path}: address in use", hint="another program listens there"
        )


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
