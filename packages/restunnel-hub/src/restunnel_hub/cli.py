"""The command line of the hub. Imports what a command needs when it needs it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

from restunnel_protocol.program.errors import ExitCode, ProgramError, run_program

from ._version import __version__

PROGRAM = "restunnel-hub"

WAIT_INTERVAL = 0.5
"""Seconds between looks at a pairing link that `pair --wait` waits for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `restunnel-hub`; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    return run_program(PROGRAM, lambda: int(parsed.command(parsed)))


def _parser() -> argparse.ArgumentParser:
    from restunnel_protocol.program.directories import add_data_dir
    from restunnel_protocol.program.service import add_ready_flag
    from restunnel_protocol.program.settings import add_flags

    from .config import SETTINGS

    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Local proxies whose traffic leaves through your own devices."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    add_data_dir(parser)
    common = argparse.ArgumentParser(add_help=False)
    add_data_dir(common)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common], help="run the hub")
    run.add_argument("--config", type=Path, metavar="F", help="configuration file (TOML)")
    run.add_argument("--verbose", action="store_true", help="log more")
    add_flags(run, SETTINGS)
    add_ready_flag(run)
    run.set_defaults(command=_run)

    _add_pair(commands, common)

    nodes = commands.add_parser("nodes", parents=[common], help="list the paired nodes")
    nodes.add_argument("--json", action="store_true", help="print one JSON document")
    nodes.set_defaults(command=_nodes)

    _add_node(commands, common)

    status = commands.add_parser("status", parents=[common], help="ask the running hub")
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(command=_status)

    dashboard = commands.add_parser(
        "dashboard", parents=[common], help="print a one-time login URL"
    )
    dashboard.set_defaults(command=_dashboard)

    explain = commands.add_parser(
        "explain", parents=[common], help="which node a proxy user name leads to"
    )
    explain.add_argument("username", nargs="?", default="", metavar="USERNAME")
    explain.add_argument("--json", action="store_true", help="print one JSON document")
    explain.set_defaults(command=_explain)
    return parser


def _add_pair(commands: Any, common: argparse.ArgumentParser) -> None:
    pair = commands.add_parser("pair", parents=[common], help="make a one-time pairing link")
    pair.add_argument("--name", default="", metavar="N", help="what to call the device")
    pair.add_argument("--group", default="", metavar="G", help="group to put it into")
    pair.add_argument(
        "--ttl", default="15m", metavar="TIME", help="how long the link is good (15m)"
    )
    pair.add_argument("--json", action="store_true", help="print one JSON document")
    pair.add_argument("--no-qr", action="store_true", help="print the link only")
    pair.add_argument("--wait", action="store_true", help="wait until the device is paired")
    pair.set_defaults(command=_pair)


def _add_node(commands: Any, common: argparse.ArgumentParser) -> None:
    node = commands.add_parser("node", parents=[common], help="look at or change one node")
    actions = node.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", parents=[common], help="everything about a node")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(command=_node_show)
    rename = actions.add_parser("rename", parents=[common], help="give it another name")
    rename.set_defaults(command=_node_rename)
    group = actions.add_parser("group", parents=[common], help='put it into a group ("": none)')
    group.set_defaults(command=_node_group)
    revoke = actions.add_parser("revoke", parents=[common], help="lock it out for good")
    revoke.set_defaults(command=_node_revoke)
    for action in (show, rename, group, revoke):
        action.add_argument("node", metavar="NODE", help="name or id")
    rename.add_argument("name", metavar="NAME")
    group.add_argument("group", metavar="GROUP")


def _run(arguments: argparse.Namespace) -> int:
    import logging

    from restunnel_protocol.program.service import run_loop

    from .app import run
    from .config import load_config, open_paths

    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    paths = open_paths(arguments)
    return run_loop(run(lambda: load_config(paths, arguments), arguments.ready_fd))


def _call(
    arguments: argparse.Namespace, method: str, resource: str, body: dict[str, Any] | None = None
) -> Any:
    from .client import request
    from .config import open_paths

    return request(open_paths(arguments).socket, method, resource, body)


