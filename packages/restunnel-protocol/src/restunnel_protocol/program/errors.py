"""Exit codes and errors for people: one lower-case line, and a hint where it helps."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the command lines return; scripts rely on it."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    """Nothing to connect to, or not running."""
    REFUSED = 4
    """Refused by policy."""


class ProgramError(Exception):
    """Something to tell the person at the command line; `message` is one line."""

    def __init__(self, message: str, *, hint: str = "", code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())  # a line of another's words may be several
        self.hint = hint
        self.code = code


def describe_os_error(error: OSError) -> str:
    """`address in use` rather than `[Errno 98] error while attempting to bind ...`."""
    if isinstance(error, socket.gaierror):  # its numbers are not errno's
        return str(error.strerror).lower()
    if error.errno == errno.EADDRINUSE:
        return "address in use"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error).lower() or type(error).__name__


def run_program(name: str, main: Callable[[], int]) -> int:
    """Run a command line; errors become `name: message` and `hint: ...` on stderr."""
    try:
        return main()
    except ProgramError as error:
        print(f"{name}: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        # The reader of our output went away (`| head`): no business of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return 130  # what a shell reports for SIGINT
