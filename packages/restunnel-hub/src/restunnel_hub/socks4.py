"""SOCKS4 and 4a as a server sees them (Ying-Da Lee's memos), without I/O.

Only CONNECT. The user id chooses the node; there is no place for a password, so
where one is required SOCKS4 is refused.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

from restunnel_protocol import AddressError, Target

from .access import Access, AccessDeniedError
from .proxy_request import Failure, ProxyRequest

VERSION: Final = 4
CONNECT: Final = 1
GRANTED: Final = 90
REJECTED: Final = 91

HEAD_SIZE: Final = 8
"""`VN | CD | DSTPORT u16 | DSTIP 4 B`; the user id follows, ended by a NUL."""

MAX_TEXT: Final = 255
"""Bytes of the user id, and of 4a's name."""


class Socks4:
    """One client's request. Feed bytes until `request` is there or `failed` is set."""

    def __init__(self, access: Access) -> None:
        self.request: ProxyRequest | None = None
        self.failed = False
        self._access = access
        self._received = bytearray()

    def receive_data(self, data: bytes) -> bytes:
        """Take bytes from the client; the bytes to answer with."""
        self._received += data
        if self.request is not None or self.failed:
            return b""
        try:
            self._read()
        except (AddressError, AccessDeniedError, ValueError):
            self.failed = True
            return _reply(REJECTED)
        return b""

    @property
    def leftover(self) -> bytes:
        """What the client sent after its request."""
        return bytes(self._received)

    def success(self) -> bytes:
        """The answer once the node has connected."""
        return _reply(GRANTED)

    def failure(self, failure: Failure) -> bytes:
        """The answer if it could not; SOCKS4 has no place for the reason."""
        return _reply(REJECTED)

    def _read(self) -> None:
        """Take the request if all of it is there. Raises what `receive_data` refuses."""
        received = self._received
        if len(received) >= 2 and received[:2] != bytes((VERSION, CONNECT)):
            raise ValueError("not a CONNECT of SOCKS4")
        userid, end = self._text(HEAD_SIZE)
        if end == 0:
            return
        port = int.from_bytes(received[2:4], "big")
        host: str | IPv4Address = IPv4Address(bytes(received[4:8]))
        if received[4:7] == b"\0\0\0" and received[7]:  # 4a: 0.0.0.x, a name follows
            host, end = self._text(end)
            if end == 0:
                return
        del received[:end]
        self.request = ProxyRequest(Target(host, port), userid, self._access.admit(None))

    def _text(self, start: int) -> tuple[str, int]:
        """A text ended by NUL and where it ends; 0 while it is not all there."""
        nul = self._received.find(0, start)
        if nul < 0:
            if len(self._received) - start > MAX_TEXT:
                raise ValueError("too long")
            return "", 0
        if nul - start > MAX_TEXT:
            raise ValueError("too long")
        return self._received[start:nul].decode("utf-8"), nul + 1


def _reply(code: int) -> bytes:
    return bytes((0, code)) + bytes(6)  # DSTPORT and DSTIP mean nothing for CONNECT
