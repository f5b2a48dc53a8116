"""`restunnel-hub backup` and `restore`: key, database and configuration in one file."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sqlite3
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Final

from restunnel_protocol.program.errors import ExitCode, ProgramError, describe_os_error
from restunnel_protocol.program.files import lock, write_private

from ..config import Paths, open_paths
from .common import call, connect_read_only

MANIFEST: Final = "restunnel-hub.json"
KEY, DATABASE, CONFIG = "hub_key.bin", "hub.sqlite3", "hub.toml"
MAX_MEMBER: Final = 1 << 30
"""Bytes of one file in a backup."""


def backup(arguments: argparse.Namespace) -> int:
    """Write everything that makes this hub what it is; also while it runs."""
    paths = open_paths(arguments)
    if not paths.key.exists() or not paths.database.exists():
        raise ProgramError(f"there is no hub in {paths.directory}")
    _settle(arguments)
    manifest = json.dumps({"made_at": time.time(), "format": 1}).encode()
    members = {MANIFEST: manifest, KEY: paths.key.read_bytes(), DATABASE: _snapshot(paths)}
    if paths.config.exists():
        members[CONFIG] = paths.config.read_bytes()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
            archive.addfile(info, io.BytesIO(data))
    try:
        write_private(arguments.file, content.getvalue(), replace=False)
    except FileExistsError as error:
        raise ProgramError(f"{arguments.file} exists already") from error
    print(f"saved to {arguments.file}", file=sys.stderr)
    print("hint: whoever has that file can be this hub: keep it safe", file=sys.stderr)
    return ExitCode.OK


def _settle(arguments: argparse.Namespace) -> None:
    """Have a running hub write what it has counted."""
    try:
        call(arguments, "GET", "/clients")
    except ProgramError as error:
        if error.code is not ExitCode.NOT_RUNNING:
            raise


def _snapshot(paths: Paths) -> bytes:
    """The database as of one moment, whether somebody writes to it or not."""
    with tempfile.TemporaryDirectory(dir=paths.directory) as directory:
        copy = Path(directory) / DATABASE
        try:
            with (
                contextlib.closing(connect_read_only(paths.database)) as source,
                contextlib.closing(sqlite3.connect(copy)) as destination,
            ):
                source.backup(destination)
        except sqlite3.DatabaseError as error:
            raise ProgramError(f"cannot read the database {paths.database}: {error}") from error
        return copy.read_bytes()


def restore(arguments: argparse.Namespace) -> int:
    """Make this data directory what the backup says."""
    from ..store import Store

    paths = open_paths(arguments)
    with lock(paths.lock, "a hub"):
        present = [path for path in (paths.key, paths.database) if path.exists()]
        if present and not arguments.force:
            raise ProgramError(
                f"there is a hub in {paths.directory} already",
                hint="choose another --data-dir, or --force to put the old files aside",
            )
        members = _read(arguments.file)
        with tempfile.TemporaryDirectory(dir=paths.directory) as directory:
            fresh = Paths(Path(directory))
            write_private(fresh.key, members[KEY])
            write_private(fresh.database, members[DATABASE])
            _check_key(fresh)
            store = Store(fresh.database)  # checked, and brought to this version's layout
            store.forget_tokens()
            names = [node.name for node in store.nodes()]
            store.close()
            _put_aside(paths)
            for name in (KEY, DATABASE):
                (fresh.directory / name).replace(paths.directory / name)
        if CONFIG in members:
            write_private(paths.config, members[CONFIG])
    made_at = json.loads(members[MANIFEST])["made_at"]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made_at))
    print(f"restored as of {when}: {', '.join(names) or 'no nodes'}", file=sys.stderr)
    print("hint: whoever was revoked after that is paired again; revoke again", file=sys.stderr)
    return ExitCode.OK


def _read(path: Path) -> dict[str, bytes]:
    """The files of a backup. Raises `ProgramError` if it is none."""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path, mode="r:") as archive:
            for info in archive:
                known = info.name in (MANIFEST, KEY, DATABASE, CONFIG)
                if known and info.isreg() and info.size <= MAX_MEMBER:
                    file = archive.extractfile(info)
                    assert file is not None  # it is a regular file
                    members[info.name] = file.read()
    except tarfile.TarError as error:
        raise ProgramError(f"{path} is not a backup of a hub: {error}") from error
    except OSError as error:
        raise ProgramError(f"cannot read {path}: {describe_os_error(error)}") from error
    if not {MANIFEST, KEY, DATABASE} <= set(members):
        raise ProgramError(f"{path} is not a backup of a hub, or not a whole one")
    return members


def _check_key(paths: Paths) -> None:
    from restunnel_protocol.program.keyfile import parse_key

    parse_key(paths.key, paths.key.read_bytes())


def _put_aside(paths: Paths) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for path in (paths.key, paths.database, paths.config):
        if path.exists():
            path.rename(path.with_name(f"{path.name}.before-{stamp}"))
