"""From a proxy request to a stream: routing over the nodes that are online."""

from __future__ import annotations

from restunnel_protocol import LocalError
from restunnel_protocol.aio import StreamHandler, TunnelStream

from .proxy_request import ProxyRequest
from .registry import Node, Registry
from .routing import RouteError, RouteFailure, choose, parse_route


class Outlet:
    """Opens streams until it is closed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the hub is stopping."""
        return self._closed

    def close(self) -> None:
        """Open nothing any more."""
        self._closed = True

    def choose(self, username: str) -> Node:
        """The node that a proxy user name leads to. Raises `RouteError`."""
        return choose(parse_route(username), self._registry.all())

    def is_optimistic(self, request: ProxyRequest) -> bool:
        """Whether the client wants to be told of success before there is any."""
        return "optimistic" in request.username and parse_route(request.username).optimistic

    def open(self, request: ProxyRequest, handler: StreamHandler) -> TunnelStream:
        """A stream on the node that the user name chooses. Raises `RouteError`."""
        if self._closed:
            raise RouteError(RouteFailure.STOPPING)
        tunnel = self.choose(request.username).tunnel
        assert tunnel is not None  # a node that is online has one
        try:
            return tunnel.open_stream(request.target, handler)
        except LocalError as error:
            raise RouteError(RouteFailure.OFFLINE, str(error)) from error
