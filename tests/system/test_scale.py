"""Ten thousand streams over one node, a thousand nodes at one hub: a minute of each.

The sizes are those that the hub is built for; RESTUNNEL_SCALE divides them where a
machine is smaller.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import time
from collections.abc import AsyncIterator

import pytest

from restunnel_hub.client import request
from restunnel_protocol import PairingLink
from support.echo import echo_server
from support.scripted import ScriptedNode
from support.services import Hub, Node, memory, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SCALE = int(os.environ.get("RESTUNNEL_SCALE", "1"))
STREAMS = 10_000 // SCALE
NODES = 1_000 // SCALE
SECONDS = 60.0
AT_ONCE = 64
"""Connections made at the same time, and echoes under way."""


async def socks_stream(
    address: tuple[str, int], port: int, username: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to 127.0.0.1:`port` on the node's side."""
    reader, writer = await asyncio.open_connection(*address, limit=4096)
    if username:
        raw = username.encode()
        writer.write(b"\x05\x01\x02" + bytes((1, len(raw))) + raw + b"\x01x")
        assert await reader.readexactly(4) == b"\x05\x02\x01\x00"
    else:
        writer.write(b"\x05\x01\x00")
        assert await reader.readexactly(2) == b"\x05\x00"
    writer.write(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    assert (await reader.readexactly(10))[1] == 0
    return reader, writer


async def each(count: int, work) -> list:
    """`work(number)` for every number, some at the same time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(number: int):
        async with turn:
            return await work(number)

    return await asyncio.gather(*(one(number) for number in range(count)))


async def echo_for_a_minute(streams: list, label: str) -> None:
    """Every stream in turn, again and again: what is sent comes back, and nothing else."""
    times: list[float] = []

    async def check(number: int) -> None:
        reader, writer = streams[number]
        sent = secrets.token_bytes(64)
        begun = time.monotonic()
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent
        times.append(time.monotonic() - begun)

    begun, rounds = time.monotonic(), 0
    while time.monotonic() < begun + SECONDS:
        await each(len(streams), check)
        rounds += 1
        await asyncio.sleep(1)
    times.sort()
    median, late = times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000
    print(f"{label}: {rounds} rounds of echoes, median {median:.1f} ms, p99 {late:.1f} ms")


@pytest.fixture
async def many_descriptors() -> AsyncIterator[None]:
    """As many as this process may have; skips where that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < STREAMS + 500:
        pytest.skip(f"a process may have {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_streams_over_one_node_hold_for_a_minute(
    own_tunnel: tuple[Hub, Node], many_descriptors: None
):
    hub, node = own_tunnel
    with echo_server() as port:
        node.allow(f"127.0.0.1:{port}")
        before = memory(hub) + memory(node)
        begun = time.monotonic()
        streams = await each(STREAMS, lambda _: socks_stream(hub.address("socks5"), port))
        rate = STREAMS / (time.monotonic() - begun)
        used = memory(hub) + memory(node) - before
        print(
            f"\n{STREAMS} streams: {used / STREAMS / 1000:.1f} kB each (hub and node), {rate:.0f}/s"
        )
        assert (
            json.loads(await asyncio.to_thread(hub.call, "status", "--json"))["streams"] == STREAMS
        )
        await echo_for_a_minute(streams, f"{STREAMS} streams")
        after = memory(hub) + memory(node) - before
        print(f"{after / STREAMS / 1000:.1f} kB each after the echoes")
        assert after / STREAMS < 20_000
        for _, writer in streams:
            writer.close()
        await asyncio.to_thread(wait_until, lambda: hub.status()["streams"] == 0, "the end")


async def test_a_thousand_nodes_hold_for_a_minute(hub: Hub, many_descriptors: None):
    hub.start()
    control = hub.data_dir / "hub.sock"
    nodes = [ScriptedNode(lambda target: None) for _ in range(NODES)]
    before = memory(hub)
    begun = time.monotonic()

    async def join(number: int) -> None:
        wishes = {"name": f"n{number}", "group": "home"}
        made = await asyncio.to_thread(request, control, "POST", "/pairings", wishes)
        await nodes[number].enrol(PairingLink.parse(made["link"]))

    await each(NODES, join)
    await asyncio.to_thread(wait_until, lambda: hub.status()["online"] == NODES, "all nodes")
    rate = NODES / (time.monotonic() - begun)
    used = memory(hub) - before
    print(f"\n{NODES} nodes: {used / NODES / 1000:.1f} kB each at the hub, {rate:.0f} enrolments/s")
    streams = await each(
        NODES, lambda number: socks_stream(hub.address("socks5"), 80, f"node=n{number}")
    )
    await echo_for_a_minute(streams, f"{NODES} nodes")
    assert await asyncio.to_thread(lambda: hub.status()["online"]) == NODES
    assert used / NODES < 60_000
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*(node.leave() for node in nodes))
