"""One stream: its states as a table, and what it holds.

The hub opens a stream with CONNECT, the node answers CONNECT_OK or CONNECT_FAIL.
Each side ends its own direction with EOF; the stream is over cleanly when both
have. CLOSE ends both directions at once and is never a clean end.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from .codec import Buffer
from .errors import CloseReason
from .windows import ReceiveWindow, SendWindow


class State(Enum):
    """States of a stream as one end sees it (docs/protocol.md, Streams)."""

    CONNECTING = auto()
    """Hub: CONNECT sent, no answer yet."""
    CONNECTING_ENDED = auto()
    """Hub: the same, and EOF sent."""
    OFFERED = auto()
    """Node: CONNECT received, not answered yet."""
    OFFERED_ENDED = auto()
    """Node: the same, and EOF received."""
    OPEN = auto()
    LOCAL_ENDED = auto()
    """EOF sent; the peer may still send."""
    REMOTE_ENDED = auto()
    """EOF received; we may still send."""
    CLOSED = auto()


class Signal(Enum):
    """A frame sent (`SEND_`) or received (`RECV_`) on a stream."""

    SEND_OK = auto()
    SEND_FAIL = auto()
    SEND_DATA = auto()
    SEND_EOF = auto()
    SEND_CLOSE = auto()
    RECV_OK = auto()
    RECV_FAIL = auto()
    RECV_DATA = auto()
    RECV_EOF = auto()
    RECV_CLOSE = auto()
    WINDOW = auto()
    """WINDOW or RETURN in either direction: credit is granted before and after the answer."""


TRANSITIONS: Final = MappingProxyType(
    {
        State.CONNECTING: {
            Signal.SEND_DATA: State.CONNECTING,
            Signal.SEND_EOF: State.CONNECTING_ENDED,
            Signal.SEND_CLOSE: State.CLOSED,
            Signal.RECV_OK: State.OPEN,
            Signal.RECV_FAIL: State.CLOSED,
            Signal.WINDOW: State.CONNECTING,
        },
        State.CONNECTING_ENDED: {
            Signal.SEND_CLOSE: State.CLOSED,
            Signal.RECV_OK: State.LOCAL_ENDED,
            Signal.RECV_FAIL: State.CLOSED,
            Signal.WINDOW: State.CONNECTING_ENDED,
        },
        State.OFFERED: {
            Signal.SEND_OK: State.OPEN,
            Signal.SEND_FAIL: State.CLOSED,
            Signal.RECV_DATA: State.OFFERED,
            Signal.RECV_EOF: State.OFFERED_ENDED,
            Signal.RECV_CLOSE: State.CLOSED,
            Signal.WINDOW: State.OFFERED,
        },
        State.OFFERED_ENDED: {
            Signal.SEND_OK: State.REMOTE_ENDED,
            Signal.SEND_FAIL: State.CLOSED,
            Signal.RECV_CLOSE: State.CLOSED,
            Signal.WINDOW: State.OFFERED_ENDED,
        },
        State.OPEN: {
            Signal.SEND_DATA: State.OPEN,
            Signal.SEND_EOF: State.LOCAL_ENDED,
            Signal.SEND_CLOSE: State.CLOSED,
            Signal.RECV_DATA: State.OPEN,
            Signal.RECV_EOF: State.REMOTE_ENDED,
            Signal.RECV_CLOSE: State.CLOSED,
            Signal.WINDOW: State.OPEN,
        },
        State.LOCAL_ENDED: {
            Signal.SEND_CLOSE: State.CLOSED,
            Signal.RECV_DATA: State.LOCAL_ENDED,
            Signal.RECV_EOF: State.CLOSED,
            Signal.RECV_CLOSE: State.CLOSED,
            Signal.WINDOW: State.LOCAL_ENDED,
        },
        State.REMOTE_ENDED: {
            Signal.SEND_DATA: State.REMOTE_ENDED,
            Signal.SEND_EOF: State.CLOSED,
            Signal.SEND_CLOSE: State.CLOSED,
            Signal.RECV_CLOSE: State.CLOSED,
            Signal.WINDOW: State.REMOTE_ENDED,
        },
        State.CLOSED: {},
    }
)
"""What may happen in each state and where it leads; all else is an error."""


class Stream:
    """What a `Connection` keeps of one stream. Not part of the public interface."""

    __slots__ = (
        "close_when_drained",
        "id",
        "pending",
        "pending_size",
        "receive_window",
        "scheduled",
        "send_window",
        "state",
        "throttled",
        "wants_eof",
    )

    def __init__(
        self, stream_id: int, state: State, send_window: SendWindow, receive_window: ReceiveWindow
    ) -> None:
        self.id = stream_id
        self.state = state
        self.send_window = send_window
        self.receive_window = receive_window
        self.pending: deque[Buffer] = deque()
        """Data that waits for credit or for the tunnel; its views are never changed."""
        self.pending_size = 0
        self.scheduled = False
        """Whether the stream stands in the scheduler's queue."""
        self.throttled = False
        """Whether the source was told to stop and waits to hear that it may go on."""
        self.wants_eof = False
        """EOF follows the pending data."""
        self.close_when_drained: tuple[CloseReason, str] | None = None
        """CLOSE follows the pending data."""

    def take(self, limit: int) -> Buffer:
        """At most `limit` bytes of pending data, which must not be empty."""
        piece = self.pending[0]
        if len(piece) > limit:
            view = memoryview(piece)
            self.pending[0] = view[limit:]
            piece = view[:limit]
        else:
            self.pending.popleft()
        self.pending_size -= len(piece)
        return piece
