"""What the store keeps beside nodes and tokens, and how older databases become new ones."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from restunnel_hub.store import NewEvent, Store
from restunnel_hub.store.ledger import MAX_EVENTS, OLDER, TRAFFIC_DAYS
from restunnel_hub.store.schema import HEAD, metadata
from restunnel_hub.usage import Traffic
from restunnel_protocol import PublicKey
from restunnel_protocol.program.errors import ProgramError

NOW = 1_795_910_400.0  # 2026-11-29 00:00 UTC
KEY = bytes(range(32))

FIRST_LAYOUT = """
CREATE TABLE nodes (
    id VARCHAR NOT NULL PRIMARY KEY, name VARCHAR NOT NULL UNIQUE, "group" VARCHAR NOT NULL,
    public_key BLOB NOT NULL UNIQUE, timestamp BIGINT NOT NULL, enrolled_at FLOAT NOT NULL,
    last_seen FLOAT, last_address VARCHAR NOT NULL
);
CREATE TABLE tokens (
    hash BLOB NOT NULL PRIMARY KEY, id VARCHAR NOT NULL UNIQUE, name VARCHAR NOT NULL,
    "group" VARCHAR NOT NULL, created_at FLOAT NOT NULL, expires_at FLOAT NOT NULL,
    used_at FLOAT, node_id VARCHAR
);
PRAGMA user_version = 1;
"""


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "hub.sqlite3")
    yield store
    store.close()


def old_database(path: Path, statements: str = FIRST_LAYOUT) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
        connection.execute(
            "INSERT INTO nodes VALUES ('1', 'phone', 'home', ?, 77, 1.0, 2.0, '192.0.2.1')", (KEY,)
        )
        connection.commit()


def layout_differences(path: Path) -> list[object]:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    return differences


def test_a_database_of_the_first_layout_is_brought_to_the_newest_with_all_it_holds(tmp_path):
    path = tmp_path / "hub.sqlite3"
    old_database(path)
    store = Store(path)
    (node,) = store.nodes()
    assert (node.name, node.group, node.public_key) == ("phone", "home", PublicKey(KEY))
    assert (node.timestamp, node.note, node.drained, node.max_day) == (77, "", False, None)
    store.close()
    assert layout_differences(path) == []
    Store(path).close()  # and is taken as it is from then on


def test_a_new_database_is_the_same_as_one_that_was_migrated(tmp_path):
    Store(tmp_path / "new.sqlite3").close()
    assert layout_differences(tmp_path / "new.sqlite3") == []
    with closing(sqlite3.connect(tmp_path / "new.sqlite3")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path):
    path = tmp_path / "hub.sqlite3"
    old_database(path, FIRST_LAYOUT + "CREATE TABLE events (no INTEGER);")
    before = path.read_bytes()
    with pytest.raises(ProgramError, match="cannot use the database"):
        Store(path)
    assert path.read_bytes() == before


def test_a_newer_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "hub.sqlite3"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(ProgramError, match="was written by a newer restunnel-hub"):
        Store(path)
    assert path.read_bytes() == before


def test_somebody_elses_database_is_refused(tmp_path):
    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    with pytest.raises(ProgramError, match="is not a hub's database"):
        Store(path)


def test_traffic_adds_up_by_node_day_and_month(store):
    ledger = store.ledger
    ledger.add_traffic({"1": {"2026-11-01": Traffic(1, 2, 3)}}, {}, NOW)
    ledger.add_traffic({"1": {"2026-11-29": Traffic(10, 20, 30)}}, {}, NOW)
    ledger.add_traffic({"1": {"2026-11-29": Traffic(100, 200, 300)}, "2": {}}, {}, NOW)
    ledger.add_traffic({"1": {"2026-10-31": Traffic(5, 5, 5)}}, {}, NOW)
    usage = ledger.usages(NOW)["1"]
    assert usage.total == Traffic(116, 227, 338)
    assert (usage.day, usage.day_bytes, usage.month_bytes) == ("2026-11-29", 330, 333)
    assert [day for day, _ in ledger.days("1")] == ["2026-10-31", "2026-11-01", "2026-11-29"]
    assert ledger.days("nobody") == []


def test_days_long_past_are_added_up(store):
    ledger = store.ledger
    for day in ("2020-01-01", "2020-01-02", "2026-11-28"):
        ledger.add_traffic({"1": {day: Traffic(1, 1, 1)}}, {}, NOW)
    for _ in range(2):
        ledger.fold_traffic(NOW)
        assert ledger.days("1") == [(OLDER, Traffic(2, 2, 2)), ("2026-11-28", Traffic(1, 1, 1))]
    assert ledger.usages(NOW)["1"].total == Traffic(3, 3, 3)
    assert TRAFFIC_DAYS > 366


def test_clients_keep_their_counters_and_passwords_are_only_hashes(store):
    ledger = store.ledger
    assert ledger.add_client("crawler", b"hash", NOW)
    assert not ledger.add_client("crawler", b"other", NOW)
    assert ledger.accounts() == [(b"hash", "crawler")]
    ledger.add_traffic({}, {"crawler": Traffic(1, 2, 3), "": Traffic(4, 5, 6)}, NOW)
    ledger.add_traffic({}, {"crawler": Traffic(1, 2, 3)}, NOW + 1)
    assert [(client.name, client.traffic, client.last_seen) for client in ledger.clients()] == [
        ("", Traffic(4, 5, 6), NOW),
        ("crawler", Traffic(2, 4, 6), NOW + 1),
    ]
    assert ledger.accounts() == [(b"hash", "crawler")]
    assert ledger.remove_client("crawler")
    assert not ledger.remove_client("crawler")
    assert ledger.accounts() == []


def test_events_are_numbered_filtered_and_forgotten_in_time(store):
    ledger = store.ledger
    ledger.add_events(
        [NewEvent(NOW, "connected", "1", "phone"), NewEvent(NOW, "lost", "1", "phone")]
    )
    assert [event.kind for event in ledger.events()] == ["connected", "lost"]
    assert [event.number for event in ledger.events(kind="lost")] == [2]
    assert ledger.events(node_id="2") == []
    assert [event.number for event in ledger.events(after=1)] == [2]
    assert [event.number for event in ledger.events(limit=1)] == [2]
    ledger.add_events([NewEvent(NOW, "started")] * MAX_EVENTS)
    assert len(ledger.events(limit=MAX_EVENTS * 2)) == MAX_EVENTS
    assert ledger.events(limit=MAX_EVENTS)[0].number == 3


def test_enrolling_and_revoking_leave_their_events(store):
    now = time.time()
    store.add_token(b"hash", "phone", "", now, now + 900)
    node = store.enrol(b"hash", PublicKey(KEY), 5, "device", "192.0.2.1", now)
    store.ledger.add_traffic({node.id: {"2026-11-29": Traffic(1, 1, 1)}}, {}, NOW)
    store.revoke(node.id)
    store.revoke(node.id)
    told = [(event.kind, event.node, event.detail) for event in store.ledger.events()]
    assert told == [("enrolled", "phone", "from 192.0.2.1"), ("revoked", "phone", "")]
    assert store.ledger.usages(NOW) == {}


def test_properties_are_set_and_taken_away(store):
    ledger = store.ledger
    assert ledger.property("colour") is None
    ledger.set_property("colour", "red")
    ledger.set_property("colour", "blue")
    assert ledger.property("colour") == "blue"
    ledger.set_property("colour", None)
    assert ledger.property("colour") is None
