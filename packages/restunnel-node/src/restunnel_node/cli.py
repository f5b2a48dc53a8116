"""The command line of the node. Imports what a command needs when it needs it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restunnel_protocol.program.errors import ExitCode, ProgramError, run_program

from ._version import __version__

if TYPE_CHECKING:
    from .config import Paths

PROGRAM = "restunnel-node"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `restunnel-node`; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    return run_program(PROGRAM, lambda: int(parsed.command(parsed)))


def _parser() -> argparse.ArgumentParser:
    from restunnel_protocol.program.directories import add_data_dir
    from restunnel_protocol.program.service import add_ready_flag
    from restunnel_protocol.program.settings import add_flags

    from .config import SETTINGS

    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Lends your own hub this device's internet connection."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    add_data_dir(parser)
    common = argparse.ArgumentParser(add_help=False)
    add_data_dir(common)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    pair = commands.add_parser("pair", parents=[common], help="pair this device with a hub")
    pair.add_argument(
        "link",
        metavar="LINK|IMAGE|-",
        help="the pairing link, a picture of its QR code, or - to read the link from stdin",
    )
    pair.add_argument(
        "--timeout", default="10s", metavar="TIME", help="how long to wait for the hub (10s)"
    )
    pair.set_defaults(command=_pair)

    run = commands.add_parser("run", parents=[common], help="serve all paired hubs")
    run.add_argument("--config", type=Path, metavar="F", help="configuration file (TOML)")
    run.add_argument("--verbose", action="store_true", help="log more")
    add_flags(run, SETTINGS)
    add_ready_flag(run)
    run.set_defaults(command=_run)

    status = commands.add_parser("status", parents=[common], help="ask the running node")
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(command=_status)

    hubs = commands.add_parser("hubs", parents=[common], help="list the paired hubs")
    hubs.add_argument("--json", action="store_true", help="print one JSON document")
    hubs.set_defaults(command=_hubs)

    forget = commands.add_parser("forget", parents=[common], help="leave a hub for good")
    forget.add_argument("hub", metavar="HUB", help="its address or key")
    forget.set_defaults(command=_forget)

    _add_policy(commands, common)
    _add_care(commands, common)
    return parser


def _add_care(commands: Any, common: argparse.ArgumentParser) -> None:
    from restunnel_protocol.program.service_command import add_service_actions

    doctor = commands.add_parser(
        "doctor", parents=[common], help="look for what keeps the node from working"
    )
    doctor.add_argument("--config", type=Path, metavar="F", help="configuration file (TOML)")
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    doctor.set_defaults(command=_doctor)
    service = commands.add_parser(
        "service", parents=[common], help="run the node for good (systemd, launchd)"
    )
    actions = service.add_subparsers(required=True, metavar="ACTION")
    add_service_actions(actions, common, _service)


def _add_policy(commands: Any, common: argparse.ArgumentParser) -> None:
    policy = commands.add_parser(
        "policy", parents=[common], help="what hubs may reach through this device"
    )
    actions = policy.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", parents=[common], help="list the owner's rules")
    show.add_argument("--json", action="store_true", help="print one JSON document")
    show.set_defaults(command=_policy_show)
    for action, text in (("allow", "open"), ("deny", "close")):
        change = actions.add_parser(action, parents=[common], help=f"{text} a target")
        change.add_argument("rule", metavar="RULE", help="127.0.0.1:8000, 10.0.0.0/8, *:25, ...")
        change.set_defaults(command=_policy_add, action=action)
    remove = actions.add_parser("remove", parents=[common], help="take a rule back")
    remove.add_argument("rule", metavar="RULE", help="as `policy show` writes it")
    remove.set_defaults(command=_policy_remove)
    check = actions.add_parser("check", parents=[common], help="explain a verdict")
    check.add_argument("target", metavar="HOST:PORT")
    check.set_defaults(command=_policy_check)


def _pair(arguments: argparse.Namespace) -> int:
    from restunnel_protocol.program.service import run_loop
    from restunnel_protocol.program.settings import parse_duration
    from restunnel_protocol.records import fastest_suite

    from .clock import RisingClock
    from .config import open_paths
    from .hubs import HubFile
    from .keystore import FileKeyStore, load_or_create
    from .pairing import Enrolment, parse_link

    try:
        timeout = parse_duration(arguments.timeout)
    except ValueError as error:
        raise ProgramError(f"--timeout: {error}", code=ExitCode.USAGE) from error
    link = parse_link(_link_text(arguments.link))
    paths = open_paths(arguments)
    enrolment = Enrolment(
        load_or_create(FileKeyStore(paths.key)),
        HubFile(paths.hubs),
        RisingClock(paths.timestamp),
        fastest_suite(),
        timeout,
    )
    hub = run_loop(enrolment.pair(link))
    print(f"paired with {hub.label} as {hub.name or hub.node_id}")
    if not _tell_running(paths, "reload"):
        print("start the node with: restunnel-node run")
    return ExitCode.OK


def _link_text(given: str) -> str:
    """The link in what stands for it on the command line."""
    if given == "-":
        return sys.stdin.readline()
    if given.startswith("restunnel:") or not Path(given).exists():
        return given

    from .picture import read_link

    return read_link(Path(given))


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
    paths = open_paths(arguments)
    return run_loop(run(lambda: load_config(paths, arguments), arguments.ready_fd))


def _status(arguments: argparse.Namespace) -> int:
    from .config import open_paths
    from .control import ask

    status = ask(open_paths(arguments).socket, "status")
    if arguments.json:
        print(json.dumps(status))
        return ExitCode.OK
    for hub in status["hubs"]:
        problem = f" ({hub['problem']})" if hub["problem"] else ""
        print(f"{hub['hub']}  {hub['state']}{problem}  {hub['streams']} streams")
    return ExitCode.OK


def _doctor(arguments: argparse.Namespace) -> int:
    from restunnel_protocol.program.checks import report

    from .doctor import examine

    return report(examine(arguments), as_json=arguments.json)


def _service(arguments: argparse.Namespace) -> int:
    from restunnel_protocol.program.service_command import run_service_command

    return run_service_command(PROGRAM, "Restunnel node", arguments)


def _hubs(arguments: argparse.Namespace) -> int:
    from .config import open_paths
    from .hubs import HubFile

    hubs = [hub for hub in HubFile(open_paths(arguments).hubs).load() if hub.paired]
    if arguments.json:
        fields = [
            {
                "key": str(hub.key),
                "endpoints": [str(endpoint) for endpoint in hub.endpoints],
                "id": hub.node_id,
                "name": hub.name,
            }
            for hub in hubs
        ]
        print(json.dumps(fields))
        return ExitCode.OK
    for hub in hubs:
        print(f"{hub.label}  as {hub.name}  key {hub.key}")
    return ExitCode.OK


def _forget(arguments: argparse.Namespace) -> int:
    from .config import open_paths
    from .hubs import HubFile

    paths = open_paths(arguments)
    hub = HubFile(paths.hubs).forget(arguments.hub)
    _tell_running(paths, "reload")
    print(f"forgot {hub.label}; its operator can revoke this device too")
    return ExitCode.OK


def _policy_show(arguments: argparse.Namespace) -> int:
    from .config import load_config, open_paths
    from .policy import OwnerPolicy

    paths = open_paths(arguments)
    policy = OwnerPolicy(paths.policy, load_config(paths, arguments).rules).current()
    if arguments.json:
        print(json.dumps([{"action": rule.action, "rule": str(rule)} for rule in policy.rules]))
        return ExitCode.OK
    for rule in policy.rules:
        print(f"{rule.action}  {rule}")
    print("all else: globally reachable addresses only, and not port 25", file=sys.stderr)
    return ExitCode.OK


def _policy_add(arguments: argparse.Namespace) -> int:
    from .config import open_paths
    from .policy import OwnerPolicy, parse_rule

    rule = parse_rule(arguments.action, arguments.rule, f"policy {arguments.action}")
    OwnerPolicy(open_paths(arguments).policy).add(rule)
    print(f"{rule.action}  {rule}")
    return ExitCode.OK


def _policy_remove(arguments: argparse.Namespace) -> int:
    from .config import open_paths
    from .policy import OwnerPolicy

    OwnerPolicy(open_paths(arguments).policy).remove(arguments.rule)
    return ExitCode.OK


def _policy_check(arguments: argparse.Namespace) -> int:
    from restunnel_protocol import AddressError, parse_target
    from restunnel_protocol.program.service import run_loop

    from .config import load_config, open_paths
    from .explain import explain

    try:
        target = parse_target(arguments.target)
    except AddressError as error:
        raise ProgramError(str(error), code=ExitCode.USAGE) from error
    paths = open_paths(arguments)
    lines, allowed = run_loop(explain(target, paths.policy, load_config(paths, arguments).rules))
    print("\n".join(lines))
    return ExitCode.OK if allowed else ExitCode.REFUSED


def _tell_running(paths: Paths, command: str) -> bool:
    """Pass a command on to the running node; False if there is none."""
    from .control import ask

    try:
        ask(paths.socket, command)
    except ProgramError as error:
        if error.code is not ExitCode.NOT_RUNNING:
            raise
        return False
    return True
