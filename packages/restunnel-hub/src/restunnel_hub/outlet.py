"""From a proxy request to a stream: routing over the nodes that are online.

A dial that fails through the node's own fault is tried on the next node of the route,
as long as the client has been told nothing and has sent nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from restunnel_protocol import CloseReason, ConnectFailReason, LocalError, Target
from restunnel_protocol.aio import TunnelStream
from restunnel_protocol.program.settings import format_duration

from .proxy_request import Failure, ProxyRequest
from .registry import Node, Registry
from .routing import CountryOf, Route, RouteError, RouteFailure, parse_route, rank
from .session_clock import SessionClock

log = logging.getLogger(__name__)

MAX_DIALS: Final = 3
"""Nodes that are tried for one request."""

NODES_FAULT: Final = frozenset(
    {
        ConnectFailReason.BUSY,
        ConnectFailReason.GOING_AWAY,
        ConnectFailReason.NAME_UNRESOLVED,
        ConnectFailReason.NETWORK_UNREACHABLE,
    }
)
"""Failures of the node or its network, not of the target: another node may do better."""

SUSPICIOUS: Final = frozenset({ConnectFailReason.GOING_AWAY, ConnectFailReason.NAME_UNRESOLVED})
"""Those that make others preferred for a while, if another did better with the same target.

Not without that proof, or one target with a broken name server would turn every node
away in turn; and not for want of a route, as a node without IPv6 is as good as ever.
"""

OUTCOMES: Final = (
    "connected",
    "optimistic",
    *(failure.name.lower() for failure in RouteFailure),
    *(reason.name.lower() for reason in ConnectFailReason),
)
"""What may become of a request: all names that are counted."""

parsed: Final = lru_cache(1024)(parse_route)
"""`parse_route`; most clients say the same for each connection."""


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What the operator has set for routes that do not say it themselves.

    `spread` concerns those without a session; `session_lifetime` is in seconds, 0: no end.
    """

    spread: bool = False
    session_lifetime: float = 0.0

    def lifetime(self, route: Route) -> float:
        """Seconds for which the session of a route lasts; 0: no end."""
        return self.session_lifetime if route.lifetime is None else route.lifetime


class DialHandler(Protocol):
    """Who wants to hear how a dial ended; exactly one of these is called, once."""

    def dialled(self, stream: TunnelStream) -> None:
        """The node has connected; the stream needs a handler before this returns."""

    def dial_failed(self, failure: Failure) -> None:
        """No node has."""


