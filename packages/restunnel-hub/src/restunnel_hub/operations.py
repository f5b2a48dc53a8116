"""What an operator can do, whether by command line, REST API or dashboard."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from restunnel_protocol.limits import MAX_NODE_NAME, TOKEN_LIFETIME

from ._version import __version__
from .clients import Clients
from .outlet import Outlet
from .pairing import MAX_TTL, Invitation, Pairing
from .qr import terminal_qr
from .registry import Node, Registry
from .routing import RouteError
from .store import StoreThread, TokenRecord
from .tunnels import TunnelServer


class OperationError(Exception):
    """Something that cannot be done; `status` is the HTTP status for it."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Operations:
    """The hub from its operator's side."""

    registry: Registry
    store: StoreThread
    pairing: Pairing
    tunnels: TunnelServer
    outlet: Outlet
    clients: Clients
    listeners: dict[str, str]
    started_at: float

    def status(self) -> dict[str, Any]:
        """The hub as a whole."""
        nodes = self.registry.all()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "listeners": self.listeners,
            "nodes": len(nodes),
            "online": sum(node.online for node in nodes),
            "streams": sum(_streams(node) for node in nodes),
            "clients": len(self.clients),
            "strangers": self.tunnels.strangers,
        }

    def nodes(self) -> list[dict[str, Any]]:
        """Every node, in the order of enrolment."""
        return [_describe(node) for node in self.registry.all()]

    def node(self, text: str) -> dict[str, Any]:
        """One node, by id or name."""
        return _describe(self._find(text))

    async def rename(self, text: str, name: str) -> dict[str, Any]:
        """Give a node another name."""
        node = self._find(text)
        _check_name(name)
        if not name:
            raise OperationError(422, "a node needs a name")
        if not await self.store.call(self.store.store.rename, node.record.id, name):
            raise OperationError(409, f"another node is called {name!r}")
        self.registry.change(node, name=name)
        return _describe(node)

    async def regroup(self, text: str, group: str) -> dict[str, Any]:
        """Put a node into a group; empty: into none."""
        node = self._find(text)
        _check_name(group)
        await self.store.call(self.store.store.regroup, node.record.id, group)
        self.registry.change(node, group=group)
        return _describe(node)

    async def revoke(self, text: str) -> dict[str, Any]:
        """Forget a node's key and end its tunnels, once that is on disk."""
        node = self._find(text)
        await self.store.call(self.store.store.revoke, node.record.id)
        if self.registry.is_current(node):
            self.registry.remove(node)
        return _describe(node)

    async def invite(
        self, name: str = "", group: str = "", ttl: float = TOKEN_LIFETIME
    ) -> Invitation:
        """A pairing link for one device."""
        _check_name(name)
        _check_name(group)
        if not 0 < ttl <= MAX_TTL:
            raise OperationError(422, "a pairing link lives for up to a day")
        if name and any(node.record.name == name for node in self.registry.all()):
            raise OperationError(409, f"a node is called {name!r} already", "choose another --name")
        return await self.pairing.invite(name, group, ttl)

    async def invitation(self, token_id: str) -> dict[str, Any]:
        """What became of a pairing link: `open`, `paired` (with the node) or `expired`."""
        record = await self.store.call(self.store.store.token, token_id)
        if record is None:
            raise OperationError(404, "no such pairing link")
        node = self.registry.find(record.node_id) if record.node_id else None
        return {
            "id": record.id,
            "state": _token_state(record),
            "expires_at": record.expires_at,
            "node": _describe(node) if node is not None else None,
        }

    def explain(self, username: str) -> dict[str, Any]:
        """Which node would serve a proxy user name, or why none would."""
        try:
            node = self.outlet.choose(username)
        except RouteError as error:
            return {"username": username, "node": None, "reason": str(error)}
        return {"username": username, "node": _describe(node), "reason": ""}

    def _find(self, text: str) -> Node:
        node = self.registry.find(text)
        if node is None:
            raise OperationError(404, f"no node is called {text!r}", "see `restunnel-hub nodes`")
        return node


def describe_invitation(invitation: Invitation) -> dict[str, Any]:
    """What `pair --json` prints."""
    link = str(invitation.link)
    return {
        "id": invitation.record.id,
        "link": link,
        "expires_at": invitation.record.expires_at,
        "name": invitation.record.name,
        "group": invitation.record.group,
        "endpoints": [str(endpoint) for endpoint in invitation.link.endpoints],
        "qr": terminal_qr(link),
    }


def _describe(node: Node) -> dict[str, Any]:
    record, tunnel = node.record, node.tunnel
    received, sent = tunnel.traffic if tunnel is not None else (0, 0)
    return {
        "id": record.id,
        "name": record.name,
        "group": record.group,
        "key": str(record.public_key),
        "online": node.online,
        "address": tunnel.address if tunnel is not None else record.last_address,
        "online_since": tunnel.since if tunnel is not None else None,
        "streams": _streams(node),
        "bytes_received": received,
        "bytes_sent": sent,
        "enrolled_at": record.enrolled_at,
        "last_seen": time.time() if node.online else node.last_seen,
        "agent": tunnel.agent if tunnel is not None else "",
    }


def _streams(node: Node) -> int:
    return node.tunnel.stream_count if node.tunnel is not None else 0


def _token_state(record: TokenRecord) -> str:
    if record.node_id is not None:
        return "paired"
    return "expired" if record.expires_at <= time.time() else "open"


def _check_name(name: str) -> None:
    """Names are typed, logged, and used as proxy user names."""
    if len(name.encode()) > MAX_NODE_NAME or any(char in ",=" for char in name):
        raise OperationError(422, f"not a usable name: {name[:70]!r}")
    if not name.isprintable() or name != name.strip():
        raise OperationError(422, f"not a usable name: {name[:70]!r}")
