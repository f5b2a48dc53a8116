"""The HTTP proxy's side towards the client (RFC 9110, RFC 9112), without I/O.

h11 parses. CONNECT becomes a tunnel; an absolute-form request (`GET http://...`)
is forwarded by `http_forward`; anything else is no request to a proxy.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import urlsplit

import h11

from restunnel_protocol import AddressError, ConnectFailReason, Target, parse_target
from restunnel_protocol.addresses import split_host_port

from .access import Access, AccessDeniedError
from .proxy_request import Failure, ProxyRequest
from .routing import GUARDS, MISTAKES, RouteFailure

MAX_HEAD: Final = 64 * 1024
"""Bytes of a request's or response's head."""

HTTP_PORT: Final = 80

STATUSES: Final = {
    ConnectFailReason.GENERAL: 502,
    ConnectFailReason.NOT_ALLOWED: 403,
    ConnectFailReason.NETWORK_UNREACHABLE: 502,
    ConnectFailReason.HOST_UNREACHABLE: 502,
    ConnectFailReason.REFUSED: 502,
    ConnectFailReason.TIMEOUT: 504,
    ConnectFailReason.NAME_NOT_FOUND: 502,
    ConnectFailReason.NAME_UNRESOLVED: 502,
    ConnectFailReason.BUSY: 503,
    ConnectFailReason.GOING_AWAY: 503,
}

PROXY_ERRORS: Final = {
    ConnectFailReason.GENERAL: "destination_unavailable",
    ConnectFailReason.NOT_ALLOWED: "destination_ip_prohibited",
    ConnectFailReason.NETWORK_UNREACHABLE: "destination_ip_unroutable",
    ConnectFailReason.HOST_UNREACHABLE: "destination_ip_unroutable",
    ConnectFailReason.REFUSED: "connection_refused",
    ConnectFailReason.TIMEOUT: "connection_timeout",
    ConnectFailReason.NAME_NOT_FOUND: 'dns_error; rcode="NXDOMAIN"',
    ConnectFailReason.NAME_UNRESOLVED: "dns_error",
    ConnectFailReason.BUSY: "connection_limit_reached",
    ConnectFailReason.GOING_AWAY: "connection_terminated",
}
"""Proxy error types of RFC 9209, section 2.3."""

PHRASES: Final = {
    400: "Bad Request",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class HttpProxy:
    """The first request of a client's connection.

    Feed bytes until `request` is there or `failed` is set. A plain request leaves its
    `head` for `http_forward`, which takes over the h11 `connection`.
    """

    def __init__(self, access: Access) -> None:
        self.request: ProxyRequest | None = None
        self.failed = False
        self.head: h11.Request | None = None
        self.access = access
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    @property
    def leftover(self) -> bytes:
        """What the client sent after the head of its CONNECT."""
        return bytes(self.connection.trailing_data[0])

    def receive_data(self, data: bytes) -> bytes:
        """Take bytes from the client; the bytes to answer with."""
        if self.request is not None or self.failed:
            self.connection.receive_data(data)
            return b""
        try:
            self.connection.receive_data(data)
            event = self.connection.next_event()
            if not isinstance(event, h11.Request):
                return b""
            self.request = read_request(event, self.access)
            if event.method == b"CONNECT":
                self.connection.next_event()  # its end: what follows is the tunnel's
            else:
                self.head = event
        except (h11.RemoteProtocolError, BadRequestError, AccessDeniedError) as error:
            self.failed = True
            return refusal(error)
        return b""

    def success(self) -> bytes:
        """The answer to CONNECT once the node has connected."""
        return b"HTTP/1.1 200 Connection established\r\n\r\n"

    def failure(self, failure: Failure) -> bytes:
        """The answer if it could not."""
        return failure_response(failure)


class BadRequestError(Exception):
    """A request that is none to a proxy."""


def read_request(head: h11.Request, access: Access) -> ProxyRequest:
    """Target, user name and account of a request.

    Raises `BadRequestError`, and `AccessDeniedError`.
    """
    text = head.target.decode("ascii", "replace")
    try:
        target = parse_target(text) if head.method == b"CONNECT" else _absolute(text)
    except (AddressError, ValueError) as error:
        raise BadRequestError(str(error)) from error
    username, password = _credentials(head)
    return ProxyRequest(target, username, access.admit(password))


def _absolute(text: str) -> Target:
    parts = urlsplit(text)
    if parts.scheme.lower() != "http":
        raise BadRequestError("a proxy takes CONNECT host:port, or a request for http://...")
    authority = parts.netloc.rpartition("@")[2]
    return Target(*split_host_port(authority, HTTP_PORT))


def _credentials(head: h11.Request) -> tuple[str, str | None]:
    """User name and password of `Proxy-Authorization: Basic` (RFC 7617)."""
    for name, value in head.headers:
        if name == b"proxy-authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() != b"basic":
                raise BadRequestError("Proxy-Authorization takes Basic only")
            try:
                decoded = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise BadRequestError("Proxy-Authorization is not base64 of UTF-8") from error
            username, _, password = decoded.partition(":")
            return username, password
    return "", None


def failure_status(failure: Failure) -> int:
    """The HTTP status for a failure."""
    if failure.reason is not None:
        return STATUSES[failure.reason]
    if failure.route is None or failure.route.failure not in (MISTAKES | GUARDS):
        return 503
    return 407 if failure.route.failure in MISTAKES else 403


def failure_response(failure: Failure) -> bytes:
    """A whole response with a one-line body, and the reason for programs."""
    status = failure_status(failure)
    if failure.reason is not None:
        error = PROXY_ERRORS[failure.reason]
    elif failure.route is not None and failure.route.failure is RouteFailure.FULL:
        error = "connection_limit_reached"
    else:
        error = "http_request_denied" if status in (403, 407) else "destination_unavailable"
    return _response(status, error, failure.detail)


def refusal(error: Exception) -> bytes:
    """A whole response to a request that is none, or that nobody may make."""
    if isinstance(error, AccessDeniedError):
        return _response(407, "http_request_denied", str(error))
    return _response(400, "http_request_error", str(error))


def _response(status: int, error: str, detail: str) -> bytes:
    """A whole response that ends the connection."""
    body = f"restunnel: {detail}\n".encode("utf-8", "replace")
    extra = 'Proxy-Authenticate: Basic realm="node"\r\n' if status == 407 else ""
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Proxy-Status: restunnel; error={error}; details={_quote(detail)}\r\n"
        f"{extra}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def _quote(text: str) -> str:
    """A String of RFC 8941, which knows ASCII only."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
