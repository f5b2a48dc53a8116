"""SOCKS5 as a server sees it (RFC 1928, RFC 1929), without I/O.

Only CONNECT. The user name chooses the node; the password says who the client is.
"""

from __future__ import annotations

from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from restunnel_protocol import AddressError, ConnectFailReason, Target
from restunnel_protocol.addresses import AddressType

from .access import ANONYMOUS, Access, AccessDeniedError
from .proxy_request import Failure, ProxyRequest
from .routing import GUARDS

VERSION: Final = 5
AUTH_VERSION: Final = 1
CONNECT: Final = 1
NO_AUTHENTICATION: Final = 0
USERNAME_PASSWORD: Final = 2
NO_ACCEPTABLE_METHOD: Final = 0xFF

UNKNOWN_ADDRESS: Final = b"\x01\0\0\0\0\0\0"
"""0.0.0.0:0 as BND.ADDR: the node's own address is none of the client's business."""


class Reply(Enum):
    """REP of RFC 1928, section 6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


REPLIES: Final = {
    ConnectFailReason.GENERAL: Reply.GENERAL_FAILURE,
    ConnectFailReason.NOT_ALLOWED: Reply.NOT_ALLOWED,
    ConnectFailReason.NETWORK_UNREACHABLE: Reply.NETWORK_UNREACHABLE,
    ConnectFailReason.HOST_UNREACHABLE: Reply.HOST_UNREACHABLE,
    ConnectFailReason.REFUSED: Reply.CONNECTION_REFUSED,
    ConnectFailReason.TIMEOUT: Reply.TTL_EXPIRED,
    ConnectFailReason.NAME_NOT_FOUND: Reply.HOST_UNREACHABLE,
    ConnectFailReason.NAME_UNRESOLVED: Reply.HOST_UNREACHABLE,
    ConnectFailReason.BUSY: Reply.GENERAL_FAILURE,
    ConnectFailReason.GOING_AWAY: Reply.GENERAL_FAILURE,
}


class _Step(Enum):
    GREETING = auto()
    AUTHENTICATION = auto()
    REQUEST = auto()
    WAITING = auto()
    FAILED = auto()


class Socks5:
    """One client's negotiation. Feed bytes until `request` is there or `failed` is set."""

    def __init__(self, access: Access) -> None:
        self.request: ProxyRequest | None = None
        self.failed = False
        self._access = access
        self._step = _Step.GREETING
        self._received = bytearray()
        self._username = ""
        self._account = ANONYMOUS

    def receive_data(self, data: bytes) -> bytes:
        """Take bytes from the client; the bytes to answer with."""
        self._received += data
        answer = b""
        while True:
            step, piece = self._step, self._advance()
            answer += piece
            if self._step is step:
                return answer

    @property
    def leftover(self) -> bytes:
        """What the client sent after its request."""
        return bytes(self._received)

    def success(self) -> bytes:
        """The answer once the node has connected."""
        return _reply(Reply.SUCCEEDED)

    def failure(self, failure: Failure) -> bytes:
        """The answer if it could not."""
        if failure.reason is None:
            denied = failure.route is not None and failure.route.failure in GUARDS
            return _reply(Reply.NOT_ALLOWED if denied else Reply.GENERAL_FAILURE)
        return _reply(REPLIES[failure.reason])

    def _advance(self) -> bytes:
        if self._step is _Step.GREETING:
            return self._greeting()
        if self._step is _Step.AUTHENTICATION:
            return self._authentication()
        if self._step is _Step.REQUEST:
            return self._request()
        return b""

    def _greeting(self) -> bytes:
        """`VER | NMETHODS | METHODS` (RFC 1928, section 3)."""
        received = self._received
        if received and received[0] != VERSION:
            return self._fail(b"")
        if len(received) < 2 or len(received) < 2 + received[1]:
            return b""
        methods = bytes(received[2 : 2 + received[1]])
        del received[: 2 + received[1]]
        if USERNAME_PASSWORD in methods:  # a client that offers a user name means it
            self._step = _Step.AUTHENTICATION
            return bytes((VERSION, USERNAME_PASSWORD))
        if NO_AUTHENTICATION in methods and not self._access.required:
            self._step = _Step.REQUEST
            return bytes((VERSION, NO_AUTHENTICATION))
        return self._fail(bytes((VERSION, NO_ACCEPTABLE_METHOD)))

    def _authentication(self) -> bytes:
        """`VER | ULEN | UNAME | PLEN | PASSWD` (RFC 1929)."""
        received = self._received
        if received and received[0] != AUTH_VERSION:
            return self._fail(b"")
        if len(received) < 2:
            return b""
        end_of_name = 2 + received[1]
        if len(received) <= end_of_name:
            return b""
        end = end_of_name + 1 + received[end_of_name]
        if len(received) < end:
            return b""
        name, password = bytes(received[2:end_of_name]), bytes(received[end_of_name + 1 : end])
        del received[:end]
        try:
            self._username = name.decode("utf-8")
            self._account = self._access.admit(password.decode("utf-8", "surrogateescape"))
        except (UnicodeDecodeError, AccessDeniedError):
            return self._fail(bytes((AUTH_VERSION, 1)))
        self._step = _Step.REQUEST
        return bytes((AUTH_VERSION, 0))

    def _request(self) -> bytes:
        """`VER | CMD | RSV | ATYP | DST.ADDR | DST.PORT` (RFC 1928, section 4)."""
        received = self._received
        if received and received[0] != VERSION:
            return self._fail(b"")
        if len(received) < 5:
            return b""
        kind = received[3]
        sizes = {AddressType.IPV4: 4, AddressType.IPV6: 16, AddressType.NAME: 1 + received[4]}
        if kind not in sizes:
            return self._fail(_reply(Reply.ADDRESS_TYPE_NOT_SUPPORTED))
        end = 4 + sizes[AddressType(kind)] + 2
        if len(received) < end:
            return b""
        command, raw = received[1], bytes(received[4:end])
        del received[:end]
        if command != CONNECT:
            return self._fail(_reply(Reply.COMMAND_NOT_SUPPORTED))
        try:
            target = _parse_target(kind, raw)
        except (AddressError, UnicodeDecodeError):
            return self._fail(_reply(Reply.GENERAL_FAILURE))
        self._step = _Step.WAITING
        self.request = ProxyRequest(target, self._username, self._account)
        return b""

    def _fail(self, answer: bytes) -> bytes:
        self._step = _Step.FAILED
        self.failed = True
        return answer


def _parse_target(kind: int, raw: bytes) -> Target:
    address, port = raw[:-2], int.from_bytes(raw[-2:], "big")
    if kind == AddressType.IPV4:
        return Target(IPv4Address(address), port)
    if kind == AddressType.IPV6:
        return Target(IPv6Address(address), port)
    return Target(address[1:].decode("ascii"), port)


def _reply(reply: Reply) -> bytes:
    return bytes((VERSION, reply.value, 0)) + UNKNOWN_ADDRESS
