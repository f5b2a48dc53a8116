"""Looking after a hub: doctor, backup and restore, the service manager."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from restunnel_protocol import PairingLink
from support.services import BIN, PATIENCE, Hub, Node, run, socks_connect, wait_until


def findings(hub: Hub, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """What `doctor` finds, by its name, and its exit code."""
    done = run("restunnel-hub", "--data-dir", hub.data_dir, "doctor", "--json", *arguments)
    return done.returncode, {found["name"]: found for found in json.loads(done.stdout)}


def test_a_healthy_hub_is_found_healthy_and_its_port_leads_to_it(own_tunnel: tuple[Hub, Node]):
    hub, _ = own_tunnel
    code, found = findings(hub)
    assert code == 0
    assert [name for name, one in found.items() if one["state"] == "failure"] == []
    assert found["nodes"]["detail"] == "1 of 1 connected"
    assert found["database"]["state"] == "ok"
    (port,) = [one for name, one in found.items() if name.startswith("tunnel port at")]
    assert port["state"] == "ok"


@pytest.mark.patient
def test_a_port_that_leads_elsewhere_is_found(hub: Hub):
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = [sock.getsockname()[1] for sock in (other, closed)]
        hub.start("--advertise", *(f"127.0.0.1:{port}" for port in ports))
        code, found = findings(hub)
    assert code == 1
    elsewhere, unreachable = (found[f"tunnel port at 127.0.0.1:{port}"] for port in ports)
    assert elsewhere["detail"] == "leads to something else"
    assert unreachable["detail"] == "cannot be reached: connection refused"
    assert "forward TCP port" in unreachable["remedy"]


def test_what_is_wrong_with_a_hub_that_does_not_run_is_found_with_remedies(hub: Hub):
    hub.start()
    hub.stop()
    code, found = findings(hub)
    assert found["hub"]["state"] == "warning"
    (hub.data_dir / "hub_key.bin").chmod(0o644)
    database = hub.data_dir / "hub.sqlite3"
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = hub.data_dir / "hub.toml"
        config.write_text(f'http = "127.0.0.1:{taken.getsockname()[1]}"\n')
        code, found = findings(hub)
    assert code == 1
    assert found["hub_key.bin"]["remedy"].startswith("chmod 600 ")
    assert found["database"]["state"] == "failure"
    assert "restore" in found["database"]["remedy"]
    assert "address in use" in found["http"]["detail"]
    config.write_text("colour = 'red'\n")
    code, found = findings(hub)
    assert (code, found["configuration"]["state"]) == (1, "failure")


def test_findings_are_printed_for_people(own_tunnel: tuple[Hub, Node]):
    hub, _ = own_tunnel
    text = hub.call("doctor")
    assert "ok       hub: running" in text


@pytest.mark.patient
def test_a_restored_hub_is_the_same_hub_to_its_nodes(own_tunnel: tuple[Hub, Node], tmp_path: Path):
    hub, node = own_tunnel
    name = hub.nodes()[0]["name"]
    hub.call("node", "note", name, "by the window")
    unused = hub.link()
    port = PairingLink.parse(unused).endpoints[0].port
    saved = tmp_path / "hub.tar"
    hub.call("backup", saved)  # while it runs
    assert saved.stat().st_mode & 0o777 == 0o600
    done = run("restunnel-hub", "--data-dir", hub.data_dir, "backup", saved)
    assert (done.returncode, "exists already" in done.stderr) == (1, True)
    hub.destroy()
    again = Hub(tmp_path / "again")
    try:
        again.call("restore", saved)
        again.start(f"--tunnel=127.0.0.1:{port}")
        again.wait_online()  # the node came by itself
        assert again.nodes()[0]["note"] == "by the window"
        other = Node(tmp_path / "other")
        done = run("restunnel-node", "--data-dir", other.data_dir, "pair", unused)
        assert done.returncode != 0  # links of before the backup may have been used since
        done = run("restunnel-hub", "--data-dir", again.data_dir, "restore", saved)
        assert "is already running" in done.stderr
        again.stop()
        done = run("restunnel-hub", "--data-dir", again.data_dir, "restore", saved)
        assert (done.returncode, "there is a hub" in done.stderr) == (1, True)
        again.call("restore", saved, "--force")
        assert len(list(again.data_dir.glob("hub_key.bin.before-*"))) == 1
    finally:
        again.destroy()


DAMAGES = ["text", "cut", "without key", "bad database", "bad key"]


def test_what_is_no_backup_changes_nothing(hub: Hub, tmp_path: Path):
    hub.start()
    whole = tmp_path / "whole.tar"
    hub.call("backup", whole)
    hub.stop()
    for damage in DAMAGES:
        refuse_damaged(hub, whole, tmp_path / damage, damage)


def refuse_damaged(hub: Hub, whole: Path, directory: Path, damage: str) -> None:
    directory.mkdir()
    saved, parts = directory / "hub.tar", directory / "parts"
    saved.write_bytes(whole.read_bytes())
    with tarfile.open(saved) as archive:
        archive.extractall(parts, filter="data")
    if damage == "text":
        saved.write_bytes(b"not a backup\n" * 100)
    elif damage == "cut":
        saved.write_bytes(saved.read_bytes()[:3000])
    else:
        names = ["restunnel-hub.json", "hub.sqlite3"]
        if damage == "bad database":
            (parts / "hub.sqlite3").write_bytes(b"no database at all" * 300)
        if damage == "bad key":
            (parts / "hub_key.bin").write_bytes(b"short")
        if damage != "without key":
            names.append("hub_key.bin")
        with tarfile.open(saved, "w") as archive:
            for name in names:
                archive.add(parts / name, name)
    before = {path.name: path.read_bytes() for path in hub.data_dir.iterdir()}
    done = run("restunnel-hub", "--data-dir", hub.data_dir, "restore", "--force", saved)
    assert done.returncode == 1
    assert done.stderr.startswith("restunnel-hub: ")
    assert {path.name: path.read_bytes() for path in hub.data_dir.iterdir()} == before


def test_the_unit_is_shown_with_the_options_it_would_run_with(tmp_path: Path):
    done = run(
        *("restunnel-hub", "--data-dir", tmp_path, "service", "install", "--print"),
        *("--", "--advertise", "hub.example.org:9000"),
    )
    assert done.returncode == 0
    command = f"restunnel-hub run --data-dir {tmp_path} --advertise hub.example.org:9000\n"
    assert command in done.stdout
    if not Path("/run/systemd/system").exists():
        done = run("restunnel-hub", "service", "install")
        assert done.returncode == 1
        assert "this system is not run by systemd" in done.stderr


ACTIVATE = """
import os, sys
for name, number in (("LISTEN_PID", os.getpid()), ("LISTEN_FDS", sys.argv[1])):
    os.environ[name] = str(number)
