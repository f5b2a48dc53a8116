"""Reading and writing the primitive fields of payloads, all big-endian.

`Reader` refuses to read past its end and `finish` refuses leftovers, so that a
payload has exactly one reading.
"""

from __future__ import annotations

from typing import TypeAlias

from .errors import GoAwayReason, RemoteError

Buffer: TypeAlias = bytes | bytearray | memoryview


def bad_payload(detail: str) -> RemoteError:
    """The error for a payload that does not parse."""
    return RemoteError(GoAwayReason.BAD_PAYLOAD, detail)


class Reader:
    """A cursor over one payload. Every method raises `RemoteError` (BAD_PAYLOAD)."""

    __slots__ = ("_data", "_pos")

    def __init__(self, data: Buffer) -> None:
        self._data = bytes(data)
        self._pos = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self._pos + count
        if end > len(self._data):
            raise bad_payload(f"payload of {len(self._data)} bytes ends early")
        piece = self._data[self._pos : end]
        self._pos = end
        return piece

    def uint(self, size: int) -> int:
        """The next `size` bytes as an unsigned integer."""
        return int.from_bytes(self.take(size), "big")

    def text(self, limit: int = 255) -> str:
        """A u8 length and that many bytes of UTF-8, at most `limit`."""
        size = self.uint(1)
        if size > limit:
            raise bad_payload(f"text of {size} bytes is over {limit}")
        return decode_text(self.take(size))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._pos)

    def finish(self) -> None:
        """Refuse anything left over."""
        left = len(self._data) - self._pos
        if left:
            raise bad_payload(f"{left} bytes after the end of the payload")


def decode_text(raw: bytes) -> str:
    """UTF-8 without control characters, or `RemoteError` (BAD_PAYLOAD)."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_payload("text is not UTF-8") from error
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise bad_payload("text has control characters")
    return text


def encode_text(text: str, limit: int = 255) -> bytes:
    """A u8 length and UTF-8; longer text is cut at a character boundary."""
    raw = trim_text(text, limit)
    return bytes((len(raw),)) + raw


def trim_text(text: str, limit: int) -> bytes:
    """At most `limit` bytes of UTF-8 with control characters replaced by spaces."""
    clean = "".join(char if ord(char) >= 0x20 and ord(char) != 0x7F else " " for char in text)
    raw = clean.encode("utf-8", "replace")[:limit]
    return raw.decode("utf-8", "ignore").encode("utf-8")
