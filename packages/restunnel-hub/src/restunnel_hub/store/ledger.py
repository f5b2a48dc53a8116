"""Traffic, clients, events and properties: what the store keeps beside nodes and tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from ..usage import Traffic, Usage, today
from .schema import clients, events, properties, traffic

MAX_EVENTS: Final = 20_000
"""Events that are kept; the oldest go first."""

TRAFFIC_DAYS: Final = 400
"""Days of traffic that are kept one by one; what is older is added up in day `0000-00-00`."""

OLDER: Final = "0000-00-00"


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client's account and what it has carried. Times are Unix seconds."""

    name: str
    created_at: float
    last_seen: float | None
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened, `count` times until `at` (Unix seconds). `number` rises."""

    number: int
    at: float
    kind: str
    node_id: str
    node: str
    detail: str
    count: int


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that is not in the store yet."""

    at: float
    kind: str
    node_id: str = ""
    node: str = ""
    detail: str = ""
    count: int = 1


class Ledger:
    """Synchronous, on the store's engine and thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- traffic ---------------------------------------------------------------------

    def usages(self, now: float | None = None) -> dict[str, Usage]:
        """What each node has carried so far, by its id."""
        day = today(now)
        sums = [func.sum(traffic.c[name]) for name in ("received", "sent", "streams")]
        bytes_ = func.sum(traffic.c.received + traffic.c.sent)
        found: dict[str, Usage] = {}
        with self._engine.connect() as connection:
            for node_id, received, sent, streams in connection.execute(
                select(traffic.c.node_id, *sums).group_by(traffic.c.node_id)
            ):
                found[node_id] = Usage(Traffic(received, sent, streams), day)
            by_node = select(traffic.c.node_id, bytes_).group_by(traffic.c.node_id)
            for node_id, size in connection.execute(by_node.where(traffic.c.day == day)):
                found[node_id].day_bytes = size
            month = traffic.c.day.startswith(day[:7])
            for node_id, size in connection.execute(by_node.where(month)):
                found[node_id].month_bytes = size
        return found

    def add_traffic(
        self,
        nodes: Mapping[str, Mapping[str, Traffic]],
        accounts: Mapping[str, Traffic],
        now: float,
    ) -> None:
        """More traffic: of nodes, by id and day, and of clients, by account."""
        with self._engine.begin() as connection:
            for node_id, days in nodes.items():
                for day, more in days.items():
                    _add(connection, traffic, {"node_id": node_id, "day": day}, more)
            for account, more in accounts.items():
                fresh = {"name": account, "created_at": now, "last_seen": now}
                _add(connection, clients, fresh, more, update={"last_seen": now})

    def days(self, node_id: str) -> list[tuple[str, Traffic]]:
        """One node's traffic day by day, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(traffic).where(traffic.c.node_id == node_id).order_by(traffic.c.day)
            )
            return [(row.day, Traffic(row.received, row.sent, row.streams)) for row in rows]

    def fold_traffic(self, now: float) -> None:
        """Add up days that nobody looks at one by one any more."""
        oldest = today(now - TRAFFIC_DAYS * 86400)
        old = (traffic.c.day < oldest) & (traffic.c.day > OLDER)
        with self._engine.begin() as connection:
            rows = connection.execute(select(traffic).where(old)).all()
            for row in rows:
                more = Traffic(row.received, row.sent, row.streams)
                _add(connection, traffic, {"node_id": row.node_id, "day": OLDER}, more)
            connection.execute(delete(traffic).where(old))

    # --- clients ---------------------------------------------------------------------

    def clients(self) -> list[ClientRecord]:
        """All clients, the one without a name first."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(clients).order_by(clients.c.name))
            return [
                ClientRecord(
                    row.name,
                    row.created_at,
                    row.last_seen,
                    Traffic(row.received, row.sent, row.streams),
                )
                for row in rows
            ]

    def accounts(self) -> list[tuple[bytes, str]]:
        """Hash of the password, and name, of each client that has one."""
        with self._engine.connect() as connection:
            query = select(clients.c.password_hash, clients.c.name)
            rows = connection.execute(query.where(clients.c.password_hash.is_not(None)))
            return [(row.password_hash, row.name) for row in rows]

    def add_client(self, name: str, password_hash: bytes, now: float) -> bool:
        """A client's account; False if there is one of that name."""
        row = {"name": name, "password_hash": password_hash, "created_at": now}
        with self._engine.begin() as connection:
            result = connection.execute(upsert(clients).values(row).on_conflict_do_nothing())
            return result.rowcount == 1

    def remove_client(self, name: str) -> bool:
        """Forget a client and its password; False if there is none."""
        with self._engine.begin() as connection:
            return connection.execute(delete(clients).where(clients.c.name == name)).rowcount == 1

    # --- events ----------------------------------------------------------------------

    def add_events(self, new: Iterable[NewEvent]) -> None:
        """Remember what happened; forget what is too long ago."""
        with self._engine.begin() as connection:
            for item in new:
                add_event(connection, item)
            newest = connection.execute(select(func.max(events.c.number))).scalar() or 0
            connection.execute(delete(events).where(events.c.number <= newest - MAX_EVENTS))

    def events(
        self, *, after: int = 0, limit: int = 100, kind: str = "", node_id: str = ""
    ) -> list[EventRecord]:
        """The last `limit` events whose number is greater than `after`, oldest first."""
        query = select(events).where(events.c.number > after)
        if kind:
            query = query.where(events.c.kind == kind)
        if node_id:
            query = query.where(events.c.node_id == node_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(events.c.number.desc()).limit(limit)).all()
        # Some are written a little later than others that happened after them.
        return sorted((EventRecord(*row) for row in rows), key=lambda e: (e.at, e.number))

    # --- properties ------------------------------------------------------------------

    def property(self, name: str) -> str | None:
        """A value that was set."""
        with self._engine.connect() as connection:
            query = select(properties.c.value).where(properties.c.name == name)
            return connection.execute(query).scalar()

    def set_property(self, name: str, value: str | None) -> None:
        """Set a value; None: forget it."""
        with self._engine.begin() as connection:
            connection.execute(delete(properties).where(properties.c.name == name))
            if value is not None:
                connection.execute(insert(properties).values(name=name, value=value))


def add_event(connection: Connection, new: NewEvent) -> None:
    """Within the caller's transaction."""
    connection.execute(
        insert(events).values(
            at=new.at,
            kind=new.kind,
            node_id=new.node_id,
            node=new.node,
            detail=new.detail,
            count=new.count,
        )
    )


def _add(
    connection: Connection,
    table: Any,
    row: dict[str, Any],
    more: Traffic,
    *,
    update: Mapping[str, Any] | None = None,
) -> None:
    """Count `more` in the row with this key, or begin one."""
    counters = {"received": more.received, "sent": more.sent, "streams": more.streams}
    statement = upsert(table).values(**row, **counters)
    changed = {name: table.c[name] + value for name, value in counters.items()}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[*table.primary_key], set_={**changed, **(update or {})}
        )
    )
