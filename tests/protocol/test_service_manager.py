"""Watchdog and socket activation, as systemd does them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile

import pytest

from restunnel_protocol.program import service
from restunnel_protocol.program.service import inherited_sockets, watchdog


@pytest.fixture
def manager(monkeypatch):
    """The socket on which a service tells of itself."""
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.bind(f"{directory}/notify")
        sock.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{directory}/notify")
        yield sock


async def test_the_watchdog_hears_of_a_loop_that_goes_round(manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with watchdog():
        for _ in range(3):
            assert await asyncio.to_thread(manager.recv, 100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "variables", [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}]
)
async def test_nobody_is_told_who_does_not_ask(manager, monkeypatch, variables):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    manager.setblocking(False)
    with watchdog():
        await asyncio.sleep(0.05)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


RECEIVER = """
import json, os
os.environ["LISTEN_PID"] = str(os.getpid())
from restunnel_protocol.program.service import inherited_sockets
found = inherited_sockets()
print(json.dumps({name: sock.getsockname()[1] for name, sock in found.items()}))
print(json.dumps([len(inherited_sockets()), sorted(n for n in os.environ if "LISTEN" in n)]))
"""


def test_sockets_are_taken_over_by_their_names_once():
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        ports = [sock.getsockname()[1] for sock in (one, two)]

        def place() -> None:
            for number, sock in ((63, one), (64, two)):  # out of the way of those that count
                os.dup2(sock.fileno(), number)
            os.dup2(63, 3)
            os.dup2(64, 4)

        done = subprocess.run(
            [sys.executable, "-c", RECEIVER],
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "tunnel:socks"},
            close_fds=False,
            preexec_fn=place,
            capture_output=True,
            text=True,
            check=True,
        )
    found, again = map(json.loads, done.stdout.splitlines())
    assert found == dict(zip(("tunnel", "socks"), ports, strict=True))
    assert again == [0, []]


def test_sockets_of_another_process_are_left_alone(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert inherited_sockets() == {}


def test_sockets_without_names_have_none(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(service, "FIRST_INHERITED", os.dup(listener.fileno()))
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
        (found,) = inherited_sockets().items()
        assert found[0] == ""
        found[1].close()
