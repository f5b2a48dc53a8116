"""`restunnel-hub doctor`: what keeps this hub from working, and what to do about it."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from restunnel_protocol import Endpoint
from restunnel_protocol.limits import MIN_MESSAGE_1
from restunnel_protocol.program.checks import (
    Finding,
    bad,
    check_clock,
    check_descriptors,
    check_private,
    doubtful,
    good,
    report,
)
from restunnel_protocol.program.errors import ExitCode, ProgramError, describe_os_error

from ..config import LISTENERS, Config, Paths, load_config, open_paths
from ..listening import bind
from .common import call, connect_read_only

DESCRIPTORS: Final = 4096
"""What a household's nodes and a crawler's connections need."""

PROBE_TIMEOUT: Final = 5.0
"""Seconds for a connection to the tunnel port."""

FUTURE: Final = 120.0
"""Seconds by which the database may be ahead of the clock."""


def doctor(arguments: argparse.Namespace) -> int:
    """Look at everything that can be looked at."""
    paths = open_paths(arguments)
    findings = list(_files(paths))
    findings += [check_clock(), check_descriptors(DESCRIPTORS)]
    try:
        config = load_config(paths, arguments)
        findings.append(good("configuration", "understood"))
    except ProgramError as error:
        findings.append(bad("configuration", error.message, error.hint or "mend it"))
        return report(findings, as_json=arguments.json)
    try:
        status: dict[str, Any] = call(arguments, "GET", "/status")
    except ProgramError as error:
        if error.code is not ExitCode.NOT_RUNNING:
            findings.append(bad("hub", error.message, "stop it and start it again"))
        else:
            remedy = "start it with `restunnel-hub run`, or as a service"
            findings.append(doubtful("hub", "not running", remedy))
            findings += _free_ports(config)
    else:
        findings.append(good("hub", f"running, version {status['version']}"))
        findings += _running(arguments, config, status)
    return report(findings, as_json=arguments.json)


def _files(paths: Paths) -> Iterator[Finding]:
    yield check_private(paths.directory, 0o700)
    for path in (paths.key, paths.database, paths.socket):
        yield check_private(path, 0o600)
    if paths.database.exists():
        yield _database(paths)
        free = os.statvfs(paths.directory)
        if free.f_bavail * free.f_frsize < 100 << 20:
            yield bad("disk", "less than 100 MiB free", "make room: keys and tokens must be kept")


def _database(paths: Paths) -> Finding:
    restore = "restore it from a backup (`restunnel-hub restore`)"
    try:
        with closing(connect_read_only(paths.database)) as database:
            found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
            newest = database.execute("SELECT max(last_seen) FROM nodes").fetchone()[0]
    except sqlite3.Error as error:
        return bad("database", str(error), restore)
    if found != "ok":
        return bad("database", f"damaged: {found.splitlines()[-1]}", restore)
    if newest is not None and newest > time.time() + FUTURE:
        return bad("clock", "nodes were seen in the future: it was set back", "set it right")
    return good("database", "whole")


def _free_ports(config: Config) -> Iterator[Finding]:
    for name in LISTENERS:
        listen = getattr(config, name)
        try:
            bind(listen, f"--{name}").close()
        except ProgramError as error:
            yield bad(name, error.message, error.hint or "choose another address")
        else:
            yield good(name, f"{listen} is free")


def _running(
    arguments: argparse.Namespace, config: Config, status: dict[str, Any]
) -> Iterator[Finding]:
    for name, address in status["listeners"].items():
        yield good(name, f"listening on {address}")
    if not status["nodes"]:
        yield doubtful("nodes", "none is paired", "run `restunnel-hub pair` and scan the code")
    elif not status["online"]:
        yield doubtful("nodes", "none is connected", "look at `restunnel-node doctor` there")
    else:
        yield good("nodes", f"{status['online']} of {status['nodes']} connected")
    for text in call(arguments, "GET", "/endpoints"):
        yield _reach(arguments, Endpoint.parse(text, 9000))


def _reach(arguments: argparse.Namespace, endpoint: Endpoint) -> Finding:
    """Whether what goes into pairing links leads to this hub: it says what has come in.

    The bytes are the beginning of a message 1, so the hub waits for more of them; to
    whoever is on the way they are noise like any stranger's.
    """
    sent = MIN_MESSAGE_1.to_bytes(2, "big") + secrets.token_bytes(20)
    name = f"tunnel port at {endpoint}"
    remedy = f"forward TCP port {endpoint.port} to this machine, open its firewall, or --advertise"
    try:
        with socket.create_connection((endpoint.host, endpoint.port), PROBE_TIMEOUT) as sock:
            sock.sendall(sent)
            deadline = time.monotonic() + PROBE_TIMEOUT
            while time.monotonic() < deadline:
                if call(arguments, "POST", "/probes", {"sent": sent.hex()})["seen"]:
                    return good(name, "leads here, seen from this machine")
                time.sleep(0.1)
    except OSError as error:
        return bad(name, f"cannot be reached: {describe_os_error(error)}", remedy)
    return bad(name, "leads to something else", remedy)
