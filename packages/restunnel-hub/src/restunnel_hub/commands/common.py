"""What the commands share: the way to the running hub, tables, times."""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def call(
    arguments: argparse.Namespace, method: str, resource: str, body: dict[str, Any] | None = None
) -> Any:
    """Ask the running hub. Raises `ProgramError`."""
    from ..client import request
    from ..config import open_paths

    return request(open_paths(arguments).socket, method, resource, body)


def connect_read_only(database: Path) -> sqlite3.Connection:
    """A database that a hub may be writing to. Raises `sqlite3.Error`."""
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)


def print_json(document: Any) -> None:
    """One JSON document, at once."""
    print(json.dumps(document), flush=True)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def when(seconds: float | None) -> str:
    """A time of this machine's clock."""
    if seconds is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
