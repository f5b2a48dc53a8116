"""`restunnel-hub status`, `events`, `explain`, `dashboard`, `password`, `client ...`."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from typing import Any
from urllib.parse import quote, urlencode

from restunnel_protocol.program.errors import ExitCode, ProgramError

from ..sizes import format_size
from .common import call, print_json, print_table, when

FOLLOW_INTERVAL = 1.0
"""Seconds between looks for new events."""


def status(arguments: argparse.Namespace) -> int:
    """The hub as a whole."""
    answer = call(arguments, "GET", "/status")
    if arguments.json:
        print_json(answer)
        return ExitCode.OK
    for name, address in answer["listeners"].items():
        print(f"{name}: {address}")
    print(f"nodes: {answer['online']} of {answer['nodes']} online")
    print(f"streams: {answer['streams']}, clients: {answer['clients']}")
    print(f"up since: {when(answer['started_at'])}, version {answer['version']}")
    return ExitCode.OK


def events(arguments: argparse.Namespace) -> int:
    """What happened."""
    query = {"kind": arguments.kind, "node": arguments.node}
    found = _events(arguments, {**query, "limit": arguments.number})
    if arguments.json and not arguments.follow:
        print_json(found)
        return ExitCode.OK
    last = 0
    while True:
        for event in found:
            last = event["number"]
            print_json(event) if arguments.json else print(_line(event), flush=True)
        if not arguments.follow:
            return ExitCode.OK
        time.sleep(FOLLOW_INTERVAL)
        found = _events(arguments, {**query, "after": last, "limit": 10_000})


def _events(arguments: argparse.Namespace, query: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call(arguments, "GET", f"/events?{urlencode(query)}")
    return found


def _line(event: dict[str, Any]) -> str:
    words = [when(event["at"]), event["kind"], event["node"], event["detail"]]
    if event["count"] > 1:
        words.append(f"({event['count']} times)")
    return "  ".join(word for word in words if word)


def explain(arguments: argparse.Namespace) -> int:
    """Which node a proxy user name leads to, and why."""
    answer = call(arguments, "GET", f"/explain?username={quote(arguments.username, safe='')}")
    if arguments.json:
        print_json(answer)
        return ExitCode.OK
    if answer["node"] is None:
        raise ProgramError(answer["reason"])
    print(answer["node"]["name"])
    print(f"because: {answer['reason']}", file=sys.stderr)
    if answer["then"]:
        print(f"if its network fails: {', '.join(answer['then'][:2])}", file=sys.stderr)
    return ExitCode.OK


def dashboard(arguments: argparse.Namespace) -> int:
    """A login URL."""
    print(call(arguments, "POST", "/logins")["url"])
    return ExitCode.OK


def password(arguments: argparse.Namespace) -> int:
    """Set the dashboard's password, or take it away."""
    chosen = None
    if not arguments.remove:
        chosen = _ask() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    answer = call(arguments, "PUT", "/password", {"password": chosen})
    state = "set" if answer["set"] else "removed"
    print(f"the dashboard's password is {state}", file=sys.stderr)
    return ExitCode.OK


def _ask() -> str:
    chosen = getpass.getpass("password: ")
    if getpass.getpass("again: ") != chosen:
        raise ProgramError("these are two different passwords")
    return chosen


def client_list(arguments: argparse.Namespace) -> int:
    """Clients and what they have carried."""
    found = call(arguments, "GET", "/clients")
    if arguments.json:
        print_json(found)
        return ExitCode.OK
    rows = [("NAME", "CONNECTIONS", "UP", "DOWN", "LAST SEEN")]
    rows += [
        (
            client["name"] or "(no password)",
            str(client["streams"]),
            format_size(client["bytes_received"]),
            format_size(client["bytes_sent"]),
            when(client["last_seen"]),
        )
        for client in found
    ]
    print_table(rows)
    return ExitCode.OK


def client_add(arguments: argparse.Namespace) -> int:
    """A password for a client."""
    answer = call(arguments, "POST", "/clients", {"name": arguments.name})
    if arguments.json:
        print_json(answer)
        return ExitCode.OK
    print(answer["password"])
    print(
        "this is shown once; the client gives it with any user name that chooses the node,"
        f" as in socks5h://NODE:{answer['password'][:4]}...@127.0.0.1:1080",
        file=sys.stderr,
    )
    return ExitCode.OK


def client_remove(arguments: argparse.Namespace) -> int:
    """Forget a client's password."""
    call(arguments, "DELETE", f"/clients/{quote(arguments.name, safe='')}")
    return ExitCode.OK
