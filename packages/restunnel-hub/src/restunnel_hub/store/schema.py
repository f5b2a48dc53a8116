"""The tables as they are now; `migrations/` leads here from every earlier layout."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    false,
)

HEAD: Final = "0002"
"""The revision of this layout: the newest file in `migrations/versions`."""

metadata = MetaData()

nodes = Table(
    "nodes",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("group", String, nullable=False),
    Column("public_key", LargeBinary, nullable=False, unique=True),
    Column("timestamp", BigInteger, nullable=False),  # greatest of HELLO, ns: the replay guard
    Column("enrolled_at", Float, nullable=False),  # times are Unix seconds
    Column("last_seen", Float),
    Column("last_address", String, nullable=False),
    Column("note", String, nullable=False, server_default=""),
    Column("drained", Boolean, nullable=False, server_default=false()),
    Column("max_streams", Integer),  # limits; none where NULL
    Column("max_day", BigInteger),  # bytes
    Column("max_month", BigInteger),
    Column("bandwidth", BigInteger),  # bytes a second, in each direction
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True),  # SHA-256: the token itself is not kept
    Column("id", String, nullable=False, unique=True),
    Column("name", String, nullable=False),  # empty: what the device suggests
    Column("group", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("used_at", Float),
    Column("node_id", String),
)

traffic = Table(
    "traffic",
    metadata,
    Column("node_id", String, primary_key=True),
    Column("day", String, primary_key=True),  # UTC, as in 2026-11-22
    Column("received", BigInteger, nullable=False),  # bytes of the tunnel, from the node
    Column("sent", BigInteger, nullable=False),
    Column("streams", BigInteger, nullable=False),
)

clients = Table(
    "clients",
    metadata,
    Column("name", String, primary_key=True),  # empty: clients without an account
    Column("password_hash", LargeBinary, unique=True),  # SHA-256 of 160 random bits
    Column("created_at", Float, nullable=False),
    Column("last_seen", Float),
    Column("received", BigInteger, nullable=False, server_default="0"),  # from the client
    Column("sent", BigInteger, nullable=False, server_default="0"),
    Column("streams", BigInteger, nullable=False, server_default="0"),
)

events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("node_id", String, nullable=False),
    Column("node", String, nullable=False),  # its name at that time
    Column("detail", String, nullable=False),
    Column("count", Integer, nullable=False, server_default="1"),
    Index("events_by_kind", "kind"),
    sqlite_autoincrement=True,  # numbers are not used again: `events --follow` goes by them
)

properties = Table(
    "properties",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)

alembic_version = Table(
    "alembic_version", metadata, Column("version_num", String(32), primary_key=True)
)
"""Alembic's own; here because a new database is made without it."""
