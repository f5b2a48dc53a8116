"""The pairing link: all that a device needs to enrol, in one line or QR code.

    restunnel://pair?v=1&h=HOST:PORT&h=...&k=HUB_KEY&t=TOKEN&e=EXPIRY

`h` one to eight times, in the order to try; `k` and `t` are 32 bytes each in
base64url without padding; `e` is Unix time in seconds. Parameters that this
version does not know are ignored; anything else out of place is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from .addresses import join_host_port, parse_host, split_host_port
from .errors import AddressError, LinkError
from .keys import PublicKey, from_base64, to_base64
from .limits import MAX_LINK, MAX_LINK_ADDRESSES, TOKEN_SIZE

SCHEME: Final = "restunnel"
LINK_VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a hub's tunnel port is: a host name or address, and a port that is not 0."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Endpoint:
        """From `HOST:PORT`. Raises `AddressError`."""
        host, port = split_host_port(text, default_port)
        parse_host(host)
        if port == 0:
            raise AddressError("port 0 cannot be dialled")
        return cls(host, port)

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True, repr=False)
class PairingLink:
    """A hub's addresses and public key, a one-time token, and when it expires (Unix s)."""

    endpoints: tuple[Endpoint, ...]
    hub: PublicKey
    token: bytes
    expires_at: int

    def __post_init__(self) -> None:
        if not 0 < len(self.endpoints) <= MAX_LINK_ADDRESSES:
            raise LinkError(f"a pairing link has 1 to {MAX_LINK_ADDRESSES} hub addresses")
        if len(self.token) != TOKEN_SIZE:
            raise LinkError(f"a token has {TOKEN_SIZE} bytes")

    def __repr__(self) -> str:
        where = ", ".join(map(str, self.endpoints))
        return f"PairingLink({where}, hub={self.hub}, token=..., expires_at={self.expires_at})"

    def __str__(self) -> str:
        """The link itself: a secret for as long as the token is good."""
        hosts = "&".join(f"h={quote(str(endpoint), safe=':[]')}" for endpoint in self.endpoints)
        return (
            f"{SCHEME}://pair?v={LINK_VERSION}&{hosts}"
            f"&k={self.hub}&t={to_base64(self.token)}&e={self.expires_at}"
        )

    @classmethod
    def parse(cls, text: str) -> PairingLink:
        """From `str(link)`; surrounding white space is ignored. Raises `LinkError`."""
        text = text.strip()
        if len(text) > MAX_LINK:
            raise LinkError(f"a pairing link has at most {MAX_LINK} characters")
        fields = _query(text)
        version = _one(fields, "v")
        if version != LINK_VERSION:
            raise LinkError(
                f"the link is of version {version[:8]}, which this program is too old for"
            )
        try:
            endpoints = tuple(Endpoint.parse(value) for value in fields.get("h", []))
            key = PublicKey.parse(_one(fields, "k"))
            token = from_base64(_one(fields, "t"), TOKEN_SIZE)
        except (AddressError, ValueError) as error:
            raise LinkError(f"the pairing link is damaged: {error}") from error
        expiry = _one(fields, "e")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12):
            raise LinkError("the pairing link is damaged: no expiry")
        return cls(endpoints, key, token, int(expiry))


def _query(text: str) -> dict[str, list[str]]:
    try:
        parts = urlsplit(text)
        pairs = parse_qsl(
            parts.query, keep_blank_values=True, strict_parsing=True, encoding="ascii",
            errors="strict",
        )  # fmt: skip
    except ValueError as error:
        raise LinkError("not a pairing link (restunnel://pair?...)") from error
    if (parts.scheme, parts.netloc, parts.path, parts.fragment) != (SCHEME, "pair", "", ""):
        raise LinkError("not a pairing link (restunnel://pair?...)")
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def _one(fields: dict[str, list[str]], name: str) -> str:
    values = fields.get(name, [])
    if len(values) != 1:
        raise LinkError(f"the pairing link is damaged: {len(values)} values of {name!r}")
    return values[0]
