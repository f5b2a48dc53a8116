"""Starting, stopping, and noticing that the other end is gone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support.origin import BLOCK, origin, pattern_digest
from support.services import (
    PATIENCE,
    Hub,
    Node,
    read_exactly,
    reset,
    socks_connect,
    tunnel,
    wait_until,
)

QUICK = ("--ping-interval=300ms", "--ping-timeout=300ms")
"""A dead peer is noticed within 0.6 s instead of 40 s."""

SIZE = 64 * 1024 * 1024
"""Bytes that fit neither sockets nor windows."""


@pytest.fixture
def page(own_tunnel: tuple[Hub, Node]):
    """A web server that the node may reach."""
    with origin() as port:
        own_tunnel[1].allow(f"127.0.0.1:{port}")
        yield port


def begin_download(hub: Hub, port: int) -> socket.socket:
    """A download of `SIZE` bytes of which nothing but the head has been read."""
    sock, reply = socks_connect(hub.address("socks5"), "127.0.0.1", port)
    assert reply == 0
    sock.sendall(b"GET /bytes/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % SIZE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(sock, 1)
    return sock


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
@pytest.mark.parametrize("which", [0, 1], ids=["hub", "node"])
def test_an_idle_service_stops_at_once_and_quietly(own_tunnel, which, number):
    service = own_tunnel[which]
    service.send(number)
    assert service.wait(5) == 0
    assert "Traceback" not in service.log
    assert "ERROR" not in service.log


@pytest.mark.parametrize("which", [0, 1], ids=["hub", "node"])
def test_a_running_transfer_may_finish_before_the_stop(own_tunnel, page, which):
    hub, service = own_tunnel[0], own_tunnel[which]
    with begin_download(hub, page) as sock:
        service.send(signal.SIGTERM)
        wait_until(lambda: "stopping" in service.log, "the stop to begin")
        digest, left = hashlib.sha256(), SIZE
        while left:
            piece = sock.recv(1 << 20)
            assert piece, f"{left} bytes are missing"
            digest.update(piece)
            left -= len(piece)
        sock.shutdown(socket.SHUT_WR)
    assert digest.hexdigest() == pattern_digest(SIZE)
    assert service.wait() == 0
    assert "Traceback" not in service.log


@pytest.mark.parametrize("which", [0, 1], ids=["hub", "node"])
def test_a_second_signal_does_not_wait_and_cuts_visibly(own_tunnel, page, which):
    hub, service = own_tunnel[0], own_tunnel[which]
    with begin_download(hub, page) as sock:
        service.send(signal.SIGTERM)
        wait_until(lambda: "stopping" in service.log, "the stop to begin")
        assert service.process.poll() is None
        service.send(signal.SIGTERM)
        assert service.wait(8) == 0
        with pytest.raises(ConnectionResetError):
            read_exactly(sock, SIZE)
    assert "Traceback" not in service.log


@pytest.mark.parametrize("which", [0, 1], ids=["hub", "node"])
def test_a_killed_end_never_makes_a_transfer_look_complete(own_tunnel, page, which):
    hub, service = own_tunnel[0], own_tunnel[which]
    with begin_download(hub, page) as sock:
        service.destroy()
        with pytest.raises(ConnectionResetError):
            read_exactly(sock, SIZE)


def test_a_killed_node_fails_plain_http_visibly(own_tunnel, page, curl):
    hub, node = own_tunnel
    command = [curl, "-s", "-x", f"http://{hub.listeners['http']}", "--limit-rate", "1M"]
    process = subprocess.Popen(
        [*command, f"http://127.0.0.1:{page}/bytes/{SIZE}"], stdout=subprocess.PIPE
    )
    assert process.stdout.read(1) == BLOCK[:1]
    node.destroy()
    process.communicate(timeout=PATIENCE)
    assert process.returncode in (18, 56)  # partial file, failure in receiving


def test_the_hub_notices_a_node_that_falls_silent(tmp_path: Path):
    with tunnel(tmp_path) as (hub, node):
        hub.stop()
        hub.start(f"--tunnel={hub.listeners['tunnel']}", *QUICK)
        hub.wait_online()
        node.send(signal.SIGSTOP)
        hub.wait_online(0)
        assert "no sign of life" in hub.log
        node.send(signal.SIGCONT)
        hub.wait_online()


def test_the_node_notices_a_hub_that_falls_silent(tmp_path: Path):
    with tunnel(tmp_path, *QUICK, "--backoff-first=100ms") as (hub, node):
        hub.send(signal.SIGSTOP)
        wait_until(lambda: "no sign of life" in node.log, "the node to notice")
        hub.send(signal.SIGCONT)
        hub.wait_online()


def test_silence_alone_does_not_end_a_tunnel_whose_peer_answers(tmp_path: Path):
    with tunnel(tmp_path, *QUICK) as (hub, node):
        connected = node.log.count(": connected")
        received = hub.nodes()[0]["bytes_received"]
        # Several PINGs later the tunnel is still the same one.
        wait_until(lambda: hub.nodes()[0]["bytes_received"] > received + 200, "PINGs")
        assert node.log.count(": connected") == connected


def test_the_node_comes_back_after_the_hub_was_away(own_tunnel: tuple[Hub, Node]):
    hub, _ = own_tunnel
    address = hub.listeners["tunnel"]
    hub.destroy()
    hub.start(f"--tunnel={address}")
    hub.wait_online()


def test_a_newer_tunnel_of_the_same_key_replaces_the_older(own_tunnel, tmp_path):
    hub, node = own_tunnel
    node.send(signal.SIGSTOP)  # a device that lost its network: the hub has not noticed
    twin = Node(tmp_path / "twin")
    twin.data_dir.mkdir(mode=0o700)
    for name in ("node_key.bin", "hubs.toml", "timestamp"):
        (twin.data_dir / name).write_bytes((node.data_dir / name).read_bytes())
        (twin.data_dir / name).chmod(0o600)
    try:
        twin.start()
        wait_until(lambda: ": connected" in twin.log, "the newer tunnel")
        wait_until(lambda: "replaced node=" in hub.log, "the newer tunnel at the hub")
        assert [n["online"] for n in hub.nodes()] == [True]
        node.send(signal.SIGCONT)
        wait_until(lambda: "a newer tunnel of this device took over" in node.log, "the older's end")
    finally:
        twin.destroy()


def test_the_node_listens_on_no_network_port(own_tunnel: tuple[Hub, Node]):
    _, node = own_tunnel
    inodes = set()
    for entry in os.scandir(f"/proc/{node.process.pid}/fd"):
        target = str(Path(entry.path).readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    listening = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{node.process.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (table.startswith("udp") or fields[3] == "0A"):
                listening.append(line)
    assert listening == []


def stalled_upload(hub: Hub, node: Node, listener: socket.socket) -> tuple[socket.socket, ...]:
    """A client that uploads until nothing moves, to a target that does not read."""
    port = listener.getsockname()[1]
    node.allow(f"127.0.0.1:{port}")
    client, reply = socks_connect(hub.address("socks5"), "127.0.0.1", port)
    assert reply == 0
    target, _ = listener.accept()
    client.settimeout(1.0)
    with pytest.raises(TimeoutError):
        while True:
            client.send(bytes(1 << 20))
    return client, target


def test_a_client_that_vanishes_from_a_stalled_upload_is_noticed(own_tunnel):
    hub, node = own_tunnel
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client, target = stalled_upload(hub, node, listener)
        assert hub.nodes()[0]["streams"] == 1
        reset(client)
        wait_until(lambda: hub.nodes()[0]["streams"] == 0, "the stream's end")
        target.settimeout(PATIENCE)
        with target, pytest.raises(ConnectionResetError):
            while target.recv(1 << 20):
                pass


def test_a_target_that_vanishes_behind_a_client_that_does_not_read_is_noticed(own_tunnel, page):
    """The node has paused reading when the target resets; the client hears of it all the same."""
    hub, node = own_tunnel
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        node.allow(f"127.0.0.1:{port}")
        client, reply = socks_connect(hub.address("socks5"), "127.0.0.1", port)
        assert reply == 0
        target, _ = listener.accept()
        target.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while True:
                target.send(bytes(1 << 20))
        reset(target)
        with client, pytest.raises(ConnectionResetError):
            read_exactly(client, 1 << 30)


def test_a_client_that_half_closed_and_then_vanished_is_noticed(own_tunnel):
    hub, node = own_tunnel
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        node.allow(f"127.0.0.1:{port}")
        client, reply = socks_connect(hub.address("socks5"), "127.0.0.1", port)
        assert reply == 0
        target, _ = listener.accept()
        client.shutdown(socket.SHUT_WR)
        assert target.recv(1) == b""
        reset(client)
        wait_until(lambda: hub.nodes()[0]["streams"] == 0, "the stream's end")
        target.settimeout(PATIENCE)
        with target, pytest.raises(ConnectionError):
            while True:
                target.send(b"x")


def test_sighup_loads_the_settings_again(own_tunnel: tuple[Hub, Node]):
    hub, node = own_tunnel
    (hub.data_dir / "hub.toml").write_text('advertise = ["hub.example:9000"]\n')
    (node.data_dir / "node.toml").write_text('[policy]\nallow = ["10.1.2.3:80"]\n')
    for service in own_tunnel:
        service.send(signal.SIGHUP)
        wait_until(lambda service=service: "settings loaded again" in service.log, "the reload")
    assert "h=hub.example:9000" in hub.link()
    for service, name in zip(own_tunnel, ("hub.toml", "node.toml"), strict=True):
        (service.data_dir / name).write_text("nonsense = 1\n")
        service.send(signal.SIGHUP)
        wait_until(lambda service=service: "the settings stay as they are" in service.log, "it")
    assert "h=hub.example:9000" in hub.link()
    assert hub.nodes()[0]["online"]


def test_connects_that_are_taken_back_at_once_leave_nothing_behind(own_tunnel, page):
    hub, node = own_tunnel
    name = b"127.0.0.1"
    request = b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(name),)) + name + page.to_bytes(2, "big")
    for _ in range(300):
        sock = socket.create_connection(hub.address("socks5"))
        sock.sendall(request)
        reset(sock)
    sock, reply = socks_connect(hub.address("socks5"), "127.0.0.1", page)
    sock.close()
    assert reply == 0
    wait_until(lambda: hub.nodes()[0]["streams"] == 0, "the hub's streams to end")
    status = lambda: json.loads(node.call("status", "--json"))["hubs"][0]  # noqa: E731
    wait_until(lambda: status()["streams"] == 0, "the node's connections to end")
    assert status()["streams_served"] > 1
