"""What every proxy protocol has in common, and which of them a client speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from . import socks4, socks5
from .access import Access
from .http_proxy import HttpProxy
from .proxy_request import Failure, ProxyRequest


class Negotiation(Protocol):
    """A client's request as it comes in: `Socks5`, `Socks4` or `HttpProxy`."""

    request: ProxyRequest | None
    failed: bool

    def receive_data(self, data: bytes) -> bytes:
        """Take bytes from the client; the bytes to answer with."""

    def success(self) -> bytes:
        """The answer once the node has connected."""

    def failure(self, failure: Failure) -> bytes:
        """The answer if it could not."""

    @property
    def leftover(self) -> bytes:
        """What the client sent after its request."""


Default = Callable[[Access], Negotiation]


def recognise(first: int, access: Access, default: Default) -> Negotiation:
    """The protocol that begins with the byte `first`, on whichever port it came.

    SOCKS begins with its version, HTTP with the letter of a method. `default` is what
    the port is for: it refuses everything else in its own way.
    """
    if first == socks5.VERSION:
        return socks5.Socks5(access)
    if first == socks4.VERSION:
        return socks4.Socks4(access)
    if first < 0x80 and chr(first).isalpha():
        return HttpProxy(access)
    return default(access)
