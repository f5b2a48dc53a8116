"""Clients that do not read: they cost one window each, and stop nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time

import pytest
import uvloop

from support.origin import origin, pattern_digest
from support.services import PATIENCE, memory, read_exactly, socks_connect, wait_until

STALLED = 1000
SIZE = 700_000
"""Bytes that each stalled client asks for: more than windows and sockets on the way take, but
no more than the kernel, which has client, hub, node and target at once here, can hold."""

BUDGET = 64 * 1024 * 1024
"""Bytes that the windows of one tunnel may promise (limits.TUNNEL_WINDOW_BUDGET)."""

TRICKLE = 16 * 1024 * 1024
"""Bytes in a second that all stalled streams together may still move."""

OVERHEAD = 48 * 1024
"""Bytes a stream may cost beside what its window counts: sockets, relays, dispatch."""


def stalled_client(address: tuple[str, int], port: int, size: int = SIZE) -> socket.socket:
    """A client that has asked for `size` bytes and reads none of them."""
    sock = socket.socket()
    sock.settimeout(PATIENCE)
    sock.connect(address)
    request = b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")
    sock.sendall(request)
    assert read_exactly(sock, 12)[3] == 0
    sock.sendall(b"GET /bytes/%d HTTP/1.1\r\n\r\n" % size)
    return sock


def wait_for_standstill(hub) -> None:
    """Until the tunnel carries next to nothing: what kernels still squeeze in."""

    def still() -> bool:
        before = hub.nodes()[0]["bytes_received"]
        time.sleep(1)
        return hub.nodes()[0]["bytes_received"] - before < TRICKLE

    wait_until(still, "the stalled streams to fill their windows", 90)


def rest_of_body(sock: socket.socket, size: int) -> str:
    """Read an answer to its end; the SHA-256 of its body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(sock, 1)
    digest = hashlib.sha256()
    while size:
        piece = sock.recv(min(size, 1 << 16))
        assert piece
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def test_a_thousand_stalled_downloads_cost_no_more_than_the_budget(own_tunnel):
    hub, node = own_tunnel
    with origin() as port, contextlib.ExitStack() as stack:
        node.allow(f"127.0.0.1:{port}")
        before = {service: memory(service) for service in own_tunnel}
        address = hub.address("socks5")
        clients = [stack.enter_context(stalled_client(address, port)) for _ in range(STALLED)]
        wait_for_standstill(hub)
        for service, start in before.items():
            growth = memory(service) - start
            assert growth < BUDGET + STALLED * OVERHEAD, f"{service.program}: {growth >> 20} MiB"
        sock, reply = socks_connect(address, "127.0.0.1", port)
        with sock:  # the others are served as ever
            assert reply == 0
            sock.sendall(b"GET /bytes/1000000 HTTP/1.1\r\n\r\n")
            assert rest_of_body(sock, 1_000_000) == pattern_digest(1_000_000)
        assert rest_of_body(clients[-1], SIZE) == pattern_digest(SIZE)


async def download_for(seconds: float, address: tuple[str, int], port: int, count: int) -> int:
    """Bytes that `count` endless downloads bring together in `seconds`."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    total = 0

    async def one() -> None:
        nonlocal total
        sock = await asyncio.to_thread(stalled_client, address, port, 1 << 40)
        sock.setblocking(False)
        buffer = bytearray(1 << 18)
        with sock:
            while loop.time() < ends:
                total += await loop.sock_recv_into(sock, buffer)

    await asyncio.gather(*(one() for _ in range(count)))
    return total


@pytest.mark.alone
@pytest.mark.slow
def test_one_stalled_stream_leaves_a_hundred_busy_ones_nine_tenths_of_their_rate(own_tunnel):
    hub, node = own_tunnel
    with origin() as port:
        node.allow(f"127.0.0.1:{port}")
        address = hub.address("socks5")
        ratios = []
        for _ in range(4):
            alone = uvloop.run(download_for(4, address, port, 100))
            with stalled_client(address, port, 1 << 40):
                beside = uvloop.run(download_for(4, address, port, 100))
            ratios.append(beside / alone)
            if ratios[-1] >= 0.9:
                return
        pytest.fail(f"the busy streams kept {ratios} of their rate")
