"""Services of systemd and launchd: what is written, what is called, what is refused."""

from __future__ import annotations

import argparse
import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from restunnel_protocol.program import service_command, supervisor
from restunnel_protocol.program.errors import ProgramError
from restunnel_protocol.program.supervisor import Service, find_executable, install, uninstall

SERVICE = Service("restunnel-x", "A service", ["run", "--data-dir", "/srv/a b/100%", "$HOME"])


def script(path: Path, text: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine run by systemd, whose systemctl writes down what it is asked."""
    tmp_path.chmod(0o755)
    script(tmp_path / "bin" / "restunnel-x")
    for tool in ("systemctl", "launchctl"):
        script(tmp_path / "bin" / tool, f'echo {tool} "$@" >> {tmp_path}/calls')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(supervisor, "SYSTEM_UNITS", tmp_path / "units")
    monkeypatch.setattr(supervisor, "RUNNING", tmp_path)
    monkeypatch.setattr(supervisor, "_need_readable", lambda executable: None)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def calls(machine: Path) -> list[str]:
    return (machine / "calls").read_text().splitlines()


def test_roots_service_is_the_machines_and_has_no_rights(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    path = machine / "units" / "restunnel-x.service"
    assert install(SERVICE) == f"installed and started {path}"
    unit = path.read_text()
    program = machine / "bin" / "restunnel-x"
    assert f"ExecStart={program} run --data-dir '/srv/a b/100%%' '$$HOME'\n" in unit
    for line in (
        *("Type=notify", "WatchdogSec=60", "DynamicUser=yes", "ProtectSystem=strict"),
        *("CapabilityBoundingSet=", "NoNewPrivileges=yes", "LimitNOFILE=262144"),
        *("StateDirectory=restunnel-x", "ProtectHome=yes", "WantedBy=multi-user.target"),
    ):
        assert f"{line}\n" in unit
    assert calls(machine) == [
        "systemctl daemon-reload",
        "systemctl enable restunnel-x.service",
        "systemctl restart restunnel-x.service",
    ]
    assert uninstall(SERVICE) == f"stopped and removed {path}"
    assert not path.exists()
    assert "systemctl disable --now restunnel-x.service" in calls(machine)


@pytest.mark.parametrize("xdg", [True, False])
def test_a_users_service_is_their_own(machine, monkeypatch, xdg):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if xdg:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(machine / "config"))
    install(SERVICE)
    base = machine / "config" if xdg else machine / "home" / ".config"
    unit = (base / "systemd" / "user" / "restunnel-x.service").read_text()
    assert "WantedBy=default.target\n" in unit
    assert "DynamicUser" not in unit
    assert calls(machine)[0] == "systemctl --user daemon-reload"
    uninstall(SERVICE)


def test_a_program_below_home_can_be_read_there(machine):
    unit = supervisor.render_unit(SERVICE, Path("/home/a/bin/restunnel-x"), system=True)
    assert "ProtectHome=read-only\n" in unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_understands_the_unit_and_finds_it_safe(tmp_path):
    path = tmp_path / "restunnel-x.service"
    unit = supervisor.render_unit(SERVICE, Path("/bin/true"), system=True)
    path.write_text(unit)
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=30
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert judged.returncode == 0, judged.stdout


def test_an_agent_of_macos(machine, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    path = machine / "home" / "Library" / "LaunchAgents" / "restunnel-x.plist"
    assert install(SERVICE) == f"installed and started {path}"
    agent = plistlib.loads(path.read_bytes())
    assert agent["ProgramArguments"] == [str(machine / "bin" / "restunnel-x"), *SERVICE.arguments]
    assert agent["KeepAlive"]
    uninstall(SERVICE)
    assert calls(machine) == [f"launchctl load -w {path}", f"launchctl unload -w {path}"]


def test_what_cannot_be_is_refused_with_a_reason(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ProgramError, match="the service is not installed"):
        uninstall(SERVICE)
    script(machine / "bin" / "systemctl", "echo no such unit >&2; exit 5")
    with pytest.raises(ProgramError, match="systemctl daemon-reload: no such unit"):
        install(SERVICE)
    script(machine / "bin" / "systemctl", "exit 5")
    with pytest.raises(ProgramError, match="systemctl daemon-reload: status 5"):
        install(SERVICE)
    (machine / "units").chmod(0o700)
    monkeypatch.setattr(supervisor, "SYSTEM_UNITS", machine / "bin" / "restunnel-x" / "units")
    with pytest.raises(ProgramError, match="cannot write"):
        install(SERVICE)
    monkeypatch.setattr(supervisor, "RUNNING", machine / "nowhere")
    for action in (install, uninstall):
        with pytest.raises(ProgramError, match="not run by systemd"):
            action(SERVICE)
    with pytest.raises(ProgramError, match="cannot find restunnel-y"):
        find_executable("restunnel-y")


def test_a_program_that_others_cannot_run_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    closed = script(tmp_path / "closed" / "restunnel-x")
    closed.parent.chmod(0o700)
    with pytest.raises(ProgramError, match=r"other users cannot run .*closed"):
        supervisor._need_readable(closed)


def test_a_program_that_others_can_run_is_taken():
    supervisor._need_readable(Path("/bin/true"))


def test_the_program_that_runs_is_the_one_that_is_installed(machine, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(script(machine / "venv" / "restunnel-x"))])
    assert find_executable("restunnel-x") == machine / "venv" / "restunnel-x"


def parsed(*words: str):
    parser, common = argparse.ArgumentParser(), argparse.ArgumentParser(add_help=False)
    common.add_argument("--data-dir", default=argparse.SUPPRESS)
    command = service_command.run_service_command
    service_command.add_service_actions(parser.add_subparsers(), common, command)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("user", "words", "run"),
    [
        (0, [], "run --data-dir /var/lib/restunnel-x"),
        (0, ["--data-dir", "/srv/x", "--", "--grace", "5s"], "run --data-dir /srv/x --grace 5s"),
        (1000, ["--", "--verbose"], "run --verbose"),
    ],
)
def test_the_command_shows_installs_and_removes(machine, monkeypatch, capsys, user, words, run):
    monkeypatch.setattr(os, "geteuid", lambda: user)
    command = service_command.run_service_command
    shown = parsed("install", "--print", *words)
    assert command("restunnel-x", "A service", shown) == 0
    assert f"restunnel-x {run}\n" in capsys.readouterr().out
    assert command("restunnel-x", "A service", parsed("install", *words)) == 0
    said = capsys.readouterr().err
    assert "installed and started" in said
    assert ("--data-dir" in said) == (user == 0)
    assert command("restunnel-x", "A service", parsed("uninstall")) == 0
    assert "stopped and removed" in capsys.readouterr().err


def test_the_command_on_macos(machine, monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "darwin")
    shown = parsed("install", "--print")
    assert service_command.run_service_command("restunnel-x", "A service", shown) == 0
    assert "<key>ProgramArguments</key>" in capsys.readouterr().out
    service_command.run_service_command("restunnel-x", "A service", parsed("install"))
    assert "hint:" not in capsys.readouterr().err
