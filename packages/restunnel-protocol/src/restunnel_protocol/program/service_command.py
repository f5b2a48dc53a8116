"""`service install|uninstall`, the same for every program: arguments, and what they do."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .errors import ExitCode
from .supervisor import Service, find_executable, install, render_agent, render_unit, uninstall


def add_service_actions(actions: Any, common: argparse.ArgumentParser, command: Any) -> None:
    """`install [--print] [-- OPTION...]` and `uninstall`, both calling `command`."""
    add = actions.add_parser("install", parents=[common], help="install and start the service")
    add.add_argument("--print", action="store_true", help="only show what would be written")
    add.add_argument("arguments", nargs="*", metavar="-- OPTION", help="options of `run`")
    add.set_defaults(command=command, action="install")
    remove = actions.add_parser("uninstall", parents=[common], help="stop and remove; data stays")
    remove.set_defaults(command=command, action="uninstall", arguments=[])


def run_service_command(program: str, description: str, arguments: argparse.Namespace) -> int:
    """Install, print or remove the service of `program`. Raises `ProgramError`."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0 and sys.platform == "linux"
    state = f"/var/lib/{program}"  # where systemd keeps it (StateDirectory=)
    data_dir = getattr(arguments, "data_dir", state if as_root else None)
    where = ["--data-dir", str(data_dir)] if data_dir is not None else []
    wishes = [word for word in arguments.arguments if word != "--"]
    service = Service(program, description, ["run", *where, *wishes])
    if arguments.action == "uninstall":
        print(uninstall(service), file=sys.stderr)
    elif arguments.print:
        executable = find_executable(program)
        if sys.platform == "darwin":
            print(render_agent(service, executable).decode(), end="")
        else:
            print(render_unit(service, executable, system=as_root), end="")
    else:
        print(install(service), file=sys.stderr)
        if as_root:
            command = f"{program} --data-dir {data_dir} ..."
            print(f"hint: its commands need its data, as in `{command}`", file=sys.stderr)
        elif sys.platform == "linux":
            print("hint: `loginctl enable-linger` lets it run while you are away", file=sys.stderr)
    return ExitCode.OK
