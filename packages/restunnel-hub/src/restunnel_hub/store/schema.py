"""The tables, and the version of their layout (SQLite's `user_version`)."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, LargeBinary, MetaData, String, Table

SCHEMA_VERSION: Final = 1

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
