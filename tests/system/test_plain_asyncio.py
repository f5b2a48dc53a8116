"""Without uvloop, as on Windows or in Termux, everything works on asyncio's own loop."""

from __future__ import annotations

import hashlib
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
    raw_server,
    read_exactly,
    read_to_end,
    reset,
    socks_connect,
)

SIZE = 100_000_000


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory):
    """A hub and a node whose Python finds no uvloop, and a web server."""
    directory = tmp_path_factory.mktemp("plain")
    blocked = directory / "blocked"
    blocked.mkdir()
    (blocked / "uvloop.py").write_text("raise ImportError('not on this system')\n")
    environment = {"PYTHONPATH": str(blocked)}
    hub, node = Hub(directory / "hub"), Node(directory / "node")
    try:
        hub.start(environment=environment)
        node.pair(hub)
        node.start(environment=environment)
        hub.wait_online()
        with origin() as port:
            node.allow(f"127.0.0.1:{port}")
            yield hub, node, port
        for service in (node, hub):
            service.send(signal.SIGTERM)
            assert service.wait() == 0
            assert "Traceback" not in service.log
    finally:
        node.destroy()
        hub.destroy()


@pytest.mark.parametrize(
    "proxy",
    [pytest.param("socks5h://{socks5}", marks=pytest.mark.slow), "http://{http}"],
)
def test_bytes_arrive_whole_down_and_up(plain, curl, proxy, tmp_path: Path):
    hub, _, port = plain
    options = ["-sS", "--proxy", proxy.format(**hub.listeners)]
    file = tmp_path / "body"
    subprocess.run(
        [curl, *options, "-o", str(file), f"http://127.0.0.1:{port}/bytes/{SIZE}"],
        check=True,
        timeout=PATIENCE,
    )
    assert hashlib.sha256(file.read_bytes()).hexdigest() == pattern_digest(SIZE)
    done = subprocess.run(
        [curl, *options, "-T", str(file), f"http://127.0.0.1:{port}/"],
        check=True,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
    )
    assert done.stdout == pattern_digest(SIZE)


def test_half_closes_and_resets_pass(plain):
    hub, node, _ = plain
    with raw_server(node, lambda sock: sock.sendall(read_to_end(sock))) as (host, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port)
        with sock:
            assert reply == 0
            sock.sendall(BLOCK)
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == BLOCK

    def cut(sock: socket.socket) -> None:
        sock.sendall(b"last words")
        assert sock.recv(2) == b"go"
        reset(sock)

    with raw_server(node, cut) as (host, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port)
        with sock:
            assert reply == 0
            assert read_exactly(sock, 10) == b"last words"
            sock.sendall(b"go")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
