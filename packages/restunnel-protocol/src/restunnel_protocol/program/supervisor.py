"""Installing a program as a service: a systemd unit, or a launchd agent on macOS."""

from __future__ import annotations

import os
import plistlib
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .errors import ProgramError, describe_os_error

SYSTEM_UNITS = Path("/etc/systemd/system")

RUNNING = Path("/run/systemd/system")
"""There if systemd runs this system (sd_booted(3))."""

NOFILE: Final = 262_144
"""Descriptors that the service may have: each proxied connection takes one."""

HARDENING: Final = """\
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=setrlimit prlimit64
SystemCallErrorNumber=EPERM
"""
"""systemd.exec(5). AF_NETLINK is getaddrinfo's; the limit of descriptors is raised at start."""

USER_HARDENING: Final = """\
UMask=0077
NoNewPrivileges=yes
"""
"""What a user's own service manager can do without privileges everywhere."""


@dataclass(frozen=True, slots=True)
class Service:
    """A program that is to run for good. `arguments` follow the program's name."""

    program: str
    description: str
    arguments: Sequence[str]

    @property
    def unit(self) -> str:
        return f"{self.program}.service"


def find_executable(program: str) -> Path:
    """Where the program is, as the service manager is to start it. Raises `ProgramError`."""
    beside = Path(sys.argv[0]).absolute()
    found = beside if beside.name == program else shutil.which(program)
    if not found or not Path(found).exists():
        raise ProgramError(
            f"cannot find {program} as a program", hint="install it with pipx, or into a venv"
        )
    return Path(found).absolute()


def render_unit(service: Service, executable: Path, *, system: bool) -> str:
    """The unit's text. `system`: for the machine, run by a user of its own; else for a user."""
    command = " ".join(_quote(word) for word in (str(executable), *service.arguments))
    if system:
        data = f"DynamicUser=yes\nStateDirectory={service.program}\nStateDirectoryMode=0700\n"
        at_home = any(str(executable).startswith(home) for home in ("/home/", "/root/"))
        hardening = HARDENING + f"ProtectHome={'read-only' if at_home else 'yes'}\n"
        target = "multi-user.target"
    else:
        data, hardening, target = "", USER_HARDENING, "default.target"
    return (
        "[Unit]\n"
        f"Description={service.description}\n"
        "Wants=network-online.target\n"
        "After=network-online.target\n"
        "\n[Service]\n"
        "Type=notify\n"
        f"ExecStart={command}\n"
        "ExecReload=/bin/kill -HUP $MAINPID\n"
        "Restart=always\n"
        "RestartPreventExitStatus=2\n"
        "RestartSec=2\n"
        "WatchdogSec=60\n"
        "TimeoutStartSec=60\n"
        "TimeoutStopSec=120\n"
        f"LimitNOFILE={NOFILE}\n"
        f"{data}{hardening}"
        "\n[Install]\n"
        f"WantedBy={target}\n"
    )


def render_agent(service: Service, executable: Path) -> bytes:
    """A launchd property list for a user's agent (launchd.plist(5))."""
    return plistlib.dumps(
        {
            "Label": service.program,
            "ProgramArguments": [str(executable), *service.arguments],
            "RunAtLoad": True,
            "KeepAlive": True,
            "ProcessType": "Background",
            "SoftResourceLimits": {"NumberOfFiles": 8192},
        }
    )


def install(service: Service) -> str:
    """Install and start it; what was done, for people. Raises `ProgramError`."""
    executable = find_executable(service.program)
    if sys.platform == "darwin":
        path = _agent_path(service)
        _write(path, render_agent(service, executable))
        _run("launchctl", "load", "-w", str(path))
        return f"installed and started {path}"
    _need_systemd()
    system = os.geteuid() == 0
    if system:
        _need_readable(executable)
    path = _unit_path(service, system=system)
    _write(path, render_unit(service, executable, system=system).encode())
    manager = ["systemctl"] if system else ["systemctl", "--user"]
    _run(*manager, "daemon-reload")
    _run(*manager, "enable", service.unit)
    _run(*manager, "restart", service.unit)
    return f"installed and started {path}"


def uninstall(service: Service) -> str:
    """Stop it and take it away; its data stays. Raises `ProgramError`."""
    if sys.platform == "darwin":
        path = _agent_path(service)
        _need_file(path)
        _run("launchctl", "unload", "-w", str(path))
        path.unlink()
        return f"stopped and removed {path}"
    _need_systemd()
    system = os.geteuid() == 0
    path = _unit_path(service, system=system)
    _need_file(path)
    manager = ["systemctl"] if system else ["systemctl", "--user"]
    _run(*manager, "disable", "--now", service.unit)
    path.unlink()
    _run(*manager, "daemon-reload")
    return f"stopped and removed {path}"


def _unit_path(service: Service, *, system: bool) -> Path:
    if system:
        return SYSTEM_UNITS / service.unit
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user" / service.unit


def _agent_path(service: Service) -> Path:
    return Path.home() / "Library" / "LaunchAgents" / f"{service.program}.plist"


def _quote(word: str) -> str:
    """One word of ExecStart (systemd.service(5): specifiers begin with %, variables with $)."""
    return shlex.quote(word).replace("%", "%%").replace("$", "$$")


def _need_systemd() -> None:
    if not RUNNING.is_dir() or shutil.which("systemctl") is None:
        raise ProgramError(
            "this system is not run by systemd",
            hint="`service install --print` shows the unit; write one for your service manager",
        )


def _need_file(path: Path) -> None:
    if not path.exists():
        raise ProgramError(f"the service is not installed: no {path}")


def _need_readable(executable: Path) -> None:
    """A service user of its own must be able to run it. Raises `ProgramError`."""
    real = executable.resolve()
    for part in (*executable.parents, *real.parents, real):
        if not part.stat().st_mode & stat.S_IXOTH:
            raise ProgramError(
                f"other users cannot run {executable}: {part} is closed to them",
                hint="install it for all, as with `pipx install --global`, or into a venv in /opt",
            )


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ProgramError(f"cannot write {path}: {describe_os_error(error)}") from error


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode != 0:
        said = done.stderr.strip() or f"status {done.returncode}"
        raise ProgramError(f"{' '.join(command)}: {said}")
