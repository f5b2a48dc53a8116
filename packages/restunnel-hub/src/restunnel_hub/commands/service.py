"""`restunnel-hub service install|uninstall`: systemd on Linux, launchd on macOS."""

from __future__ import annotations

import argparse
import sys

from restunnel_protocol.program.errors import ExitCode
from restunnel_protocol.program.supervisor import (
    Service,
    find_executable,
    install,
    render_agent,
    render_unit,
    uninstall,
)

STATE = "/var/lib/restunnel-hub"
"""Where systemd keeps the data of the machine's own service (StateDirectory=)."""


def service(arguments: argparse.Namespace) -> int:
    """Install, print or remove the service."""
    ours = _service(arguments)
    if arguments.action == "uninstall":
        print(uninstall(ours), file=sys.stderr)
    elif arguments.print:
        executable = find_executable(ours.program)
        if sys.platform == "darwin":
            print(render_agent(ours, executable).decode(), end="")
        else:
            print(render_unit(ours, executable, system=_is_root()), end="")
    else:
        print(install(ours), file=sys.stderr)
        if _is_root():
            print(
                f"hint: its commands need its data, as in `restunnel-hub --data-dir {STATE} pair`",
                file=sys.stderr,
            )
        elif sys.platform == "linux":
            print("hint: `loginctl enable-linger` lets it run while you are away", file=sys.stderr)
    return ExitCode.OK


def _service(arguments: argparse.Namespace) -> Service:
    data_dir = getattr(arguments, "data_dir", None)
    if data_dir is None and _is_root() and sys.platform == "linux":
        data_dir = STATE
    where = ["--data-dir", str(data_dir)] if data_dir is not None else []
    wishes = [word for word in arguments.arguments if word != "--"]
    return Service("restunnel-hub", "Restunnel hub", ["run", *where, *wishes])


def _is_root() -> bool:
    import os

    return hasattr(os, "geteuid") and os.geteuid() == 0
