"""What `doctor` looks at: findings, each with its remedy."""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from .errors import ExitCode

_TIME_ERROR: Final = 5
"""adjtimex(2): the clock is not synchronised."""

_TIMEX_SIZE: Final = 512
"""Bytes, more than `struct timex` takes on any Linux."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `state` is ok, warning or failure."""

    name: str
    state: str
    detail: str
    remedy: str = ""


def good(name: str, detail: str) -> Finding:
    """All is well."""
    return Finding(name, "ok", detail)


def bad(name: str, detail: str, remedy: str) -> Finding:
    """This keeps things from working."""
    return Finding(name, "failure", detail, remedy)


def doubtful(name: str, detail: str, remedy: str) -> Finding:
    """This may be as it should be, or not."""
    return Finding(name, "warning", detail, remedy)


def report(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print findings; the exit code is 1 if there is a failure among them."""
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{finding.state:8} {finding.name}: {finding.detail}")
            if finding.remedy:
                print(f"{'':8} -> {finding.remedy}")
    failed = any(finding.state == "failure" for finding in findings)
    return ExitCode.FAILED if failed else ExitCode.OK


def check_private(path: Path, mode: int) -> Finding:
    """A file or directory that must be its owner's alone."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return good(path.name, "not there yet")
    found = stat.S_IMODE(status.st_mode)
    if os.name == "posix" and found & 0o077:
        return bad(path.name, f"open to other users (mode {found:o})", f"chmod {mode:o} {path}")
    if os.name == "posix" and status.st_uid != os.geteuid() and os.geteuid() != 0:
        return bad(path.name, "belongs to another user", f"chown $(id -u) {path}")
    return good(path.name, f"mode {found:o}")


def check_clock() -> Finding:
    """Whether somebody keeps this machine's clock right, where the system says."""
    state = _clock_state()
    if state is None:
        return good("clock", "this system does not say whether it is synchronised")
    if state == _TIME_ERROR:
        return doubtful(
            "clock",
            "not synchronised; pairing links live by it, and so do the days of limits",
            "timedatectl set-ntp true (or run chrony)",
        )
    return good("clock", "synchronised")


def _clock_state() -> int | None:
    if sys.platform != "linux":
        return None
    try:
        buffer = ctypes.create_string_buffer(_TIMEX_SIZE)  # modes 0: only look
        state = ctypes.CDLL(None).adjtimex(buffer)
    except (OSError, AttributeError, MemoryError):
        return None
    return state if isinstance(state, int) and state >= 0 else None


def check_descriptors(needed: int) -> Finding:
    """Whether the system lets a process have enough connections."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return good("descriptors", "no limit")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return good("descriptors", "no limit")
    if hard < needed:
        return doubtful(
            "descriptors",
            f"at most {hard}; each proxied connection takes one",
            f"ulimit -Hn {needed}, or LimitNOFILE={needed} in the service's unit",
        )
    return good("descriptors", f"up to {hard}")
