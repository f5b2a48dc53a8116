"""`restunnel-node doctor`: what keeps this device from serving, and what to do about it."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from typing import Any, Final

from restunnel_protocol import Endpoint
from restunnel_protocol.program.checks import (
    Finding,
    bad,
    check_clock,
    check_descriptors,
    check_private,
    doubtful,
    good,
)
from restunnel_protocol.program.errors import ExitCode, ProgramError, describe_os_error

from .config import Paths, load_config, open_paths
from .control import ask
from .hubs import Hub, HubFile
from .policy import OwnerPolicy

DESCRIPTORS: Final = 1024
"""What a few hundred connections need."""

PROBE_TIMEOUT: Final = 5.0
"""Seconds for a connection to a hub."""


def examine(arguments: argparse.Namespace) -> list[Finding]:
    """Look at everything that can be looked at."""
    paths = open_paths(arguments)
    findings = [check_private(paths.directory, 0o700)]
    findings += [
        check_private(path, 0o600) for path in (paths.key, paths.hubs, paths.policy, paths.socket)
    ]
    findings += [check_clock(), check_descriptors(DESCRIPTORS)]
    findings += _settings(paths, arguments)
    try:
        hubs = [hub for hub in HubFile(paths.hubs).load() if hub.paired]
    except ProgramError as error:
        return [*findings, bad("hubs", error.message, error.hint)]
    if not hubs:
        remedy = "run `restunnel-hub pair` on the server and `restunnel-node pair LINK` here"
        return [*findings, bad("hubs", "paired with none", remedy)]
    return [*findings, *_hubs(paths, hubs)]


def _settings(paths: Paths, arguments: argparse.Namespace) -> Iterator[Finding]:
    try:
        config = load_config(paths, arguments)
        OwnerPolicy(paths.policy, config.rules).current()
    except ProgramError as error:
        yield bad("configuration", error.message, error.hint or "mend it")
    else:
        yield good("configuration", "understood")


def _hubs(paths: Paths, hubs: list[Hub]) -> Iterator[Finding]:
    try:
        states = {hub["hub"]: hub for hub in ask(paths.socket, "status")["hubs"]}
    except ProgramError as error:
        if error.code is not ExitCode.NOT_RUNNING:
            yield bad("node", error.message, "stop it and start it again")
        else:
            remedy = "start it with `restunnel-node run`, or as a service"
            yield doubtful("node", "not running", remedy)
        for hub in hubs:
            yield from (_reach(endpoint) for endpoint in hub.endpoints)
        return
    yield good("node", "running")
    for hub in hubs:
        yield _state(hub, states.get(hub.label, {"state": "not taken up", "problem": ""}))


def _state(hub: Hub, status: dict[str, Any]) -> Finding:
    if status["state"] == "online":
        return good(f"hub {hub.label}", "connected")
    found = [_reach(endpoint) for endpoint in hub.endpoints]
    if all(finding.state == "failure" for finding in found):
        return bad(f"hub {hub.label}", found[0].detail, found[0].remedy)
    return bad(
        f"hub {hub.label}",
        f"{status['state']}: {status['problem'] or 'its port takes connections'}",
        "if this device was revoked there, or the hub has a new key, pair it again;"
        " if the clock of this device is wrong, set it right",
    )


def _reach(endpoint: Endpoint) -> Finding:
    """Whether the port takes a connection; more it does not tell to one without the key."""
    name = f"port {endpoint}"
    try:
        socket.create_connection((endpoint.host, endpoint.port), PROBE_TIMEOUT).close()
    except OSError as error:
        remedy = "is the hub running, its port open, and this device online?"
        return bad(name, f"cannot be reached: {describe_os_error(error)}", remedy)
    return good(name, "takes connections")
