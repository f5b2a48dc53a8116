"""Nodes and enrolment tokens. Every change is on disk before it is acknowledged.

An acknowledged revocation or used token never comes back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from restunnel_protocol import PublicKey

from .database import open_database
from .ledger import Ledger, NewEvent, add_event
from .schema import nodes, tokens, traffic

DEFAULT_NAME = "device"


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A paired node. Times are Unix seconds; `timestamp` is HELLO's, in nanoseconds."""

    id: str
    name: str
    group: str
    public_key: PublicKey
    timestamp: int
    enrolled_at: float
    last_seen: float | None
    last_address: str
    note: str = ""
    drained: bool = False
    """It is to take no new streams."""
    max_streams: int | None = None
    max_day: int | None = None
    """Bytes of its tunnels in a day (UTC), both directions; None: no limit."""
    max_month: int | None = None
    bandwidth: int | None = None
    """Bytes a second, in each direction."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An enrolment token that was issued; its secret is not known here."""

    id: str
    name: str
    group: str
    expires_at: float
    used_at: float | None
    node_id: str | None


class Store:
    """Synchronous; use it from one thread only (`StoreThread`)."""

    def __init__(self, path: Path) -> None:
        """Open or create the database. Raises `ProgramError`; a bad file is left as it is."""
        self._engine = open_database(path)
        self.ledger = Ledger(self._engine)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    # --- nodes -----------------------------------------------------------------------

    def nodes(self) -> list[NodeRecord]:
        """All paired nodes, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(nodes).order_by(nodes.c.enrolled_at, nodes.c.id))
            return [_node(row) for row in rows]

    def raise_timestamp(self, node_id: str, timestamp: int, address: str, now: float) -> bool:
        """A node connects: store its greater timestamp, and when and from where it came.

        False, and nothing is stored, if the timestamp is not greater or the node is gone.
        """
        change = (
            update(nodes)
            .where(nodes.c.id == node_id, nodes.c.timestamp < timestamp)
            .values(timestamp=timestamp, last_seen=now, last_address=address)
        )
        with self._engine.begin() as connection:
            return connection.execute(change).rowcount == 1

    def change(self, node_id: str, **fields: Any) -> bool:
        """New values of a node's fields; False if another node has that name."""
        with self._engine.begin() as connection:
            if "name" in fields:
                taken = select(nodes.c.id).where(
                    nodes.c.name == fields["name"], nodes.c.id != node_id
                )
                if connection.execute(taken).first():
                    return False
            connection.execute(update(nodes).where(nodes.c.id == node_id).values(fields))
            return True

    def revoke(self, node_id: str) -> None:
        """Forget a node's key for good, and what it has carried."""
        with self._engine.begin() as connection:
            name = connection.execute(select(nodes.c.name).where(nodes.c.id == node_id)).scalar()
            if name is None:
                return
            connection.execute(delete(nodes).where(nodes.c.id == node_id))
            connection.execute(delete(traffic).where(traffic.c.node_id == node_id))
            add_event(connection, NewEvent(time.time(), "revoked", node_id, name))

    def forget_tokens(self) -> None:
        """After a restore: links that were used since the backup must not live again."""
        with self._engine.begin() as connection:
            connection.execute(delete(tokens))

    # --- tokens ----------------------------------------------------------------------

    def add_token(
        self, token_hash: bytes, name: str, group: str, now: float, expires_at: float
    ) -> TokenRecord:
        """Remember a token that was just made; forget those long dead."""
        token_id = secrets.token_hex(8)
        row = {
            "hash": token_hash,
            "id": token_id,
            "name": name,
            "group": group,
            "created_at": now,
            "expires_at": expires_at,
        }
        with self._engine.begin() as connection:
            connection.execute(delete(tokens).where(tokens.c.expires_at < now - 86400))
            connection.execute(insert(tokens).values(row))
        return TokenRecord(token_id, name, group, expires_at, None, None)

    def token(self, token_id: str) -> TokenRecord | None:
        """A token by its id."""
        with self._engine.connect() as connection:
            row = connection.execute(select(tokens).where(tokens.c.id == token_id)).first()
        if row is None:
            return None
        return TokenRecord(row.id, row.name, row.group, row.expires_at, row.used_at, row.node_id)

    def enrol(
        self,
        token_hash: bytes,
        public_key: PublicKey,
        timestamp: int,
        suggested_name: str,
        address: str,
        now: float,
    ) -> NodeRecord | None:
        """Burn a live token and store the key, both or neither; None if it is not live.

        A key that is known already keeps its id and takes the token's name and group.
        """
        live = update(tokens).where(
            tokens.c.hash == token_hash, tokens.c.used_at.is_(None), tokens.c.expires_at > now
        )
        with self._engine.begin() as connection:
            known = connection.execute(
                select(nodes).where(nodes.c.public_key == public_key.raw)
            ).first()
            if known is not None and known.timestamp >= timestamp:
                return None
            node_id = known.id if known is not None else secrets.token_hex(8)
            if connection.execute(live.values(used_at=now, node_id=node_id)).rowcount != 1:
                return None
            token = connection.execute(select(tokens).where(tokens.c.hash == token_hash)).one()
            wanted = token.name or (known.name if known is not None else suggested_name)
            row = {
                "name": _free_name(connection, wanted or DEFAULT_NAME, node_id),
                "group": token.group,
                "timestamp": timestamp,
                "last_seen": now,
                "last_address": address,
            }
            if known is not None:
                connection.execute(update(nodes).where(nodes.c.id == node_id).values(row))
            else:
                own = {"id": node_id, "public_key": public_key.raw, "enrolled_at": now}
                connection.execute(insert(nodes).values(**own, **row))
            event = NewEvent(now, "enrolled", node_id, row["name"], f"from {address}")
            add_event(connection, event)
            return _node(connection.execute(select(nodes).where(nodes.c.id == node_id)).one())


def _free_name(connection: Connection, wanted: str, node_id: str) -> str:
    """`wanted`, or `wanted-2` and so on if another node has it."""
    taken: Callable[[str], Any] = lambda name: connection.execute(  # noqa: E731
        select(nodes.c.id).where(nodes.c.name == name, nodes.c.id != node_id)
    ).first()
    name, number = wanted, 1
    while taken(name):
        number += 1
        name = f"{wanted}-{number}"
    return name


def _node(row: Any) -> NodeRecord:
    return NodeRecord(
        row.id,
        row.name,
        row.group,
        PublicKey(row.public_key),
        row.timestamp,
        row.enrolled_at,
        row.last_seen,
        row.last_address,
        row.note,
        row.drained,
        row.max_streams,
        row.max_day,
        row.max_month,
        row.bandwidth,
    )
