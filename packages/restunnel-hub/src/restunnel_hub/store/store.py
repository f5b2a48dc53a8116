"""The database, one connection, every change on disk before it is acknowledged.

Rollback journal and `synchronous=FULL`: SQLite's WAL mode has a bug up to 3.51.2
that can lose an acknowledged commit, and Python bundles older ones (decision
0003). An acknowledged revocation or used token never comes back.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from restunnel_protocol import PublicKey
from restunnel_protocol.program.errors import ProgramError, describe_os_error

from .schema import SCHEMA_VERSION, metadata, nodes, tokens

DEFAULT_NAME = "device"
DAMAGED_HINT = (
    "nothing was changed; restore the file from a backup, or move it away to start anew"
    " (every device must then be paired again)"
)


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
        self._path = path
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise ProgramError(
                f"cannot use the database {path}: {describe_os_error(error)}"
            ) from error
        self._engine = create_engine(
            f"sqlite:///{path}",
            poolclass=StaticPool,
            connect_args={"check_same_thread": False},
        )
        event.listen(self._engine, "connect", _configure)
        try:
            with self._engine.begin() as connection:
                self._check(connection)
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except (DatabaseError, sqlite3.DatabaseError) as error:
            reason = getattr(error, "orig", None) or error
            raise ProgramError(
                f"cannot use the database {path}: {reason}", hint=DAMAGED_HINT
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def _check(self, connection: Connection) -> None:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version > SCHEMA_VERSION:
            raise ProgramError(
                f"the database {self._path} was written by a newer restunnel-hub",
                hint="install that version again; nothing was changed",
            )
        report = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if report != "ok":
            found = report.splitlines()[-1]  # a heading may come before it
            raise ProgramError(f"the database {self._path} is damaged: {found}", hint=DAMAGED_HINT)

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

    def rename(self, node_id: str, name: str) -> bool:
        """Give a node a name; False if another node has it."""
        with self._engine.begin() as connection:
            taken = select(nodes.c.id).where(nodes.c.name == name, nodes.c.id != node_id)
            if connection.execute(taken).first():
                return False
            connection.execute(update(nodes).where(nodes.c.id == node_id).values(name=name))
            return True

    def regroup(self, node_id: str, group: str) -> None:
        """Put a node into a group; empty: into none."""
        with self._engine.begin() as connection:
            connection.execute(update(nodes).where(nodes.c.id == node_id).values(group=group))

    def revoke(self, node_id: str) -> None:
        """Forget a node's key for good."""
        with self._engine.begin() as connection:
            connection.execute(nodes.delete().where(nodes.c.id == node_id))

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
            connection.execute(tokens.delete().where(tokens.c.expires_at < now - 86400))
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
            if known is not None:
                connection.execute(nodes.delete().where(nodes.c.id == node_id))
            wanted = token.name or (known.name if known is not None else suggested_name)
            row = {
                "id": node_id,
                "name": _free_name(connection, wanted or DEFAULT_NAME),
                "group": token.group,
                "public_key": public_key.raw,
                "timestamp": timestamp,
                "enrolled_at": known.enrolled_at if known is not None else now,
                "last_seen": now,
                "last_address": address,
            }
            connection.execute(insert(nodes).values(row))
            return _node(connection.execute(select(nodes).where(nodes.c.id == node_id)).one())


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = FULL")


def _free_name(connection: Connection, wanted: str) -> str:
    """`wanted`, or `wanted-2` and so on if it is taken."""
    taken: Callable[[str], Any] = lambda name: connection.execute(  # noqa: E731
        select(nodes.c.id).where(nodes.c.name == name)
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
    )
