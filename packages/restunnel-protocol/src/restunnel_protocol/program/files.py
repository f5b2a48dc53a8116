"""Files that only their owner may read, written so that a crash leaves old or new."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import IO

from .errors import ProgramError, describe_os_error

PRIVATE_DIRECTORY_MODE = 0o700
PRIVATE_FILE_MODE = 0o600

_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # POSIX | Windows


def make_private_directory(path: Path) -> None:
    """Create a data directory for its owner alone, or check the one there is."""
    try:
        path.mkdir(mode=PRIVATE_DIRECTORY_MODE, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ProgramError(
            f"cannot use the data directory {path}: {describe_os_error(error)}"
        ) from error
    if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
        try:
            path.chmod(PRIVATE_DIRECTORY_MODE)
        except OSError as error:
            raise ProgramError(
                f"the data directory {path} is open to other users",
                hint=f"chmod 700 {path}",
            ) from error


def read_private(path: Path) -> bytes:
    """The content of a secret file that belongs to us and to nobody else.

    Raises `FileNotFoundError` if there is none, `ProgramError` if it is readable
    by others, a link, not a file, or cannot be read.
    """
    try:
        # O_NONBLOCK: a named pipe in the place of the file must not stop us.
        descriptor = os.open(path, os.O_RDONLY | _OPEN_FLAGS | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ProgramError(
            f"cannot read {path}: {describe_os_error(error)}",
            hint="the file must belong to the user who runs this, with mode 600",
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ProgramError(f"cannot read {path}: not a regular file")
    with open(descriptor, "rb") as file:
        if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
            raise ProgramError(
                f"cannot use {path}: other users can read it", hint=f"chmod 600 {path}"
            )
        return file.read()


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a whole file, mode 0600, so that after a crash it is the old or the new.

    With `replace=False`, raises `FileExistsError` if there is one already.
    """
    if not replace and path.exists():
        raise FileExistsError(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS
        with open(os.open(temporary, flags, PRIVATE_FILE_MODE), "wb") as file:
            _give_to_owner(file.fileno(), path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ProgramError(f"cannot write {path}: {describe_os_error(error)}") from error


def lock(path: Path, holder: str) -> IO[bytes]:
    """Hold an exclusive lock for as long as the returned file stays open.

    Raises `ProgramError` if another process holds it; `holder` says who that is.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN_FLAGS, PRIVATE_FILE_MODE)
    file = open(descriptor, "r+b")  # noqa: SIM115 - it stays open as long as the lock is held
    _give_to_owner(descriptor, path.parent)
    try:
        _lock_file(file)
    except OSError as error:
        file.close()
        raise ProgramError(
            f"{holder} is already running with the data directory {path.parent}",
            hint="stop it first, or give this one its own --data-dir",
        ) from error
    return file


def _give_to_owner(descriptor: int, directory: Path) -> None:
    """A file that root makes in a service's directory is the service's."""
    if os.name == "posix" and os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _lock_file(file: IO[bytes]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut, where directories can be synced."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
