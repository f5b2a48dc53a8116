"""What `Connection` reports. Plain named tuples: the data path makes one per frame."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from .addresses import Target
from .errors import CloseReason, ConnectFailReason, GoAwayReason


class Established(NamedTuple):
    """The peer's first record has authenticated: it holds the keys now, live.

    Only now may a hub end an older tunnel of the same node.
    """


class ConnectRequested(NamedTuple):
    """Node: the hub asks for a connection. Answer with `accept` or `refuse`."""

    stream_id: int
    target: Target


class Connected(NamedTuple):
    """Hub: the node has connected, to `address`."""

    stream_id: int
    address: Target


class ConnectFailed(NamedTuple):
    """Hub: the node could not connect; the stream is over."""

    stream_id: int
    reason: ConnectFailReason
    detail: str


class DataReceived(NamedTuple):
    """Bytes of a stream, in order. Call `consume` once they are out of your hands.

    `data` is a view of an immutable buffer: keep it as long as you like.
    """

    stream_id: int
    data: memoryview


class EofReceived(NamedTuple):
    """The peer has ended its direction, cleanly and whole."""

    stream_id: int


class StreamClosed(NamedTuple):
    """The stream is over. `reason` is None for a clean end (EOF from both ends)."""

    stream_id: int
    reason: CloseReason | None
    detail: str


class StreamWritable(NamedTuple):
    """A stream whose `send_data` reported a long queue has room again."""

    stream_id: int


class StatusReceived(NamedTuple):
    """Hub: the node's STATUS object, unverified."""

    fields: dict[str, Any]


class RoundTripMeasured(NamedTuple):
    """A PONG came back after `seconds`."""

    seconds: float


class GoAwayReceived(NamedTuple):
    """The peer takes no new streams. `retry_after` is in seconds."""

    reason: int
    retry_after: int
    detail: str


class TunnelEnded(NamedTuple):
    """The tunnel is over; send what `data_to_send` still holds, then close.

    `reason` is None if the peer closed it. Streams were reported before this. `frame`
    says which frame was in error, without its payload: safe to log.
    """

    reason: GoAwayReason | None
    detail: str
    frame: str = ""


Event: TypeAlias = (
    Established
    | ConnectRequested
    | Connected
    | ConnectFailed
    | DataReceived
    | EofReceived
    | StreamClosed
    | StreamWritable
    | StatusReceived
    | RoundTripMeasured
    | GoAwayReceived
    | TunnelEnded
)
