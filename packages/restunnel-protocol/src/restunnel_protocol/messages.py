"""The payloads of frames as values that refuse to exist invalid.

Each class has `encode() -> bytes` and `decode(payload)`, which raises
`RemoteError` (BAD_PAYLOAD). Payloads that later versions may lengthen (HELLO and
ENROLL_OK) ignore bytes after the fields of this version; all others are exact.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

from .addresses import Target, decode_target, encode_target
from .codec import Buffer, Reader, bad_payload, decode_text, encode_text, trim_text
from .errors import CloseReason, ConnectFailReason, GoAwayReason
from .limits import (
    FIRST_WINDOW,
    MAX_DETAIL,
    MAX_NODE_NAME,
    MAX_STATUS,
    MAX_WINDOW,
    PROTOCOL_MINOR,
    TOKEN_SIZE,
)

PING_SIZE = 8
"""Bytes of a PING's and its PONG's opaque payload."""


@dataclass(frozen=True, slots=True)
class Hello:
    """HELLO: `minor u16 | capabilities u32 | window u32 | timestamp u64 | agent`.

    `window` is the credit, in bytes, that the sender grants each new stream.
    `timestamp` counts nanoseconds since 1970 (UTC); a node's always rises, which
    is what makes a replayed message 1 worthless. `agent` is software and version.
    """

    timestamp: int
    window: int = FIRST_WINDOW
    capabilities: int = 0
    minor: int = PROTOCOL_MINOR
    agent: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.timestamp < 1 << 63:
            raise ValueError("a timestamp has 63 bits")
        if not 0 <= self.window <= MAX_WINDOW:
            raise ValueError(f"a window has at most {MAX_WINDOW} bytes")

    def encode(self) -> bytes:
        return (
            self.minor.to_bytes(2, "big")
            + self.capabilities.to_bytes(4, "big")
            + self.window.to_bytes(4, "big")
            + self.timestamp.to_bytes(8, "big")
            + encode_text(self.agent, MAX_NODE_NAME)
        )

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        reader = Reader(payload)
        minor, capabilities = reader.uint(2), reader.uint(4)
        window, timestamp = reader.uint(4), reader.uint(8)
        agent = reader.text(MAX_NODE_NAME)
        try:
            return cls(timestamp, window, capabilities, minor, agent)
        except ValueError as error:
            raise bad_payload(str(error)) from error


@dataclass(frozen=True, slots=True, repr=False)
class Enroll:
    """ENROLL: `token 32 B | name`, the name being the device's own suggestion."""

    token: bytes
    name: str = ""

    def __post_init__(self) -> None:
        if len(self.token) != TOKEN_SIZE:
            raise ValueError(f"a token has {TOKEN_SIZE} bytes")

    def __repr__(self) -> str:
        return f"Enroll(token=..., name={self.name!r})"

    def encode(self) -> bytes:
        return self.token + encode_text(self.name, MAX_NODE_NAME)

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        reader = Reader(payload)
        message = cls(reader.take(TOKEN_SIZE), reader.text(MAX_NODE_NAME))
        reader.finish()
        return message


