"""Flow control: byte credit per stream and direction, and the budget above it.

A sender holds credit and may never send a byte beyond it. A receiver grants a small
first window with HELLO, more of it with the stream while its budget has room, returns
credit as its reader takes bytes away, and grows a window that is emptied faster than
the round trip refills it. A sender that has nothing to send gives credit back.
"""

from __future__ import annotations

from .errors import GoAwayReason, RemoteError
from .limits import GROWTH_SHARE, MAX_WINDOW, START_SHARE


class WindowBudget:
    """Bytes that windows promise to hold, in a tree of budgets.

    A tunnel's budget has the process's as parent. First windows are counted whether or
    not there is room, since HELLO has promised them; windows grow only up to three
    quarters of each budget, so that many streams to come find their first one within it.
    """

    __slots__ = ("_limit", "_parent", "_used")

    def __init__(self, limit: int, parent: WindowBudget | None = None) -> None:
        self._limit = limit
        self._parent = parent
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    @property
    def room(self) -> int:
        """Bytes by which windows may still grow, by this budget and every one above."""
        room = max(0, self._limit * 3 // 4 - self._used)
        return room if self._parent is None else min(room, self._parent.room)

    def take(self, size: int) -> None:
        """Count `size` bytes, over the limit if need be."""
        self._used += size
        if self._parent is not None:
            self._parent.take(size)

    def release(self, size: int) -> None:
        """Give back bytes that `take` counted."""
        assert size <= self._used
        self._used -= size
        if self._parent is not None:
            self._parent.release(size)


class SendWindow:
    """Credit that the peer has granted us on one stream."""

    __slots__ = ("_first", "_idle", "credit")

    def __init__(self, first: int) -> None:
        self._first = first
        self._idle = False
        self.credit = first

    @property
    def excess(self) -> int:
        """Credit beyond the first window."""
        return max(0, self.credit - self._first)

    def add(self, increment: int) -> None:
        """Take a WINDOW. Raises `RemoteError` (FLOW_CONTROL) over `MAX_WINDOW`."""
        if self.credit + increment > MAX_WINDOW:
            raise RemoteError(
                GoAwayReason.FLOW_CONTROL, f"credit would grow over {MAX_WINDOW} bytes"
            )
        self.credit += increment

    def spend(self, size: int) -> None:
        """Account for DATA that is sent."""
        self.credit -= size
        self._idle = False

    def give_back(self) -> int:
        """Bytes of credit to return: the excess, if none was spent since the last call."""
        if not self._idle:
            self._idle = True
            return 0
        excess = self.excess
        self.credit -= excess
        return excess


class ReceiveWindow:
    """Credit that we have granted the peer on one stream, and what of it we may have to hold.

    `first` is HELLO's window, `maximum` the most that this window may grow to, in bytes.
    """

    __slots__ = ("_budget", "_consumed", "_first", "_last_update", "_maximum", "credit", "size")

    def __init__(self, first: int, maximum: int, budget: WindowBudget, now: float) -> None:
        self._first = first
        self._maximum = maximum
        self._budget = budget
        self._consumed = 0
        self._last_update = now
        self.size = first
        """Bytes that the peer may have under way or with our reader; the budget counts them."""
        self.credit = first
        budget.take(first)

    def start(self, size: int) -> int:
        """Let the window begin at `size`; the increment to grant with the stream, maybe 0.

        One stream takes only a small share of the room, so that those to come start well too.
        """
        wanted = min(size, self._maximum) - self._first
        return self._grow(min(wanted, self._budget.room // START_SHARE))

    def receive(self, size: int) -> None:
        """Account for DATA. Raises `RemoteError` (FLOW_CONTROL) beyond the credit."""
        if size > self.credit:
            raise RemoteError(
                GoAwayReason.FLOW_CONTROL, f"{size} bytes of data on {self.credit} bytes of credit"
            )
        self.credit -= size

    def consume(self, size: int, now: float, rtt: float | None) -> int:
        """The reader took `size` bytes; the increment to grant now, often 0.

        Credit is returned once a quarter of the window has been consumed. If that took
        no longer than a round trip (`rtt`, seconds) the window may be what limits the
        stream, and it doubles as far as the maximum and the budget allow.

        Returning it by halves would be fewer frames, but a burst that is a few bytes
        short of the second half then waits for a whole round trip, every time: measured
        at 100 ms, that was half of the throughput.
        """
        self._consumed += size
        if self._consumed * 4 < self.size:
            return 0
        increment, self._consumed = self._consumed, 0
        self.credit += increment
        if rtt is not None and now - self._last_update <= rtt:
            wanted = min(self.size, self._maximum - self.size)
            increment += self._grow(min(wanted, self._budget.room // GROWTH_SHARE))
        self._last_update = now
        return increment

    def take_back(self, size: int) -> None:
        """The peer returns credit. Raises `RemoteError` (FLOW_CONTROL) if it had less."""
        if self.credit - size < self._first:
            raise RemoteError(
                GoAwayReason.FLOW_CONTROL, f"{size} bytes returned of {self.credit} bytes of credit"
            )
        self._shrink(size)

    def close(self) -> None:
        """The peer will send no more: only what our reader has yet to take still counts."""
        self._shrink(self.credit)

    def release(self) -> None:
        """The stream is over: nothing of it counts any more."""
        self._budget.release(self.size)
        self.size = self.credit = 0

    def _grow(self, size: int) -> int:
        size = max(0, size)
        self._budget.take(size)
        self.size += size
        self.credit += size
        return size

    def _shrink(self, size: int) -> None:
        self._budget.release(size)
        self.size -= size
        self.credit -= size
