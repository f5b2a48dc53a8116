"""Hosts and ports: what a stream asks for, and what listeners and links name.

On the wire a target is SOCKS5's (RFC 1928, section 5): `atyp u8`, then 4 bytes
(IPv4, 1), a u8 length and a name (3) or 16 bytes (IPv6, 4), then `port u16`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from .codec import Buffer, Reader, bad_payload
from .errors import AddressError
from .limits import MAX_NAME

IPAddress: TypeAlias = IPv4Address | IPv6Address

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63})*\.?")
"""Letters, digits, hyphens (RFC 1123) and the underscore that real names have."""


class AddressType(IntEnum):
    """ATYP of RFC 1928."""

    IPV4 = 1
    NAME = 3
    IPV6 = 4


@dataclass(frozen=True, slots=True)
class Target:
    """What a client wants to reach: an address or a name, and a TCP port.

    `host` is an `IPv4Address`, an `IPv6Address` without zone, or a `str` name of
    ASCII letters, digits, `-`, `_` and dots. A name that reads as an address is
    stored as that address. Raises `AddressError` for anything else.
    """

    host: IPAddress | str
    port: int

    def __post_init__(self) -> None:
        if not 0 < self.port <= 0xFFFF:
            raise AddressError(f"port {self.port} is not between 1 and 65535")
        if isinstance(self.host, str):
            object.__setattr__(self, "host", parse_host(self.host))
        elif isinstance(self.host, IPv6Address) and self.host.scope_id is not None:
            raise AddressError("an IPv6 zone means nothing on another device")

    @property
    def is_name(self) -> bool:
        return isinstance(self.host, str)

    def __str__(self) -> str:
        return join_host_port(str(self.host), self.port)


def parse_host(text: str) -> IPAddress | str:
    """An address literal or a well-formed name; `AddressError` otherwise."""
    if "%" in text:
        raise AddressError("an IPv6 zone means nothing on another device")
    try:
        return ip_address(text)
    except ValueError:
        pass  # not a literal: it has to be a name
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise AddressError(f"not a host name: {text[:80]!r}")
    return text


def split_host_port(text: str, default_port: int | None = None) -> tuple[str, int]:
    """`host:port`, `[v6]:port`, or a bare host where `default_port` is given.

    Port 0 is allowed: listeners use it for "any free port". The host is returned
    as written, without brackets. Raises `AddressError`.
    """
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:\[\]]*)(?::(\d{1,5}))?", text)
    if match is None:
        raise AddressError(f"not HOST:PORT: {text[:80]!r} (IPv6 goes in brackets)")
    host = match[1] or match[3] or ""
    digits = match[2] or match[4]
    if digits is None and default_port is None:
        raise AddressError(f"no port in {text[:80]!r}")
    port = int(digits) if digits is not None else default_port
    if not host:
        raise AddressError(f"no host in {text[:80]!r}")
    assert port is not None
    if port > 0xFFFF:
        raise AddressError(f"port {port} is over 65535")
    return host, port


def join_host_port(host: str, port: int) -> str:
    """The reverse of `split_host_port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_target(text: str) -> Target:
    """A `Target` from `host:port`; raises `AddressError`."""
    return Target(*split_host_port(text))


def encode_target(target: Target) -> bytes:
    """The wire form of a target: 7, 19 or 4 + name bytes."""
    host = target.host
    if isinstance(host, IPv4Address):
        head = b"\x01" + host.packed
    elif isinstance(host, IPv6Address):
        head = b"\x04" + host.packed
    else:
        raw = host.encode("ascii")
        head = b"\x03" + bytes((len(raw),)) + raw
    return head + target.port.to_bytes(2, "big")


def decode_target(data: Buffer) -> Target:
    """A target from a whole payload; raises `RemoteError` (BAD_PAYLOAD)."""
    reader = Reader(data)
    target = read_target(reader)
    reader.finish()
    return target


def read_target(reader: Reader) -> Target:
    """A target from a reader; raises `RemoteError` (BAD_PAYLOAD)."""
    kind = reader.uint(1)
    host: IPAddress | str
    if kind == AddressType.IPV4:
        host = IPv4Address(reader.take(4))
    elif kind == AddressType.IPV6:
        host = IPv6Address(reader.take(16))
    elif kind == AddressType.NAME:
        try:
            host = reader.take(reader.uint(1)).decode("ascii")
        except UnicodeDecodeError as error:
            raise bad_payload("a name is not ASCII") from error
    else:
        raise bad_payload(f"unknown address type {kind}")
    try:
        return Target(host, reader.uint(2))
    except AddressError as error:
        raise bad_payload(str(error)) from error
