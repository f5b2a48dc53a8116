"""The nodes that are paired, and the tunnels that are up, in memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from restunnel_protocol import GoAwayReason, LocalError, PublicKey, Target
from restunnel_protocol.aio import StreamHandler, TunnelStream

from .routing import RouteFailure
from .store import NodeRecord
from .usage import Usage

if TYPE_CHECKING:
    from .tunnels import Tunnel


SUSPICION: Final = 30.0
"""Seconds for which other nodes are preferred to one that failed where they did not."""


@dataclass(eq=False, slots=True)
class Node:
    """A paired node: its record, its tunnel if it is online, and those not confirmed yet."""

    record: NodeRecord
    usage: Usage = field(default_factory=Usage)
    tunnel: Tunnel | None = None
    unconfirmed: set[Tunnel] = field(default_factory=set)
    last_seen: float | None = None
    suspect_until: float = 0.0
    quota_noted: str = ""
    """The day on which its being over quota was last put on record."""

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

    @property
    def address(self) -> str:
        """Where its tunnel comes from; where it last did, while there is none."""
        return self.tunnel.address if self.tunnel is not None else self.record.last_address

    @property
    def stream_count(self) -> int:
        return self.tunnel.stream_count if self.tunnel is not None else 0

    @property
    def unavailable(self) -> RouteFailure | None:
        """Why it takes no new stream; None: it does."""
        tunnel, record = self.tunnel, self.record
        if tunnel is None or tunnel.draining:
            return RouteFailure.OFFLINE
        if record.drained:
            return RouteFailure.DRAINED
        if record.max_streams is not None and tunnel.stream_count >= record.max_streams:
            return RouteFailure.FULL
        if self.over_quota:
            return RouteFailure.QUOTA
        return None

    @property
    def over_quota(self) -> bool:
        """Whether its bytes for this day or month are used up."""
        record = self.record
        if record.max_day is None and record.max_month is None:
            return False
        return self.usage.exceeds(record.max_day, record.max_month)

    @property
    def suspect(self) -> bool:
        """Whether it failed lately where another did not."""
        return bool(self.suspect_until) and time.monotonic() < self.suspect_until

    def suspect_for_a_while(self) -> None:
        """It failed where another did not."""
        self.suspect_until = time.monotonic() + SUSPICION

    @property
    def load(self) -> int:
        """For choosing the least loaded: open streams first, then all there were."""
        return (self.stream_count << 40) + self.usage.streams

    def open_stream(self, target: Target, handler: StreamHandler | None) -> TunnelStream:
        """A stream to the target. Raises `LocalError` if the node takes none."""
        if self.tunnel is None:
            raise LocalError("the node is not connected")
        stream = self.tunnel.open_stream(target, handler)
        self.usage.streams += 1
        return stream


class Registry:
    """All nodes by id and key. The event loop's thread only."""

    def __init__(
        self, records: Iterable[NodeRecord], usages: Mapping[str, Usage] | None = None
    ) -> None:
        usages = usages or {}
        self._nodes = {
            record.id: Node(record, usages.get(record.id, Usage()), last_seen=record.last_seen)
            for record in records
        }
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

    def change(self, node: Node, **fields: Any) -> None:
        """New values of the record's fields, as the store has them already."""
        node.record = replace(node.record, **fields)
        if node.tunnel is not None:
            node.tunnel.limit_rate(node.record.bandwidth)

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
