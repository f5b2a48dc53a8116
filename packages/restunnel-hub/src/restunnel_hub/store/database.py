"""The database file: opened, checked, and brought to the layout of this version.

One connection, rollback journal and `synchronous=FULL`: SQLite's WAL mode has a bug up
to 3.51.2 that can lose an acknowledged commit, and Python bundles older ones (decision
0003). Every transaction begins in so many words, also around changes of tables, so
that a migration that is cut short leaves the layout that was there before.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from restunnel_protocol.program.errors import ProgramError, describe_os_error

from .schema import HEAD, alembic_version, metadata

FIRST = "0001"
"""The layout of databases that do not say theirs."""

DAMAGED_HINT = (
    "nothing was changed; restore the file from a backup, or move it away to start anew"
    " (every device must then be paired again)"
)


def open_database(path: Path) -> Engine:
    """Open or create the database. Raises `ProgramError`; a bad file is left as it is."""
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise ProgramError(f"cannot use the database {path}: {describe_os_error(error)}") from error
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            check_integrity(connection, path)
            _bring_to_head(connection, path)
    except (DatabaseError, sqlite3.DatabaseError) as error:
        engine.dispose()
        reason = getattr(error, "orig", None) or error
        raise ProgramError(
            f"cannot use the database {path}: {reason}", hint=DAMAGED_HINT
        ) from error
    except ProgramError:
        engine.dispose()
        raise
    return engine


def check_integrity(connection: Connection, path: Path) -> None:
    """Raises `ProgramError` if SQLite finds the file damaged."""
    report = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if report != "ok":
        found = report.splitlines()[-1]  # a heading may come before it
        raise ProgramError(f"the database {path} is damaged: {found}", hint=DAMAGED_HINT)


def _bring_to_head(connection: Connection, path: Path) -> None:
    tables = set(inspect(connection).get_table_names())
    if not tables:
        metadata.create_all(connection)
        connection.execute(insert(alembic_version).values(version_num=HEAD))
        return
    if "nodes" not in tables:
        raise ProgramError(f"{path} is not a hub's database", hint=DAMAGED_HINT)
    revision = FIRST
    if alembic_version.name in tables:
        revision = connection.execute(select(alembic_version.c.version_num)).scalar_one()
    if revision == HEAD:
        return
    _migrate(connection, path, said=alembic_version.name in tables)


def _migrate(connection: Connection, path: Path, *, said: bool) -> None:
    """Run the migrations that are due; alembic takes most of a second to import."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    try:
        if not said:
            command.stamp(config, FIRST)
        command.upgrade(config, HEAD)
    except CommandError as error:  # a revision that is not among ours
        raise ProgramError(
            f"the database {path} was written by a newer restunnel-hub",
            hint="install that version again; nothing was changed",
        ) from error


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver would leave table changes outside transactions
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
