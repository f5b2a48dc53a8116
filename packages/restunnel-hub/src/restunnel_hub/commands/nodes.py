"""`restunnel-hub nodes` and `restunnel-hub node ...`."""

from __future__ import annotations

import argparse
import csv
import sys
from typing import Any
from urllib.parse import quote

from restunnel_protocol.program.errors import ExitCode, ProgramError

from ..sizes import format_size, parse_size
from .common import call, print_json, print_table, when

SIZES = ("max_day", "max_month", "bandwidth")
"""Limits in bytes; the flags are `--per-day`, `--per-month` and `--bandwidth`."""


def nodes(arguments: argparse.Namespace) -> int:
    """List them."""
    found = call(arguments, "GET", "/nodes")
    if arguments.json:
        print_json(found)
        return ExitCode.OK
    if not found:
        print("no nodes; pair a device with `restunnel-hub pair`", file=sys.stderr)
        return ExitCode.OK
    rows = [("NAME", "GROUP", "STATE", "ADDRESS", "STREAMS", "TODAY", "LAST SEEN", "ID")]
    rows += [
        (
            node["name"],
            node["group"] or "-",
            _state(node),
            node["address"] or "-",
            str(node["streams"]),
            format_size(node["bytes_today"]),
            when(node["last_seen"]),
            node["id"],
        )
        for node in found
    ]
    print_table(rows)
    return ExitCode.OK


def _state(node: dict[str, Any]) -> str:
    """`online`, `offline`, or what keeps a node that is online from serving."""
    if node["state"] in ("ready", "offline"):
        return "online" if node["online"] else "offline"
    return str(node["state"])


def show(arguments: argparse.Namespace) -> int:
    """Everything about one."""
    node = call(arguments, "GET", _path(arguments))
    if arguments.json:
        print_json(node)
        return ExitCode.OK
    for name, value in node.items():
        if name in ("online_since", "enrolled_at", "last_seen"):
            value = when(value)
        elif name.startswith("bytes_") or (name in SIZES and value is not None):
            value = f"{value} ({format_size(value)})"
        elif value is None:
            value = "no limit"
        print(f"{name.replace('_', ' ')}: {value}")
    return ExitCode.OK


def rename(arguments: argparse.Namespace) -> int:
    """Another name."""
    return _change(arguments, name=arguments.name)


def group(arguments: argparse.Namespace) -> int:
    """Another group."""
    return _change(arguments, group=arguments.group)


def note(arguments: argparse.Namespace) -> int:
    """A few words about it."""
    return _change(arguments, note=arguments.text)


def drain(arguments: argparse.Namespace) -> int:
    """No new streams, or new ones again."""
    return _change(arguments, drained=not arguments.off)


def limit(arguments: argparse.Namespace) -> int:
    """Limits; what is not given stays."""
    changes: dict[str, Any] = {}
    for flag, field in (
        ("--streams", "max_streams"),
        ("--per-day", "max_day"),
        ("--per-month", "max_month"),
        ("--bandwidth", "bandwidth"),
    ):
        text = getattr(arguments, field)
        if text is not None:
            changes[field] = _limit(text, flag, field)
    if not changes:
        raise ProgramError("no limit is given", hint="see `node limit --help`", code=ExitCode.USAGE)
    return _change(arguments, **changes)


def _limit(text: str, flag: str, field: str) -> int | None:
    if text == "none":
        return None
    try:
        return parse_size(text) if field in SIZES else int(text)
    except ValueError as error:
        raise ProgramError(f"{flag}: {error}", code=ExitCode.USAGE) from error


def traffic(arguments: argparse.Namespace) -> int:
    """What it has carried, day by day, for other programs."""
    answer = call(arguments, "GET", f"{_path(arguments)}/traffic")
    if arguments.json:
        print_json(answer)
        return ExitCode.OK
    writer = csv.writer(sys.stdout)
    fields = ("day", "bytes_received", "bytes_sent", "streams")
    writer.writerow(fields)
    writer.writerows([day[field] for field in fields] for day in answer["days"])
    return ExitCode.OK


def revoke(arguments: argparse.Namespace) -> int:
    """Lock it out."""
    node = call(arguments, "DELETE", _path(arguments))
    print(f"revoked {node['name']}", file=sys.stderr)
    return ExitCode.OK


def _change(arguments: argparse.Namespace, **fields: Any) -> int:
    call(arguments, "PATCH", _path(arguments), fields)
    return ExitCode.OK


def _path(arguments: argparse.Namespace) -> str:
    return f"/nodes/{quote(arguments.node, safe='')}"
