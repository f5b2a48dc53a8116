"""Flow control: byte credit per stream and direction, and the budget above it.

A sender holds credit and may never send a byte beyond it. A receiver grants
`initial` bytes with HELLO, returns credit as its reader takes bytes away, and
grows a window that is emptied faster than the round trip refills it.
"""

from __future__ import annotations

from .errors import GoAwayReason, RemoteError
from .limits import MAX_WINDOW


class WindowBudget:
    """Bytes by which windows may exceed their initial size, in a tree of budgets.

    A tunnel's budget has the process's as parent; both must have room.
    """

    __slots__ = ("_limit", "_parent", "_used")

    def __init__(self, limit: int, parent: WindowBudget | None = None) -> None:
        self._limit = limit
        self._parent = parent
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def reserve(self, size: int) -> bool:
        """Take `size` bytes if there is room for them."""
        if self._used + size > self._limit:
            return False
        if self._parent is not None and not self._parent.reserve(size):
            return False
        self._used += size
        return True

    def release(self, size: int) -> None:
        """Give back bytes that `reserve` gave."""
        assert size <= self._used
        self._used -= size
        if self._parent is not None:
            self._parent.release(size)


class SendWindow:
    """Credit that the peer has granted us on one stream."""

    __slots__ = ("credit",)

    def __init__(self, initial: int) -> None:
        self.credit = initial

    def add(self, increment: int) -> None:
        """Take a WINDOW. Raises `RemoteError` (FLOW_CONTROL) over `MAX_WINDOW`."""
        if self.credit + increment > MAX_WINDOW:
            raise RemoteError(
                GoAwayReason.FLOW_CONTROL, f"credit would grow over {MAX_WINDOW} bytes"
            )
        self.credit += increment


class ReceiveWindow:
    """Credit that we have granted the peer on one stream."""

    __slots__ = ("_consumed", "_initial", "_last_update", "credit", "size")

    def __init__(self, initial: int, now: float) -> None:
        self._initial = initial
        self.size = initial
        self.credit = initial
        self._consumed = 0
        self._last_update = now

    def receive(self, size: int) -> None:
        """Account for DATA. Raises `RemoteError` (FLOW_CONTROL) beyond the credit."""
        if size > self.credit:
            raise RemoteError(
                GoAwayReason.FLOW_CONTROL, f"{size} bytes of data on {self.credit} bytes of credit"
            )
        self.credit -= size

    def consume(
        self, size: int, now: float, rtt: float | None, maximum: int, budget: WindowBudget
    ) -> int:
        """The reader took `size` bytes; the increment to grant now, often 0.

        Credit is returned once a quarter of the window has been consumed. If that took
        no longer than a round trip (`rtt`, seconds) the window may be what limits the
        stream, and it doubles as far as `maximum` and `budget` allow.

        Returning it by halves would be fewer frames, but a burst that is a few bytes
        short of the second half then waits for a whole round trip, every time: measured
        at 100 ms, that was half of the throughput.
        """
        self._consumed += size
        if self._consumed * 4 < self.size:
            return 0
        increment = self._consumed
        if rtt is not None and now - self._last_update <= rtt:
            growth = min(self.size, maximum - self.size)
            if growth > 0 and budget.reserve(growth):
                self.size += growth
                increment += growth
        self._consumed = 0
        self._last_update = now
        self.credit += increment
        return increment

    def release(self, budget: WindowBudget) -> None:
        """The stream is over: give the grown part back to the budget."""
        if self.size > self._initial:
            budget.release(self.size - self._initial)
            self.size = self._initial
