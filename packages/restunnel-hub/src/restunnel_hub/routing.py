"""Which node serves a connection: the proxy user name, and a pure choice.

    ""                          the default route: always the same node while it is up
    phone                       that node, or a node of that group
    group=home,session=abc      sticky within a group, by rendezvous hashing
    node=phone                  exactly that node
    node=phone,optimistic=yes   answered before the target is connected

An unknown name or key fails: never another node silently, and never the hub's
own address. Names are percent-encoded as in URLs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar
from urllib.parse import unquote


class RouteFailure(Enum):
    """Why no node was chosen."""

    BAD_NAME = "the proxy user name cannot be understood"
    UNKNOWN = "no node or group of that name"
    OFFLINE = "the node is not connected"
    NO_NODE = "no exit node is connected"
    STOPPING = "the hub is stopping"


class RouteError(Exception):
    """A connection that no node serves."""

    def __init__(self, failure: RouteFailure, detail: str = "") -> None:
        super().__init__(detail or failure.value)
        self.failure = failure


class Candidate(Protocol):
    """What routing wants to know of a node."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def online(self) -> bool: ...


C = TypeVar("C", bound=Candidate)

KEYS = {"name", "node", "group", "session", "fallback", "optimistic"}
"""What a user name may say; `name` is what stands without a key."""


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed user name; an empty field is not asked for."""

    name: str = ""
    node: str = ""
    group: str = ""
    session: str = ""
    fallback: bool = True
    optimistic: bool = False
    """The client is told of success at once; a failure then is a reset."""


def parse_route(username: str) -> Route:
    """From a proxy user name. Raises `RouteError` (BAD_NAME)."""
    fields: dict[str, str] = {}
    for part in username.split(",") if username else []:
        key, equals, value = part.partition("=")
        if not equals:
            key, value = "name", part
        key, value = unquote(key), unquote(value)
        if not value or key in fields or key not in KEYS:
            raise RouteError(RouteFailure.BAD_NAME, f"cannot understand {part!r} in the user name")
        fields[key] = value
    if len({"name", "node", "group"} & set(fields)) > 1:
        raise RouteError(RouteFailure.BAD_NAME)
    fallback = _choice(fields.pop("fallback", "yes"))
    optimistic = _choice(fields.pop("optimistic", "no"))
    return Route(fallback=fallback, optimistic=optimistic, **fields)


def _choice(value: str) -> bool:
    if value not in ("yes", "no"):
        raise RouteError(RouteFailure.BAD_NAME, f"{value!r} is neither yes nor no")
    return value == "yes"


def choose(route: Route, candidates: Sequence[C]) -> C:
    """The node that serves a route. Raises `RouteError`.

    `candidates` are all paired nodes in the order of enrolment. Without a session
    the first that is online serves, so that the default stays the same while it is
    up. With one, the node of greatest weight serves; if it is offline and
    `fallback` is allowed, the greatest of those online does.
    """
    pool = _pool(route, candidates)
    considered = pool if route.fallback else pool[:1]
    if route.session:
        ranked = [c for c in pool if c.online] if route.fallback else pool
        considered = [max(ranked, key=lambda c: _weight(route.session, c.id))] if ranked else []
    for candidate in considered:
        if candidate.online:
            return candidate
    raise RouteError(RouteFailure.OFFLINE if _named(route) else RouteFailure.NO_NODE)


def _named(route: Route) -> bool:
    return bool(route.name or route.node or route.group)


def _pool(route: Route, candidates: Sequence[C]) -> Sequence[C]:
    """The nodes that may serve at all, online or not."""
    if not _named(route):
        return candidates
    pool: list[C] = []
    if route.node or route.name:
        pool = [c for c in candidates if c.name == (route.node or route.name)]
    if not pool and not route.node:
        pool = [c for c in candidates if c.group == (route.group or route.name)]
    if not pool:
        wanted = route.node or route.group or route.name
        raise RouteError(RouteFailure.UNKNOWN, f"no node or group is called {wanted!r}")
    return pool


def _weight(session: str, node_id: str) -> bytes:
    """Rendezvous hashing (Thaler and Ravishankar, 1998): each session ranks all nodes."""
    return hashlib.sha256(f"{session}\0{node_id}".encode()).digest()
