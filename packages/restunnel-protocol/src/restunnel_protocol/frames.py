"""Frames: `type u8 | id u32 | length u32 | payload`, several to a record.

A frame never spans records. Types from 0x80 up that are not known are ignored,
which is how later versions add things that an older peer may miss.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TypeAlias

from .codec import Buffer
from .errors import GoAwayReason, RemoteError
from .limits import FRAME_HEADER_SIZE, MAX_PAYLOAD

FIRST_IGNORABLE_TYPE = 0x80

HEADER = Struct(">BII")
assert HEADER.size == FRAME_HEADER_SIZE


class FrameType(IntEnum):
    """The types of this version."""

    ENROLL = 0x01
    ENROLL_OK = 0x02
    PING = 0x03
    PONG = 0x04
    HELLO = 0x05
    GOAWAY = 0x06
    PADDING = 0x07
    CONNECT = 0x10
    CONNECT_OK = 0x11
    CONNECT_FAIL = 0x12
    DATA = 0x20
    CLOSE = 0x21
    EOF = 0x22
    WINDOW = 0x23
    STATUS = 0x30
    RETURN = 0xA3


Frame: TypeAlias = tuple[int, int, memoryview]
"""(type, stream id or 0, payload); a plain tuple because the data path makes many."""


def encode_frame(kind: int, stream_id: int, payload: Buffer = b"") -> bytes:
    """One frame. `payload` has at most `MAX_PAYLOAD` bytes (`ValueError` otherwise)."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes is over {MAX_PAYLOAD}")
    return HEADER.pack(kind, stream_id, len(payload)) + payload


def parse_frames(plaintext: Buffer) -> list[Frame]:
    """All frames of one record or handshake payload, in order.

    Payloads are views into `plaintext`. Raises `RemoteError`: BAD_FRAME if the
    record does not divide into whole frames.
    """
    view = memoryview(plaintext)
    size = len(view)
    frames: list[Frame] = []
    position = 0
    while position < size:
        start = position + FRAME_HEADER_SIZE
        if start > size:
            raise RemoteError(GoAwayReason.BAD_FRAME, "a frame header is cut off")
        kind, stream_id, length = HEADER.unpack_from(view, position)
        position = start + length
        if length > MAX_PAYLOAD or position > size:
            raise RemoteError(
                GoAwayReason.BAD_FRAME, f"a frame of {length} bytes does not fit its record"
            )
        frames.append((kind, stream_id, view[start:position]))
    return frames


def describe_frame(frame: Frame) -> str:
    """A line that is safe to log: type, stream and size, never the payload."""
    kind, stream_id, payload = frame
    try:
        name = FrameType(kind).name
    except ValueError:
        name = f"0x{kind:02x}"
    return f"{name} id={stream_id} length={len(payload)}"
