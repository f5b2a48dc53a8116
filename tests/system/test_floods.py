"""Strangers in great number: who belongs here notices little."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import time

import pytest

from restunnel_protocol import Enroll, Hello, Initiator, PairingLink, PrivateKey
from support.flood import flooded
from support.origin import origin
from support.services import PATIENCE, Hub, memory, wait_until

RATE = 5000
"""Connections a second of a flood."""

CROWD = 50_000
"""Strangers that hold on; fewer where a process may not have as many descriptors."""

BYTES_A_STRANGER = 200_000_000 / 50_000

TRIES = 3
"""Attempts at what other work on the machine can spoil."""


def join(hub: Hub, link: PairingLink, key: PrivateKey, **options) -> float:
    """Seconds that a node needs from its connect to the hub's answer."""
    started = time.monotonic()
    message = Initiator(key, link.hub, Hello(time.time_ns()), **options).write_message_1()
    with socket.create_connection(hub.address("tunnel"), PATIENCE) as sock:
        sock.sendall(message)
        assert sock.recv(2)
    return time.monotonic() - started


@pytest.fixture
def member(own_tunnel):
    """A hub with a connected node, and the means of a second node that is known to it."""
    hub, node = own_tunnel
    link, key = PairingLink.parse(hub.link()), PrivateKey.generate()
    join(hub, link, key, enroll=Enroll(link.token))
    return hub, node, lambda: join(hub, link, key)


@pytest.mark.alone
@pytest.mark.slow
def test_a_flood_leaves_tunnels_their_rate_and_nodes_their_way_in(member, curl):
    hub, node, joining = member
    with origin() as web, socket.create_server(("127.0.0.1", 0)) as unused:
        node.allow(f"127.0.0.1:{web}")
        elsewhere = unused.getsockname()[1]
        unused.close()
        command = [curl, "-s", "-m", "4", "-o", "/dev/null", "-w", "%{speed_download}", "--proxy"]
        command += [
            f"socks5h://{hub.listeners['socks5']}",
            f"http://127.0.0.1:{web}/bytes/{1 << 50}",
        ]

        def rate_beside_a_flood_of(port: int) -> tuple[float, float]:
            with flooded(port, RATE, 30):
                time.sleep(0.5)
                download = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                time.sleep(2)
                slowest = max(joining() for _ in range(5))
                return float(download.communicate()[0]), slowest

        found = []
        for _ in range(TRIES):
            before, _ = rate_beside_a_flood_of(elsewhere)
            during, slowest = rate_beside_a_flood_of(hub.address("tunnel")[1])
            found.append((during / before, slowest))
            if during / before >= 0.8 and slowest < 1:
                return
        pytest.fail(f"(part of the rate, seconds to join): {found}")


HOLD = """
import socket, sys
port, first, count = map(int, sys.argv[1:])
held = []
for number in range(first, first + count):
    sock = socket.socket()
    sock.bind((f"127.0.2.{number % 200 + 1}", 0))
    sock.connect(("127.0.0.1", port))
    held.append(sock)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def strangers(port: int, count: int, limit: int):
    """Connections that say nothing, held by as many processes as they need."""
    with contextlib.ExitStack() as stack:
        for first in range(0, count, limit):
            command = [
                sys.executable,
                "-c",
                HOLD,
                str(port),
                str(first),
                str(min(limit, count - first)),
            ]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout.readline() == "held\n"
        yield


@pytest.mark.slow
def test_a_crowd_of_strangers_costs_little_and_keeps_nobody_out(member):
    hub, _, joining = member
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = CROWD if limit == resource.RLIM_INFINITY else min(CROWD, limit * 7 // 10)
    before = memory(hub)
    with strangers(hub.address("tunnel")[1], count, limit=10_000):
        wait_until(lambda: hub.status()["strangers"] == count, "all strangers to be accepted")
        assert memory(hub) - before < count * BYTES_A_STRANGER
        assert joining() < 5
    # Peers that ended their side are held on for a while, but only so many.
    wait_until(lambda: hub.status()["strangers"] < count / 3, "most strangers to be forgotten")
