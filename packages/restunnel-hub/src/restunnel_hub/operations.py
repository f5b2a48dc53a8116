"""What an operator can do, whether by command line, REST API or dashboard."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from restunnel_protocol.aio.throttle import MIN_RATE
from restunnel_protocol.limits import MAX_NODE_NAME, TOKEN_LIFETIME

from ._version import __version__
from .access import Access, hash_password, new_password
from .accounting import Accounting
from .clients import Clients
from .journal import KINDS, Journal
from .outlet import Outlet
from .pairing import MAX_TTL, Invitation, Pairing
from .passwords import MIN_PASSWORD, Passwords
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
    access: Access
    journal: Journal
    accounting: Accounting
    passwords: Passwords
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
            "streams": sum(node.stream_count for node in nodes),
            "clients": len(self.clients),
            "strangers": self.tunnels.strangers,
            "auth_required": self.access.required,
        }

    def nodes(self) -> list[dict[str, Any]]:
        """Every node, in the order of enrolment."""
        return [_describe(node) for node in self.registry.all()]

    def node(self, text: str) -> dict[str, Any]:
        """One node, by id or name."""
        return _describe(self._find(text))

    async def change(self, text: str, **fields: Any) -> dict[str, Any]:
        """New values of a node's name, group, note, drain or limits."""
        node = self._find(text)
        if "name" in fields:
            _check_name(fields["name"])
            if not fields["name"]:
                raise OperationError(422, "a node needs a name")
        if "group" in fields:
            _check_name(fields["group"])
        if fields.get("bandwidth") is not None and fields["bandwidth"] < MIN_RATE:
            raise OperationError(422, f"a bandwidth is at least {MIN_RATE} bytes a second")
        if not await self.store.call(self.store.store.change, node.record.id, **fields):
            raise OperationError(409, f"another node is called {fields['name']!r}")
        self.registry.change(node, **fields)
        said = ", ".join(f"{name}={value}" for name, value in fields.items())
        self.journal.note("changed", node.record, said)
        return _describe(node)

    async def traffic(self, text: str) -> dict[str, Any]:
        """What a node has carried, day by day (UTC)."""
        node = self._find(text)
        await self.accounting.settle()
        days = await self.store.call(self.store.store.ledger.days, node.record.id)
        return {
            "node": _describe(node),
            "days": [
                {
                    "day": day,
                    "bytes_received": traffic.received,
                    "bytes_sent": traffic.sent,
                    "streams": traffic.streams,
                }
                for day, traffic in days
            ],
        }

    async def revoke(self, text: str) -> dict[str, Any]:
        """Forget a node's key and end its tunnels, once that is on disk."""
        node = self._find(text)
        await self.journal.flush()  # what led to it is told before it
        await self.store.call(self.store.store.revoke, node.record.id)
        if self.registry.is_current(node):
            self.registry.remove(node)
            self.journal.note("revoked", node.record, stored=True)
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
        answer: dict[str, Any] = {"username": username, "node": None, "then": []}
        try:
            first, *others = self.outlet.rank(username, use=False)
        except RouteError as error:
            return {**answer, "failure": error.failure.name.lower(), "reason": str(error)}
        answer |= {"node": _describe(first), "then": [node.name for node in others]}
        return {**answer, "failure": "", "reason": self.outlet.why(username)}

    def endpoints(self) -> list[str]:
        """Where pairing links lead."""
        return [str(endpoint) for endpoint in self.pairing.endpoints()]

    # --- clients -----------------------------------------------------------------------

    async def list_clients(self) -> list[dict[str, Any]]:
        """Every account, and what came without one (the name is empty)."""
        await self.accounting.settle()
        return [
            {
                "name": client.name,
                "created_at": client.created_at,
                "last_seen": client.last_seen,
                "bytes_received": client.traffic.received,
                "bytes_sent": client.traffic.sent,
                "streams": client.traffic.streams,
            }
            for client in await self.store.call(self.store.store.ledger.clients)
        ]

    async def add_client(self, name: str) -> dict[str, Any]:
        """An account for a client of the proxies, with its password, told this once."""
        _check_name(name)
        if not name:
            raise OperationError(422, "a client needs a name")
        password = new_password()
        ledger = self.store.store.ledger
        now = time.time()
        if not await self.store.call(ledger.add_client, name, hash_password(password), now):
            raise OperationError(409, f"a client is called {name!r} already")
        await self.load_accounts()
        self.journal.note("client-added", detail=name)
        return {"name": name, "password": password}

    async def remove_client(self, name: str) -> dict[str, Any]:
        """Forget a client's password; connections that are open stay."""
        if not await self.store.call(self.store.store.ledger.remove_client, name):
            raise OperationError(
                404, f"no client is called {name!r}", "see `restunnel-hub client list`"
            )
        await self.load_accounts()
        self.journal.note("client-removed", detail=name)
        return {"name": name}

    async def load_accounts(self) -> None:
        """Have the proxies know what the store knows."""
        self.access.replace(await self.store.call(self.store.store.ledger.accounts))

    # --- the hub -----------------------------------------------------------------------

    async def events(
        self, after: int = 0, limit: int = 100, kind: str = "", node: str = ""
    ) -> list[dict[str, Any]]:
        """The last events, oldest first."""
        if kind and kind not in KINDS:
            raise OperationError(422, f"no such kind of event: {kind!r}", ", ".join(KINDS))
        await self.journal.flush()
        found = self.registry.find(node) if node else None
        node_id = found.id if found is not None else node  # events outlive their nodes
        ledger = self.store.store.ledger
        records = await self.store.call(
            ledger.events, after=after, limit=limit, kind=kind, node_id=node_id
        )
        return [asdict(record) for record in records]

    async def set_password(self, password: str | None) -> None:
        """The dashboard's password; None: only one-time links log in."""
        if password is not None and len(password) < MIN_PASSWORD:
            raise OperationError(422, f"a password has at least {MIN_PASSWORD} characters")
        await self.passwords.set(password)

    def sees(self, received: bytes) -> bool:
        """Whether these bytes have come in at the tunnel port, from nobody in particular."""
        return self.tunnels.holds(received)

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
    record, tunnel, usage = node.record, node.tunnel, node.usage
    if tunnel is not None:
        tunnel.settle()
    usage.turn()  # a day may have ended since the last traffic
    obstacle = node.unavailable
    return {
        "id": record.id,
        "name": record.name,
        "group": record.group,
        "key": str(record.public_key),
        "note": record.note,
        "online": node.online,
        "state": obstacle.name.lower() if obstacle is not None else "ready",
        "drained": record.drained,
        "address": node.address,
        "online_since": tunnel.since if tunnel is not None else None,
        "streams": node.stream_count,
        "bytes_received": usage.total.received,
        "bytes_sent": usage.total.sent,
        "bytes_today": usage.day_bytes,
        "bytes_this_month": usage.month_bytes,
        "total_streams": usage.total.streams,
        "max_streams": record.max_streams,
        "max_day": record.max_day,
        "max_month": record.max_month,
        "bandwidth": record.bandwidth,
        "enrolled_at": record.enrolled_at,
        "last_seen": time.time() if node.online else node.last_seen,
        "agent": tunnel.agent if tunnel is not None else "",
    }


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