os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.argv[3], sys.argv[3:])
"""


def activated(hub: Hub, names: list[str], host: str, *arguments: str) -> subprocess.Popen[str]:
    """The hub as systemd starts it for sockets of its own."""
    sockets = [socket.create_server((host, 0)) for _ in names]

    def place() -> None:
        for number, sock in enumerate(sockets):
            os.dup2(sock.fileno(), 100 + number)
        for number in range(len(sockets)):
            os.dup2(100 + number, 3 + number)

    command = [BIN / "restunnel-hub", "run", "--data-dir", hub.data_dir, *arguments]
    process = subprocess.Popen(
        [sys.executable, "-c", ACTIVATE, str(len(names)), ":".join(names), *map(str, command)],
        close_fds=False,
        preexec_fn=place,
        stderr=subprocess.PIPE,
        text=True,
    )
    for sock in sockets:
        sock.close()
    return process


def test_sockets_of_systemd_are_served(hub: Hub):
    others = ["--tunnel=127.0.0.1:0", "--dashboard=127.0.0.1:0"]
    with activated(hub, ["socks", "http"], "127.0.0.1", *others) as process:
        try:
            wait_until(lambda: hub.data_dir.joinpath("hub.sock").exists(), "the hub")
            listeners = wait_until(lambda: hub.status()["listeners"], "its listeners")
            host, port = listeners["socks5"].split(":")
            sock, code = socks_connect((host, int(port)), "example.com", 80)
            sock.close()
            assert code == 1  # no node: it is the hub that answers
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("names", "host", "words"),
    [
        (["proxy"], "127.0.0.1", "systemd hands over a socket called 'proxy'"),
        (["socks"], "0.0.0.0", "is not a loopback address, and this service must stay private"),
    ],
)
def test_sockets_of_systemd_that_are_strange_or_exposed_are_refused(hub: Hub, names, host, words):
    with activated(hub, names, host) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert words in said


def test_the_service_manager_hears_of_readiness_life_and_the_end(hub: Hub, tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        hub.start(environment=environment)
        heard = [manager.recv(100) for _ in range(4)]
        assert heard.count(b"READY=1") == 1
        assert heard.count(b"WATCHDOG=1") == 3
        hub.send(signal.SIGSTOP)  # a hub that hangs is one that says nothing
        manager.settimeout(1.0)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            while time.monotonic() < begun + PATIENCE:
                manager.recv(100)
        hub.send(signal.SIGCONT)
        manager.settimeout(PATIENCE)
        hub.send(signal.SIGTERM)
        while manager.recv(100) != b"STOPPING=1":
            pass
        assert hub.wait() == 0
