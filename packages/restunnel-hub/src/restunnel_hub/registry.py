"""The nodes that are paired, and the tunnels that are up, in memory."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from restunnel_protocol import GoAwayReason, PublicKey

from .store import NodeRecord

if TYPE_CHECKING:
    from .tunnels import Tunnel


@dataclass(eq=False, slots=True)
class Node:
    """A paired node: its record, its tunnel if it is online, and those not confirmed yet."""

    record: NodeRecord
    tunnel: Tunnel | None = None
    unconfirmed: set[Tunnel] = field(default_factory=set)
    last_seen: float | None = None

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def group(self) -> str:
        return self.record.group

    @property
    def online(self) -> bool:
        return self.tunnel is not None and not self.tunnel.draining


class Registry:
    """All nodes by id and key. The event loop's thread only."""

    def __init__(self, records: Iterable[NodeRecord]) -> None:
        self._nodes = {record.id: Node(record, last_seen=record.last_seen) for record in records}
        self._by_key = {node.record.public_key: node for node in self._nodes.values()}

    def __len__(self) -> int:
        return len(self._nodes)

    def all(self) -> list[Node]:
        """Every node, in the order of enrolment."""
        return list(self._nodes.values())  # the store gives them, and they come, in that order

    def by_key(self, key: PublicKey) -> Node | None:
        return self._by_key.get(key)

    def find(self, text: str) -> Node | None:
        """A node by id or name."""
        if text in self._nodes:
            return self._nodes[text]
        return next((node for node in self._nodes.values() if node.record.name == text), None)

    def put(self, record: NodeRecord) -> Node:
        """A node that was enrolled or changed."""
        node = self._nodes.get(record.id)
        if node is None:
            node = self._nodes[record.id] = Node(record, last_seen=record.last_seen)
            self._by_key[record.public_key] = node
        node.record = record
        return node

    def change(self, node: Node, **fields: str) -> None:
        """New name or group, as the store has them already."""
        node.record = replace(node.record, **fields)  # type: ignore[arg-type]

    def remove(self, node: Node) -> None:
        """A node whose key is revoked: all of its tunnels end now."""
        del self._nodes[node.record.id]
        del self._by_key[node.record.public_key]
        for tunnel in [*node.unconfirmed, *([node.tunnel] if node.tunnel else [])]:
            tunnel.close(GoAwayReason.REVOKED, "this device's key was revoked")

    def is_current(self, node: Node) -> bool:
        """Whether the node has not been revoked meanwhile."""
        return self._nodes.get(node.record.id) is node

    def confirm(self, node: Node, tunnel: Tunnel) -> None:
        """A tunnel's first record has authenticated: it takes the older one's place."""
        node.unconfirmed.discard(tunnel)
        older, node.tunnel = node.tunnel, tunnel
        node.last_seen = time.time()
        if older is not None:
            older.close(GoAwayReason.REPLACED, "a newer tunnel of this device took over")

    def lost(self, node: Node, tunnel: Tunnel) -> None:
        """A tunnel has ended."""
        node.unconfirmed.discard(tunnel)
        if node.tunnel is tunnel:
            node.tunnel = None
            node.last_seen = time.time()
