"""The command line of the hub. Imports what a command needs when it needs it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from restunnel_protocol.program.errors import run_program

from ._version import __version__

PROGRAM = "restunnel-hub"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `restunnel-hub`; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    return run_program(PROGRAM, lambda: int(parsed.command(parsed)))


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command whose module is imported when it is called."""

    def command(arguments: argparse.Namespace) -> int:
        loaded = importlib.import_module(f".commands.{module}", __package__)
        return int(getattr(loaded, function)(arguments))

    return command


def _parser() -> argparse.ArgumentParser:
    from restunnel_protocol.program.directories import add_data_dir

    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Local proxies whose traffic leaves through your own devices."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    add_data_dir(parser)
    common = argparse.ArgumentParser(add_help=False)
    add_data_dir(common)
    add = Adder(parser.add_subparsers(required=True, metavar="COMMAND"), common)
    _add_run(add)
    _add_pair(add)
    add("nodes", "list the paired nodes", _later("nodes", "nodes"), json=True)
    _add_node(add)
    _add_client(add)
    add("status", "ask the running hub", _later("hub", "status"), json=True)
    _add_events(add)
    explain = add(
        "explain",
        "which node a proxy user name leads to, and why",
        _later("hub", "explain"),
        json=True,
    )
    explain.add_argument("username", nargs="?", default="", metavar="USERNAME")
    add("dashboard", "print a one-time login URL", _later("hub", "dashboard"))
    password = add(
        "password", "set the dashboard's password (asked for, or stdin)", _later("hub", "password")
    )
    _add_care(add)
    password.add_argument("--remove", action="store_true", help="only one-time URLs log in")
    return parser


def _add_care(add: Adder) -> None:
    doctor = add(
        "doctor", "look for what keeps the hub from working", _later("doctor", "doctor"), json=True
    )
    doctor.add_argument("--config", type=Path, metavar="F", help="configuration file (TOML)")
    backup = add("backup", "save key, database and configuration", _later("backup", "backup"))
    backup.add_argument("file", type=Path, metavar="FILE")
    restore = add("restore", "make the hub what a backup says", _later("backup", "restore"))
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.add_argument("--force", action="store_true", help="put an existing hub's files aside")
    add.service("run the hub for good (systemd, launchd)", _later("service", "service"))


class Adder:
    """Adds subcommands that all take `--data-dir`."""

    def __init__(self, commands: Any, common: argparse.ArgumentParser) -> None:
        self._commands = commands
        self._common = common

    def __call__(
        self,
        name: str,
        purpose: str,
        command: Callable[[argparse.Namespace], int],
        *,
        json: bool = False,
    ) -> argparse.ArgumentParser:
        """A subcommand; `json` gives it that flag."""
        parser: argparse.ArgumentParser = self._commands.add_parser(
            name, parents=[self._common], help=purpose, description=f"{purpose}."
        )
        if json:
            parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.set_defaults(command=command)
        return parser

    def service(self, purpose: str, command: Callable[[argparse.Namespace], int]) -> None:
        """`service install|uninstall`."""
        from restunnel_protocol.program.service_command import add_service_actions

        parser = self._commands.add_parser("service", parents=[self._common], help=purpose)
        actions = parser.add_subparsers(required=True, metavar="ACTION")
        add_service_actions(actions, self._common, command)

    def below(self, name: str, purpose: str) -> Adder:
        """A subcommand with subcommands of its own."""
        parser = self._commands.add_parser(name, parents=[self._common], help=purpose)
        return Adder(parser.add_subparsers(required=True, metavar="ACTION"), self._common)


def _add_run(add: Adder) -> None:
    from restunnel_protocol.program.service import add_ready_flag
    from restunnel_protocol.program.settings import add_flags

    from .config import SETTINGS

    run = add("run", "run the hub", _run)
    run.add_argument("--config", type=Path, metavar="F", help="configuration file (TOML)")
    run.add_argument("--verbose", action="store_true", help="log more")
    add_flags(run, SETTINGS)
    add_ready_flag(run)


def _add_pair(add: Adder) -> None:
    pair = add("pair", "make a one-time pairing link", _later("pair", "pair"), json=True)
    pair.add_argument("--name", default="", metavar="N", help="what to call the device")
    pair.add_argument("--group", default="", metavar="G", help="group to put it into")
    pair.add_argument(
        "--ttl", default="15m", metavar="TIME", help="how long the link is good (15m)"
    )
    pair.add_argument("--no-qr", action="store_true", help="print the link only")
    pair.add_argument("--wait", action="store_true", help="wait until the device is paired")


def _add_node(add: Adder) -> None:
    actions = add.below("node", "look at or change one node")

    def action(name: str, purpose: str, *, json: bool = False) -> argparse.ArgumentParser:
        parser = actions(name, purpose, _later("nodes", name), json=json)
        parser.add_argument("node", metavar="NODE", help="name or id")
        return parser

    action("show", "everything about a node", json=True)
    action("rename", "give it another name").add_argument("name", metavar="NAME")
    action("group", 'put it into a group ("": none)').add_argument("group", metavar="GROUP")
    action("note", 'write down a few words about it ("": none)').add_argument(
        "text", metavar="TEXT"
    )
    drain = action("drain", "give it no new streams; running ones go on")
    drain.add_argument("--off", action="store_true", help="give it new streams again")
    limit = action("limit", "limit what it carries; `none` takes a limit away")
    limit.add_argument("--streams", dest="max_streams", metavar="N", help="streams at once")
    limit.add_argument("--per-day", dest="max_day", metavar="SIZE", help="as in 2GB; days of UTC")
    limit.add_argument("--per-month", dest="max_month", metavar="SIZE", help="as in 50GB")
    limit.add_argument("--bandwidth", metavar="SIZE", help="bytes a second each way, as in 2MB")
    action("traffic", "what it has carried day by day, as CSV", json=True)
    action("revoke", "lock it out for good")


def _add_client(add: Adder) -> None:
    actions = add.below("client", "passwords of the proxies' clients")
    actions("list", "clients and what they have carried", _later("hub", "client_list"), json=True)
    new = actions("add", "make a password for a client", _later("hub", "client_add"), json=True)
    remove = actions("remove", "forget a client's password", _later("hub", "client_remove"))
    for parser in (new, remove):
        parser.add_argument("name", metavar="NAME")


def _add_events(add: Adder) -> None:
    events = add("events", "what happened, oldest first", _later("hub", "events"), json=True)
    events.add_argument("-n", "--number", type=int, default=50, metavar="N", help="how many (50)")
    events.add_argument("--follow", action="store_true", help="go on as more happens")
    events.add_argument("--kind", default="", metavar="KIND", help="of one kind only")
    events.add_argument("--node", default="", metavar="NODE", help="of one node only")


def _run(arguments: argparse.Namespace) -> int:
    from restunnel_protocol.program.service import run_loop

    from . import logs
    from .app import run
    from .config import load_config, open_paths

    paths = open_paths(arguments)
    logs.configure(load_config(paths, arguments).log_format, verbose=arguments.verbose)
    return run_loop(run(lambda: load_config(paths, arguments), arguments.ready_fd))
