"""Numbers that travel on the wire to say what went wrong, and the exceptions.

The split is h11's: a `LocalError` is this program's own misuse of the API and
always raises to the caller; a `RemoteError` is the peer's doing, carries the
number that GOAWAY reports, and ends that peer's tunnel and nothing else.
"""

from __future__ import annotations

from enum import IntEnum


class GoAwayReason(IntEnum):
    """Why a tunnel takes no new streams, or ends (u16 in GOAWAY)."""

    SHUTDOWN = 0x00
    """The sender is stopping; running streams may finish."""
    REPLACED = 0x01
    """A newer tunnel of the same node key took this one's place."""
    REVOKED = 0x02
    """The operator revoked the node's key."""
    RECONNECT = 0x03
    """Stream ids are used up: the node should open a new tunnel."""
    PAUSED = 0x04
    """The node's owner does not share the connection at present."""
    PING_TIMEOUT = 0x05
    """The peer gave no sign of life for the PING interval and timeout."""

    # From 0x10 on: protocol errors. The tunnel ends with the GOAWAY.
    BAD_RECORD = 0x10
    """A record that is too short or does not authenticate."""
    BAD_FRAME = 0x11
    """A frame header that does not fit its record, or a length over the limit."""
    BAD_PAYLOAD = 0x12
    """A payload that does not parse."""
    UNKNOWN_TYPE = 0x13
    """A frame type below 0x80 that this version does not know."""
    UNEXPECTED_FRAME = 0x14
    """A frame in the wrong direction or state."""
    BAD_STREAM_ID = 0x15
    """A stream id that is zero, not rising, or was never opened."""
    FLOW_CONTROL = 0x16
    """DATA beyond the credit, or credit beyond its limit."""
    NOT_READING = 0x17
    """The peer lets answers pile up without reading them."""

    @property
    def is_protocol_error(self) -> bool:
        return self >= GoAwayReason.BAD_RECORD


class ConnectFailReason(IntEnum):
    """Why a node could not connect to a target (u8 in CONNECT_FAIL)."""

    GENERAL = 0x01
    NOT_ALLOWED = 0x02
    """The owner's exit policy refuses the target."""
    NETWORK_UNREACHABLE = 0x03
    HOST_UNREACHABLE = 0x04
    REFUSED = 0x05
    TIMEOUT = 0x06
    NAME_NOT_FOUND = 0x07
    """The name does not exist, or has no address."""
    NAME_UNRESOLVED = 0x08
    """The device's resolver gave no answer."""
    BUSY = 0x09
    """A limit of the node is reached (streams, dials, descriptors)."""
    GOING_AWAY = 0x0A
    """The node has said GOAWAY."""


class CloseReason(IntEnum):
    """Why a stream was closed before both ends had ended it (u8 in CLOSE)."""

    NORMAL = 0x00
    """The sender wants nothing more, and what it has sent is whole."""
    RESET = 0x01
    """The TCP connection behind the stream was reset."""
    TIMEOUT = 0x02
    """The TCP connection behind the stream timed out."""
    POLICY = 0x03
    """The owner's exit policy, or a limit that the operator has set, ended it."""
    GOING_AWAY = 0x04
    """The grace period of a stopping end is over."""
    INTERNAL = 0x05
    """The end that closes failed in a way of its own."""
    CANCELLED = 0x06
    """Whoever the sender served is gone; what it has sent may be incomplete."""

    # Never on the wire: what the rest of the program sees when a whole tunnel ends.
    TUNNEL_LOST = 0xFF


class RestunnelError(Exception):
    """Base of every exception that this package raises on purpose."""


class LocalError(RestunnelError):
    """The caller used the API in a way that the protocol's state does not allow."""


class RemoteError(RestunnelError):
    """The peer broke the protocol; `reason` is the number that GOAWAY reports."""

    def __init__(self, reason: GoAwayReason, detail: str) -> None:
        super().__init__(f"{reason.name.lower().replace('_', ' ')}: {detail}")
        self.reason = reason
        self.detail = detail
        self.frame = ""
        """The frame that was in error, described for a log; empty if it was no frame yet."""


class HandshakeError(RestunnelError):
    """A handshake message that must be met with silence (hub) or is no answer (node)."""


class LinkError(RestunnelError):
    """A pairing link that cannot be used; the message says why, in words for a person."""


class AddressError(RestunnelError, ValueError):
    """A host, port or network that cannot be written in the protocol."""
