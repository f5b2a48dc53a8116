"""What people see when something is wrong: one clear line, a hint, and nothing lost."""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
from pathlib import Path

import pytest

from support.services import Hub, Node, run


def assert_clear(done, program: str, code: int, message: str, *, hint: bool = True) -> None:
    """One line with the program's name, at most one hint, the right exit code."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert re.fullmatch(rf"{program}: {message}", lines[0]), lines
    assert len(lines) == (2 if hint else 1), lines
    assert not hint or lines[1].startswith("hint: ")


def test_a_taken_port(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("tunnel", "socks", "http", "dashboard"):
            others = {"tunnel", "socks", "http", "dashboard"} - {name}
            free = [f"--{other}=127.0.0.1:0" for other in others]
            done = run(
                *["restunnel-hub", "run", "--data-dir", tmp_path / "hub"],
                *[f"--{name}=127.0.0.1:{port}", *free],
            )
            message = rf"cannot listen on 127\.0\.0\.1:{port}: address in use"
            assert_clear(done, "restunnel-hub", 1, message)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_file_is_left_as_it_is(tmp_path: Path, content: bytes):
    for program, name in (("restunnel-hub", "hub_key.bin"), ("restunnel-node", "node_key.bin")):
        data_dir = tmp_path / program
        data_dir.mkdir(mode=0o700)
        key = data_dir / name
        key.write_bytes(content)
        key.chmod(0o600)
        done = run(program, "run", "--data-dir", data_dir)
        message = rf"cannot use the key file \S+{name}: it has {len(content)} bytes instead of 32"
        assert_clear(done, program, 1, message)
        assert key.read_bytes() == content


def test_a_key_file_that_others_can_read(hub: Hub):
    hub.start()
    hub.stop()
    (hub.data_dir / "hub_key.bin").chmod(0o644)
    done = run("restunnel-hub", "run", "--data-dir", hub.data_dir)
    assert_clear(done, "restunnel-hub", 1, r"cannot use \S+: other users can read it")
    assert "chmod 600" in done.stderr


def test_a_key_file_that_cannot_be_read(tmp_path: Path):
    data_dir = tmp_path / "hub"
    data_dir.mkdir(mode=0o700)
    (data_dir / "hub_key.bin").symlink_to("/etc/hostname")
    done = run("restunnel-hub", "run", "--data-dir", data_dir)
    assert_clear(done, "restunnel-hub", 1, r"cannot read \S+hub_key.bin: .*")


@pytest.mark.parametrize("damage", ["garbage", "torn", "newer"])
def test_a_bad_database_is_left_as_it_is(hub: Hub, node: Node, damage: str):
    hub.start()
    node.pair(hub)
    hub.stop()
    database = hub.data_dir / "hub.sqlite3"
    if damage == "garbage":
        database.write_bytes(b"this is no database" * 1000)
    elif damage == "torn":
        content = database.read_bytes()
        database.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
    else:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            connection.commit()
    before = database.read_bytes()
    done = run("restunnel-hub", "run", "--data-dir", hub.data_dir, "--tunnel=127.0.0.1:0")
    assert_clear(done, "restunnel-hub", 1, r".*the database \S+hub\.sqlite3.*")
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    "command", [["nodes"], ["pair"], ["status"], ["dashboard"], ["node", "show", "phone"]]
)
def test_a_hub_that_is_not_running(tmp_path: Path, command: list[str]):
    done = run("restunnel-hub", *command, "--data-dir", tmp_path / "hub")
    assert_clear(done, "restunnel-hub", 3, "the hub is not running")


def test_a_node_that_is_not_running(tmp_path: Path):
    done = run("restunnel-node", "status", "--data-dir", tmp_path / "node")
    assert_clear(done, "restunnel-node", 3, "the node is not running")


def test_a_node_that_is_not_paired(tmp_path: Path):
    done = run("restunnel-node", "run", "--data-dir", tmp_path / "node")
    assert_clear(done, "restunnel-node", 3, "this node is not paired with any hub")


def test_a_hub_that_cannot_be_reached(hub: Hub, node: Node):
    hub.start()
    link = hub.link()
    hub.stop()
    done = run("restunnel-node", "--data-dir", node.data_dir, "pair", link)
    message = r"cannot reach the hub at \S+: connection refused"
    assert_clear(done, "restunnel-node", 3, message)


def test_a_second_service_on_the_same_data(own_tunnel: tuple[Hub, Node]):
    for service, what in zip(own_tunnel, ("a hub", "a node"), strict=True):
        done = run(service.program, "run", "--data-dir", service.data_dir)
        message = rf"{what} is already running with the data directory \S+"
        assert_clear(done, service.program, 1, message)


@pytest.mark.parametrize(
    "name", ["socks", pytest.param("http", marks=pytest.mark.slow), "dashboard"]
)
def test_a_private_service_is_not_exposed(tmp_path: Path, name: str):
    for host in ("0.0.0.0", "[::]", "192.0.2.1"):
        done = run("restunnel-hub", "run", "--data-dir", tmp_path / "hub", f"--{name}={host}:0")
        message = rf"--{name}: \S+ is not a loopback address, and this service must stay private"
        assert_clear(done, "restunnel-hub", 2, message)
    exposed = [f"--{name}=0.0.0.0:0", "--expose", name]
    done = run("restunnel-hub", "run", "--data-dir", tmp_path / "hub", *exposed)
    message = rf"--{name}: an exposed \w+ needs .*, and there (is|are) none"
    assert_clear(done, "restunnel-hub", 2, message)


def test_bad_configuration_names_its_source(tmp_path: Path):
    config = tmp_path / "hub.toml"
    for text, message in (
        ("colour = 'red'", "unknown setting in the configuration: colour"),
        ("socks = 'here'", r"socks in the configuration: no port in 'here'"),
        ("socks =", r"cannot read the configuration .*"),
    ):
        config.write_text(text)
        done = run("restunnel-hub", "run", "--data-dir", tmp_path / "hub", "--config", config)
        assert_clear(done, "restunnel-hub", 2, message, hint=False)
    done = run(
        *["restunnel-hub", "run", "--data-dir", tmp_path / "hub"],
        env={"RESTUNNEL_HUB_PING_INTERVAL": "soon", "PATH": "/usr/bin:/bin"},
    )
    message = r"RESTUNNEL_HUB_PING_INTERVAL: not a duration: 'soon' \(as in 30s, 15m, 2h\)"
    assert_clear(done, "restunnel-hub", 2, message, hint=False)


def test_a_bad_rule_shows_how_rules_look(tmp_path: Path):
    done = run("restunnel-node", "policy", "allow", "my nas", "--data-dir", tmp_path / "node")
    assert_clear(done, "restunnel-node", 2, "policy allow: not a host name: 'my nas'")


def test_a_refused_target_is_explained_with_a_code_of_its_own(tmp_path: Path):
    done = run(
        "restunnel-node", "policy", "check", "192.168.1.1:80", "--data-dir", tmp_path / "node"
    )
    assert done.returncode == 4
    assert done.stdout == ("refused: 192.168.1.1: 192.168.1.1 is private use (RFC 1918)\n")


def test_a_name_that_leads_nowhere_has_no_verdict(tmp_path: Path):
    done = run(
        *["restunnel-node", "policy", "check", "made-up.invalid:80"],
        *["--data-dir", tmp_path / "node"],
    )
    message = "no verdict: made-up.invalid: .*"
    assert_clear(done, "restunnel-node", 1, message, hint=False)


def test_settings_come_from_file_environment_and_flags_in_that_order(hub: Hub):
    ports = []
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(sock.getsockname()[1])
    file, environment, flag = ports
    hub.data_dir.mkdir(mode=0o700)
    (hub.data_dir / "hub.toml").write_text(
        "".join(f"{name} = '127.0.0.1:{file}'\n" for name in ("socks", "http", "dashboard"))
    )
    hub.program = "restunnel-hub"
    super(Hub, hub).start(
        *["--tunnel=127.0.0.1:0", f"--dashboard=127.0.0.1:{flag}"],
        environment={
            "RESTUNNEL_HUB_HTTP": f"127.0.0.1:{environment}",
            "RESTUNNEL_HUB_DASHBOARD": "127.0.0.1:1",
        },
    )
    listeners = hub.status()["listeners"]
    assert listeners["socks5"] == f"127.0.0.1:{file}"
    assert listeners["http"] == f"127.0.0.1:{environment}"
    assert listeners["dashboard"] == f"127.0.0.1:{flag}"