@dataclass(frozen=True, slots=True)
class EnrollOk:
    """ENROLL_OK: `node id | name`, both as the hub has stored them."""

    node_id: str
    name: str

    def encode(self) -> bytes:
        return encode_text(self.node_id, MAX_NODE_NAME) + encode_text(self.name, MAX_NODE_NAME)

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        reader = Reader(payload)
        return cls(reader.text(MAX_NODE_NAME), reader.text(MAX_NODE_NAME))


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT: the target, as SOCKS5 writes it."""

    target: Target

    def encode(self) -> bytes:
        return encode_target(self.target)

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        return cls(decode_target(payload))


@dataclass(frozen=True, slots=True)
class ConnectOk:
    """CONNECT_OK: the address that the node has really connected to."""

    address: Target

    def encode(self) -> bytes:
        return encode_target(self.address)

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        address = decode_target(payload)
        if address.is_name:
            raise bad_payload("CONNECT_OK names a host instead of an address")
        return cls(address)


@dataclass(frozen=True, slots=True)
class ConnectFail:
    """CONNECT_FAIL: `reason u8 | detail`, the detail being UTF-8 for people."""

    reason: ConnectFailReason
    detail: str = ""

    def encode(self) -> bytes:
        return bytes((self.reason,)) + trim_text(self.detail, MAX_DETAIL)

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        code, detail = _reason_and_detail(payload, 1)
        known = code in ConnectFailReason._value2member_map_
        # A later version may know more reasons than we do; the connection failed all the same.
        return cls(ConnectFailReason(code) if known else ConnectFailReason.GENERAL, detail)


@dataclass(frozen=True, slots=True)
class Close:
    """CLOSE: `reason u8 | detail`."""

    reason: CloseReason
    detail: str = ""

    def encode(self) -> bytes:
        return bytes((self.reason,)) + trim_text(self.detail, MAX_DETAIL)

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        code, detail = _reason_and_detail(payload, 1)
        known = code in CloseReason._value2member_map_ and code != CloseReason.TUNNEL_LOST
        return cls(CloseReason(code) if known else CloseReason.INTERNAL, detail)


@dataclass(frozen=True, slots=True)
class Window:
    """WINDOW and RETURN: `increment u32`, bytes of credit added or returned, never 0."""

    increment: int

    def __post_init__(self) -> None:
        if not 0 < self.increment <= MAX_WINDOW:
            raise ValueError(f"an increment lies between 1 and {MAX_WINDOW}")

    def encode(self) -> bytes:
        return self.increment.to_bytes(4, "big")

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        reader = Reader(payload)
        increment = reader.uint(4)
        reader.finish()
        try:
            return cls(increment)
        except ValueError as error:
            raise bad_payload(str(error)) from error


@dataclass(frozen=True, slots=True)
class GoAway:
    """GOAWAY: `reason u16 | retry-after u32 (seconds, 0: at once) | detail`.

    A reason that this version does not know is kept as its number.
    """

    reason: int
    retry_after: int = 0
    detail: str = ""

    @property
    def reason_name(self) -> str:
        if self.reason in GoAwayReason._value2member_map_:
            return GoAwayReason(self.reason).name.lower().replace("_", " ")
        return f"reason 0x{self.reason:02x}"

    def encode(self) -> bytes:
        return (
            self.reason.to_bytes(2, "big")
            + self.retry_after.to_bytes(4, "big")
            + trim_text(self.detail, MAX_DETAIL)
        )

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        reader = Reader(payload)
        reason, retry_after = reader.uint(2), reader.uint(4)
        return cls(reason, retry_after, _detail(reader.rest()))


@dataclass(frozen=True, slots=True)
class Status:
    """STATUS: one JSON object in UTF-8. Members that a hub does not know are ignored."""

    fields: dict[str, Any]

    def encode(self) -> bytes:
        raw = json.dumps(self.fields, separators=(",", ":"), sort_keys=True).encode()
        if len(raw) > MAX_STATUS:
            raise ValueError(f"a status of {len(raw)} bytes is over {MAX_STATUS}")
        return raw

    @classmethod
    def decode(cls, payload: Buffer) -> Self:
        if len(payload) > MAX_STATUS:
            raise bad_payload(f"a status of {len(payload)} bytes is over {MAX_STATUS}")
        try:
            fields = json.loads(bytes(payload))
        except (ValueError, RecursionError) as error:
            raise bad_payload("a status is not JSON") from error
        if not isinstance(fields, dict):
            raise bad_payload("a status is not a JSON object")
        return cls(fields)


def check_ping(payload: Buffer) -> bytes:
    """The 8 opaque bytes of a PING or PONG; raises `RemoteError` (BAD_PAYLOAD)."""
    if len(payload) != PING_SIZE:
        raise bad_payload(f"a ping has {PING_SIZE} bytes, not {len(payload)}")
    return bytes(payload)


def _reason_and_detail(payload: Buffer, size: int) -> tuple[int, str]:
    reader = Reader(payload)
    return reader.uint(size), _detail(reader.rest())


def _detail(raw: bytes) -> str:
    if len(raw) > MAX_DETAIL:
        raise bad_payload(f"a detail of {len(raw)} bytes is over {MAX_DETAIL}")
    return decode_text(raw)
