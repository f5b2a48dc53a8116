"""Many clients of every kind while the node is killed again and again."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import os
import random
import time
from pathlib import Path

import pytest

from support.origin import BLOCK, origin, pattern_digest
from support.services import Hub, Node, tunnel, wait_until

SECONDS = 40
CLIENTS = 40
KILLS = 6
LARGEST = 2_000_000
"""Bytes of a transfer."""


async def download(hub: Hub, port: int, size: int) -> str:
    """`whole` or `failed`; anything else is a transfer that lied."""
    reader, writer = await asyncio.open_connection(*hub.address("socks5"))
    with contextlib.closing(writer):
        writer.write(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
        if (await reader.readexactly(12))[3] != 0:
            return "failed"
        writer.write(b"GET /bytes/%d HTTP/1.0\r\n\r\n" % size)
        writer.write_eof()
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.read(-1)  # up to an end that the transport calls clean
    if hashlib.sha256(body).hexdigest() == pattern_digest(size):
        return "whole"
    return f"ended cleanly after {len(body)} of {size} bytes"


async def upload(hub: Hub, port: int, size: int) -> str:
    """The same through the HTTP proxy."""
    reader, writer = await asyncio.open_connection(*hub.address("http"))
    body = (BLOCK * 2)[:size]
    with contextlib.closing(writer):
        writer.write(b"PUT http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n" % port)
        writer.write(b"Content-Length: %d\r\n\r\n" % size + body)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head:
            return "failed"
        answer = (await reader.readexactly(64)).decode()
    return "whole" if answer == pattern_digest(size) else f"answer {answer}"


async def vanish(hub: Hub, port: int, size: int) -> str:
    """A client that goes away in the middle."""
    reader, writer = await asyncio.open_connection(*hub.address("socks5"))
    writer.write(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    writer.write(b"GET /bytes/%d HTTP/1.0\r\n\r\n" % size)
    await reader.read(random.randrange(1, size + 2))
    writer.transport.abort()
    return "vanished"


async def client(hub: Hub, port: int, until: float, outcomes: collections.Counter) -> None:
    while time.monotonic() < until:
        act = random.choice([download, upload, vanish])
        try:
            outcomes[await act(hub, port, random.randrange(1, LARGEST))] += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            outcomes["failed"] += 1
            await asyncio.sleep(0.05)


async def kill_and_restart(hub: Hub, node: Node) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(SECONDS / (KILLS + 1))
        node.destroy()
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(hub.wait_online)


def descriptors(service: Hub | Node) -> int:
    return len(os.listdir(f"/proc/{service.process.pid}/fd"))


@pytest.mark.slow
async def test_every_transfer_is_whole_or_fails_visibly_and_nothing_is_left(tmp_path: Path):
    with tunnel(tmp_path) as (hub, node), origin() as port:
        node.allow(f"127.0.0.1:{port}")
        before = descriptors(hub)
        outcomes: collections.Counter = collections.Counter()
        until = time.monotonic() + SECONDS
        clients = [client(hub, port, until, outcomes) for _ in range(CLIENTS)]
        await asyncio.gather(kill_and_restart(hub, node), *clients)
        assert set(outcomes) == {"whole", "failed", "vanished"}, outcomes
        assert outcomes["whole"] > 100
        wait_until(lambda: hub.status()["streams"] == 0, "streams to end")
        wait_until(lambda: hub.status()["clients"] == 0, "clients to end")
        wait_until(lambda: descriptors(hub) <= before, "descriptors to be given back")
        assert "Traceback" not in hub.log + node.log
