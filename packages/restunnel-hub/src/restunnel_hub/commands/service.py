"""`restunnel-hub service install|uninstall`: systemd on Linux, launchd on macOS."""

from __future__ import annotations

import argparse

from restunnel_protocol.program.service_command import run_service_command


def service(arguments: argparse.Namespace) -> int:
    """Install, print or remove the service."""
    return run_service_command("restunnel-hub", "Restunnel hub", arguments)