class Outlet:
    """Opens streams until it is closed, and counts what became of them."""

    def __init__(
        self,
        registry: Registry,
        policy: Callable[[], RoutePolicy] = RoutePolicy,
        country_of: CountryOf | None = None,
        refused: Callable[[Node, Target], None] = lambda node, target: None,
    ) -> None:
        self._registry = registry
        self._policy = policy
        self._country_of = country_of
        self._refused = refused
        self._sessions = SessionClock()
        self._closed = False
        self.outcomes: Counter[str] = Counter()
        """Requests by what became of them, by the names of `OUTCOMES`."""

    @property
    def closed(self) -> bool:
        """Whether the hub is stopping."""
        return self._closed

    def close(self) -> None:
        """Open nothing any more."""
        self._closed = True

    def rank(self, username: str, *, use: bool = True) -> Iterator[Node]:
        """The nodes that may serve a proxy user name, the best first. Raises `RouteError`.

        Without `use` nobody is to be served, and no session begins.
        """
        route, policy = parsed(username), self._policy()
        generation = 0
        if route.session:
            lifetime = policy.lifetime(route)
            scope = route.group or route.node or route.name
            generation = self._sessions.generation(scope, route.session, lifetime, use=use)
        return rank(
            route,
            self._registry.all(),
            spread=policy.spread,
            generation=generation,
            country_of=self._country_of,
        )

    def why(self, username: str) -> str:
        """In words, how a route that somebody serves is decided."""
        route, policy = parsed(username), self._policy()
        where = "of the nodes it names" if route.named else "of all nodes"
        if route.session:
            lifetime = policy.lifetime(route)
            end = f" for {format_duration(lifetime)} from its first use" if lifetime else ""
            how = f"the session's own {where}, by its hash{end}"
        elif policy.spread and not route.node:
            how = f"the least loaded {where}"
        else:
            how = f"the first {where} that is available"
        return how if route.fallback else f"{how}; no other instead"

    def is_optimistic(self, request: ProxyRequest) -> bool:
        """Whether the client wants to be told of success before there is any."""
        return "optimistic" in request.username and parsed(request.username).optimistic

    def dial(self, request: ProxyRequest, handler: DialHandler) -> Dial:
        """Have a node connect to the target. Raises `RouteError` if there is none to ask."""
        return Dial(self, request, self._candidates(request), handler)

    def open(self, request: ProxyRequest) -> TunnelStream:
        """A stream on which data may be sent at once. Raises `RouteError`.

        The caller gives it a handler before anything else happens. It is one node's:
        after data has gone out there is no second try.
        """
        for node in self._candidates(request):
            try:
                stream = node.open_stream(request.target, None)
            except LocalError:
                continue  # it went into draining just now
            self.outcomes["optimistic"] += 1
            return stream
        raise self.count(RouteError(RouteFailure.OFFLINE))

    def _candidates(self, request: ProxyRequest) -> Iterator[Node]:
        try:
            if self._closed:
                raise RouteError(RouteFailure.STOPPING)
            return self.rank(request.username)
        except RouteError as error:
            raise self.count(error) from None

    def count(self, error: RouteError) -> RouteError:
        """A request that no node was asked for."""
        self.outcomes[error.failure.name.lower()] += 1
        return error

    def note(self, node: Node, target: Target, reason: ConnectFailReason | None) -> None:
        """How one dial ended; None: well."""
        self.outcomes["connected" if reason is None else reason.name.lower()] += 1
        if reason is ConnectFailReason.NOT_ALLOWED:
            self._refused(node, target)


class Dial:
    """One request on its way to a connected target: the handler of its stream until then."""

    def __init__(
        self, outlet: Outlet, request: ProxyRequest, nodes: Iterator[Node], handler: DialHandler
    ) -> None:
        """Raises `RouteError` if not even the first node can be asked."""
        self._outlet = outlet
        self._target = request.target
        self._nodes = nodes
        self._handler = handler
        self._tries = 0
        self._suspects: list[Node] = []
        self._stream: TunnelStream | None = None
        self._node: Node | None = None
        if not self._try_next():
            raise outlet.count(RouteError(RouteFailure.OFFLINE))

    def cancel(self) -> None:
        """Nobody wants it any more; the handler hears nothing."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close(CloseReason.CANCELLED)

    def _try_next(self) -> bool:
        """Ask another node, if there is one."""
        if self._tries >= MAX_DIALS:
            return False
        for node in self._nodes:
            try:
                self._stream = node.open_stream(self._target, self)
            except LocalError:
                continue  # it went into draining just now
            self._node = node
            self._tries += 1
            return True
        return False

    def _failed(self, reason: ConnectFailReason, detail: str) -> None:
        self._stream = None
        assert self._node is not None
        self._outlet.note(self._node, self._target, reason)
        if reason in SUSPICIOUS:
            self._suspects.append(self._node)
        if reason in NODES_FAULT and not self._outlet.closed and self._try_next():
            log.debug("trying another node after %s", reason.name.lower())
            return
        self._handler.dial_failed(Failure(detail or reason.name.lower().replace("_", " "), reason))

    # --- the stream's handler ---------------------------------------------------------------

    def stream_connected(self, address: Target) -> None:
        stream, self._stream = self._stream, None
        assert stream is not None and self._node is not None
        self._outlet.note(self._node, self._target, None)
        for suspect in self._suspects:
            suspect.suspect_for_a_while()
        self._handler.dialled(stream)

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        self._failed(reason, detail)

    def stream_closed(self, reason: CloseReason | None, detail: str) -> None:
        self._failed(ConnectFailReason.GOING_AWAY, f"the node is gone: {detail}")

    def stream_data(self, data: memoryview) -> None:
        raise AssertionError("data before CONNECT_OK is a protocol error")

    def stream_eof(self) -> None:
        raise AssertionError("EOF before CONNECT_OK is a protocol error")

    def stream_writable(self) -> None:
        """Nothing has been sent yet."""
