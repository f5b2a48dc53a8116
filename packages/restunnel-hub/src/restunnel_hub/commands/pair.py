"""`restunnel-hub pair`: a one-time link, as text and as a QR code."""

from __future__ import annotations

import argparse
import sys
import time
from ipaddress import ip_address

from restunnel_protocol.program.errors import ExitCode, ProgramError

from .common import call, print_json

WAIT_INTERVAL = 0.5
"""Seconds between looks at a pairing link that `pair --wait` waits for."""


def pair(arguments: argparse.Namespace) -> int:
    from restunnel_protocol.program.settings import format_duration, parse_duration

    try:
        ttl = parse_duration(arguments.ttl)
    except ValueError as error:
        raise ProgramError(f"--ttl: {error}", code=ExitCode.USAGE) from error
    wishes = {"name": arguments.name, "group": arguments.group, "ttl": ttl}
    answer = call(arguments, "POST", "/pairings", wishes)
    if arguments.json:
        print_json(answer)
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
        answer = call(arguments, "GET", f"/pairings/{token_id}")
        if answer["state"] == "paired":
            name = answer["node"]["name"] if answer["node"] else "a device"
            print(f"paired: {name}", file=sys.stderr)
            return ExitCode.OK
        if answer["state"] == "expired":
            raise ProgramError("the pairing link expired unused", hint="make a new one")
        time.sleep(WAIT_INTERVAL)
