"""Enrolment tokens: made, shown as a link, and burned by the first device that has one."""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from restunnel_protocol import Endpoint, Enroll, PairingLink, PublicKey
from restunnel_protocol.limits import TOKEN_LIFETIME, TOKEN_SIZE
from restunnel_protocol.noise import Request

from .store import NodeRecord, StoreThread, TokenRecord

MAX_TTL = 24 * 3600.0
"""Seconds: a link that anybody who sees it can use should not live longer."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A fresh token and the link that carries it, the only place where it is in clear."""

    record: TokenRecord
    link: PairingLink


class Pairing:
    """Issues tokens and takes them back.

    A token dies by the wall clock, which survives a restart, and by the monotonic
    clock, which nobody can set back.
    """

    def __init__(
        self,
        store: StoreThread,
        key: PublicKey,
        endpoints: Callable[[], Sequence[Endpoint]],
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._key = key
        self.endpoints = endpoints
        self._wall = wall
        self._monotonic = monotonic
        self._deadlines: dict[bytes, float] = {}

    async def invite(
        self, name: str = "", group: str = "", ttl: float = TOKEN_LIFETIME
    ) -> Invitation:
        """A new token, good for `ttl` seconds and one device."""
        token = secrets.token_bytes(TOKEN_SIZE)
        token_hash = _hash(token)
        now = self._wall()
        self._forget_dead()
        self._deadlines[token_hash] = self._monotonic() + ttl
        record = await self._store.call(
            self._store.store.add_token, token_hash, name, group, now, now + ttl
        )
        link = PairingLink(tuple(self.endpoints()), self._key, token, int(record.expires_at))
        return Invitation(record, link)

    async def redeem(self, request: Request, enroll: Enroll, address: str) -> NodeRecord | None:
        """Enrol the device that sent `enroll`; None if its token is not good (any more)."""
        token_hash = _hash(enroll.token)
        deadline = self._deadlines.get(token_hash)
        if deadline is not None and self._monotonic() >= deadline:
            return None
        return await self._store.call(
            self._store.store.enrol,
            token_hash,
            request.node,
            request.hello.timestamp,
            usable_name(enroll.name),
            address,
            self._wall(),
        )

    def _forget_dead(self) -> None:
        """Tokens a day past their time; until then the deadline keeps them dead."""
        limit = self._monotonic() - MAX_TTL
        self._deadlines = {key: when for key, when in self._deadlines.items() if when > limit}


def usable_name(suggested: str) -> str:
    """A device's own name for itself, fit to be typed, printed and used as a user name."""
    return "".join(
        "-" if char in ",=" else char for char in suggested if char.isprintable()
    ).strip()


def advertised_host() -> str:
    """This machine's address on the way out, or its host name: a guess for the link."""
    for family, probe in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((probe, 9))  # sends nothing: it asks the routing table
                host: str = sock.getsockname()[0]
            except OSError:
                continue
            return host
    return socket.gethostname()


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
