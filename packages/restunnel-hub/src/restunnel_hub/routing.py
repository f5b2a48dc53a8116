"""Which node serves a connection: the proxy user name, and a pure choice.

    ""                          the default route: always the same node while it is up
    phone                       that node, or a node of that group
    group=home,session=abc      sticky within a group, by rendezvous hashing
    session=abc,lifetime=10m    ten minutes after its first use, another choice
    node=phone                  exactly that node
    node=phone,optimistic=yes   answered before the target is connected
    home,expect-ip=192.0.2.7    fails unless the exit is that address (or network)
    home,expect-country=DE      fails unless the exit is there

An unknown name or key fails: never another node silently, and never the hub's
own address. Names are percent-encoded as in URLs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, Protocol, TypeVar
from urllib.parse import unquote

from restunnel_protocol.program.settings import parse_duration


class RouteFailure(Enum):
    """Why no node was chosen."""

    BAD_NAME = "the proxy user name cannot be understood"
    UNKNOWN = "no node or group of that name"
    OFFLINE = "the node is not connected"
    NO_NODE = "no exit node is connected"
    DRAINED = "the node is set to take nothing new"
    FULL = "the node has as many streams as its limit allows"
    QUOTA = "the node has used up its bytes for this day or month"
    EXIT_ADDRESS = "the node's address is not the one that was expected"
    EXIT_COUNTRY = "the node is not in the country that was expected"
    STOPPING = "the hub is stopping"


MISTAKES: Final = frozenset({RouteFailure.BAD_NAME, RouteFailure.UNKNOWN})
"""Failures that only another user name mends."""

GUARDS: Final = frozenset({RouteFailure.EXIT_ADDRESS, RouteFailure.EXIT_COUNTRY})
"""Failures of what the client expects of its exit."""


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
    def unavailable(self) -> RouteFailure | None:
        """Why it takes no new stream; None: it does."""

    @property
    def suspect(self) -> bool:
        """Whether it has failed lately through a fault of its own."""

    @property
    def load(self) -> int:
        """What has been given to it: streams that are open, then streams there were."""

    @property
    def address(self) -> str:
        """Its address as the hub sees it, which is where its traffic comes from."""


C = TypeVar("C", bound=Candidate)

Network = IPv4Network | IPv6Network
CountryOf = Callable[[str], str | None]
"""Two letters of ISO 3166 for an address; None: not known."""

KEYS: Final = {
    "name",
    "node",
    "group",
    "session",
    "lifetime",
    "fallback",
    "optimistic",
    "expect-ip",
    "expect-country",
}
"""What a user name may say; `name` is what stands without a key."""


@dataclass(frozen=True, slots=True)
class Route:
    """A parsed user name; an empty field is not asked for."""

    name: str = ""
    node: str = ""
    group: str = ""
    session: str = ""
    lifetime: float | None = None
    """Seconds after which the session moves on; None: as the hub is set."""
    fallback: bool = True
    optimistic: bool = False
    """The client is told of success at once; a failure then is a reset."""
    expect_ip: Network | None = None
    expect_country: str = ""

    @property
    def named(self) -> bool:
        """Whether it says anything about the node."""
        return bool(self.name or self.node or self.group)


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
        raise RouteError(RouteFailure.BAD_NAME, "a user name takes one of node and group")
    if "lifetime" in fields and "session" not in fields:
        raise RouteError(RouteFailure.BAD_NAME, "lifetime= is a session's")
    try:
        return Route(
            name=fields.get("name", ""),
            node=fields.get("node", ""),
            group=fields.get("group", ""),
            session=fields.get("session", ""),
            lifetime=parse_duration(fields["lifetime"]) if "lifetime" in fields else None,
            fallback=_choice(fields.get("fallback", "yes")),
            optimistic=_choice(fields.get("optimistic", "no")),
            expect_ip=ip_network(fields["expect-ip"]) if "expect-ip" in fields else None,
            expect_country=_country(fields.get("expect-country", "")),
        )
    except ValueError as error:
        raise RouteError(
            RouteFailure.BAD_NAME, f"cannot understand the user name: {error}"
        ) from error


def _choice(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError(f"{value!r} is neither yes nor no")
    return value == "yes"


def _country(value: str) -> str:
    if value and not (len(value) == 2 and value.isascii() and value.isalpha()):
        raise ValueError(f"{value!r} is not a country's two letters")
    return value.upper()


def rank(
    route: Route,
    candidates: Sequence[C],
    *,
    spread: bool = False,
    generation: int = 0,
    country_of: CountryOf | None = None,
) -> Iterator[C]:
    """The nodes that may serve a route, the best first. Raises `RouteError`, if there is none.

    `candidates` are all paired nodes in the order of enrolment. Without a session the
    first that is available comes first, so that it stays the same while it is up, or,
    with `spread`, the least loaded one. With a session each node has a weight that
    depends on both and on the session's `generation`; the greatest comes first. Nodes
    that failed lately come last, but they do come: the only node is never given up.

    What is yielded after the first is for another try, where the first one failed.
    """
    pool = ordered = _pool(route, candidates)
    if route.session:
        ordered = sorted(pool, key=lambda c: _weight(route.session, generation, c.id), reverse=True)
    elif spread and not route.node:
        ordered = sorted(pool, key=lambda c: c.load)
    if not route.fallback:
        ordered = ordered[:1]
    found = _available(route, ordered, country_of)
    first = next(found, None)
    if first is None:
        raise _why_none(route, ordered, country_of)
    return _chain(first, found)


def _chain(first: C, others: Iterator[C]) -> Iterator[C]:
    yield first
    yield from others


def _available(route: Route, ordered: Sequence[C], country_of: CountryOf | None) -> Iterator[C]:
    suspects = []
    for candidate in ordered:
        if _obstacle(route, candidate, country_of) is not None:
            continue
        if candidate.suspect:
            suspects.append(candidate)
        else:
            yield candidate
    yield from suspects


def _obstacle(
    route: Route, candidate: Candidate, country_of: CountryOf | None
) -> RouteFailure | None:
    """Why a node cannot serve a route; None: it can."""
    if (obstacle := candidate.unavailable) is not None:
        return obstacle
    if route.expect_ip is not None and not _is_in(candidate.address, route.expect_ip):
        return RouteFailure.EXIT_ADDRESS
    if route.expect_country:
        country = country_of(candidate.address) if country_of is not None else None
        if country != route.expect_country:
            return RouteFailure.EXIT_COUNTRY
    return None


def _is_in(address: str, network: Network) -> bool:
    try:
        return ip_address(address) in network
    except ValueError:  # not known: that is not the expected one either
        return False


def _why_none(
    route: Route, ordered: Sequence[Candidate], country_of: CountryOf | None
) -> RouteError:
    """The most telling of the obstacles: one of a node that is at least connected."""
    obstacles = [_obstacle(route, candidate, country_of) for candidate in ordered]
    telling = [found for found in obstacles if found not in (None, RouteFailure.OFFLINE)]
    if not telling or telling[0] is None:
        return RouteError(RouteFailure.OFFLINE if route.named else RouteFailure.NO_NODE)
    if telling[0] is RouteFailure.EXIT_COUNTRY and country_of is None:
        return RouteError(telling[0], "no country is known here: the hub has no geoip database")
    return RouteError(telling[0])


def _pool(route: Route, candidates: Sequence[C]) -> Sequence[C]:
    """The nodes that may serve at all, online or not."""
    if not route.named:
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


def _weight(session: str, generation: int, node_id: str) -> bytes:
    """Rendezvous hashing (Thaler and Ravishankar, 1998): each session ranks all nodes."""
    text = f"{session}\0{generation}\0{node_id}" if generation else f"{session}\0{node_id}"
    return hashlib.sha256(text.encode()).digest()
