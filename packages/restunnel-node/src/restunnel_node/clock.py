"""The rising timestamp that makes each message 1 of this node greater than all before."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from restunnel_protocol.program.errors import ProgramError
from restunnel_protocol.program.files import read_private, write_private


class RisingClock:
    """`max(now, last + 1)` in nanoseconds, the last one kept on disk before it is used."""

    def __init__(self, path: Path, now: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._now = now

    def next(self) -> int:
        """A timestamp that no earlier call, in any process, has returned."""
        value = max(self._now(), self._last() + 1)
        write_private(self._path, f"{value}\n".encode())
        return value

    def _last(self) -> int:
        try:
            return int(read_private(self._path))
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise ProgramError(
                f"the file {self._path} is damaged: it should hold one number",
                hint="delete it if this device's clock has not been set back",
            ) from error
