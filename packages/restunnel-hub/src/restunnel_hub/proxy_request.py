"""What a proxy client asks for, and why it did not get it, whatever the protocol."""

from __future__ import annotations

from dataclasses import dataclass

from restunnel_protocol import ConnectFailReason, Target

from .access import ANONYMOUS
from .routing import RouteError


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A target, the proxy user name that chooses the node, and the client's account."""

    target: Target
    username: str
    account: str = ANONYMOUS


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection was not made: by routing (`reason` is None), or by the node."""

    detail: str
    reason: ConnectFailReason | None = None
    route: RouteError | None = None