def _pair(arguments: argparse.Namespace) -> int:
    from restunnel_protocol.program.settings import format_duration, parse_duration

    try:
        ttl = parse_duration(arguments.ttl)
    except ValueError as error:
        raise ProgramError(f"--ttl: {error}", code=ExitCode.USAGE) from error
    wishes = {"name": arguments.name, "group": arguments.group, "ttl": ttl}
    answer = _call(arguments, "POST", "/pairings", wishes)
    if arguments.json:
        print(json.dumps(answer), flush=True)
    else:
        if not arguments.no_qr:
            print(_in_colour(answer["qr"]) if sys.stdout.isatty() else answer["qr"])
        print(answer["link"], flush=True)
        print(
            f"good for one device and {format_duration(ttl)}; on the device:"
            f" restunnel-node pair '{answer['link']}'",
            file=sys.stderr,
        )
        _warn_of_private(answer["endpoints"])
    return _wait_for(arguments, answer["id"]) if arguments.wait else ExitCode.OK


def _in_colour(qr: str) -> str:
    """Light on dark whatever the terminal's own colours are: scanners need the contrast."""
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in qr.splitlines())


def _warn_of_private(endpoints: list[str]) -> None:
    from restunnel_protocol.addresses import split_host_port

    for endpoint in endpoints:
        host, _ = split_host_port(endpoint)
        try:
            private = ip_address(host).is_private
        except ValueError:
            continue
        if private:
            print(
                f"hint: devices elsewhere cannot reach {endpoint};"
                " start the hub with --advertise HOST:PORT to put a public address into links",
                file=sys.stderr,
            )


def _wait_for(arguments: argparse.Namespace, token_id: str) -> int:
    while True:
        answer = _call(arguments, "GET", f"/pairings/{token_id}")
        if answer["state"] == "paired":
            name = answer["node"]["name"] if answer["node"] else "a device"
            print(f"paired: {name}", file=sys.stderr)
            return ExitCode.OK
        if answer["state"] == "expired":
            raise ProgramError("the pairing link expired unused", hint="make a new one")
        time.sleep(WAIT_INTERVAL)


def _nodes(arguments: argparse.Namespace) -> int:
    nodes = _call(arguments, "GET", "/nodes")
    if arguments.json:
        print(json.dumps(nodes))
        return ExitCode.OK
    if not nodes:
        print("no nodes; pair a device with `restunnel-hub pair`", file=sys.stderr)
        return ExitCode.OK
    rows = [("NAME", "GROUP", "STATE", "ADDRESS", "STREAMS", "LAST SEEN", "ID")]
    rows += [
        (
            node["name"],
            node["group"] or "-",
            "online" if node["online"] else "offline",
            node["address"] or "-",
            str(node["streams"]),
            _when(node["last_seen"]),
            node["id"],
        )
        for node in nodes
    ]
    _print_table(rows)
    return ExitCode.OK


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _node_path(arguments: argparse.Namespace) -> str:
    return f"/nodes/{quote(arguments.node, safe='')}"


def _node_show(arguments: argparse.Namespace) -> int:
    node = _call(arguments, "GET", _node_path(arguments))
    if arguments.json:
        print(json.dumps(node))
        return ExitCode.OK
    for name, value in node.items():
        if name in ("online_since", "enrolled_at", "last_seen"):
            value = _when(value)
        print(f"{name.replace('_', ' ')}: {value}")
    return ExitCode.OK


def _node_rename(arguments: argparse.Namespace) -> int:
    _call(arguments, "PATCH", _node_path(arguments), {"name": arguments.name})
    return ExitCode.OK


def _node_group(arguments: argparse.Namespace) -> int:
    _call(arguments, "PATCH", _node_path(arguments), {"group": arguments.group})
    return ExitCode.OK


def _node_revoke(arguments: argparse.Namespace) -> int:
    node = _call(arguments, "DELETE", _node_path(arguments))
    print(f"revoked {node['name']}", file=sys.stderr)
    return ExitCode.OK


def _status(arguments: argparse.Namespace) -> int:
    status = _call(arguments, "GET", "/status")
    if arguments.json:
        print(json.dumps(status))
        return ExitCode.OK
    for name, address in status["listeners"].items():
        print(f"{name}: {address}")
    print(f"nodes: {status['online']} of {status['nodes']} online")
    print(f"streams: {status['streams']}, clients: {status['clients']}")
    print(f"up since: {_when(status['started_at'])}, version {status['version']}")
    return ExitCode.OK


def _dashboard(arguments: argparse.Namespace) -> int:
    print(_call(arguments, "POST", "/logins")["url"])
    return ExitCode.OK


def _explain(arguments: argparse.Namespace) -> int:
    answer = _call(arguments, "GET", f"/explain?username={quote(arguments.username, safe='')}")
    if arguments.json:
        print(json.dumps(answer))
    elif answer["node"] is not None:
        print(answer["node"]["name"])
    if answer["node"] is None and not arguments.json:
        raise ProgramError(answer["reason"])
    return ExitCode.OK
