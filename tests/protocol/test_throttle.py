"""Rate limits: the token bucket by itself, and on a link."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_protocol import CloseReason, GoAwayReason
from restunnel_protocol.aio.sockets import RECEIVE_BUFFER_SIZE
from restunnel_protocol.aio.throttle import MIN_RATE, Throttle
from support.links import TARGET, Handler, linked, open_stream

RATE = 1_000_000


@given(st.lists(st.tuples(st.integers(0, 200_000), st.floats(0, 1)), min_size=1))
def test_who_pauses_as_told_keeps_to_the_rate(steps):
    now = passed = 0.0
    throttle = Throttle(RATE, now)
    for size, idle in steps:
        now += idle
        pause = throttle.take(size, now)
        passed += size
        now += pause
        assert passed <= RATE * (now + 0.1) + 1


def test_a_pause_is_no_longer_than_it_must_be():
    throttle = Throttle(RATE, 0.0)
    assert throttle.take(100_000, 0.0) == 0.0  # a tenth of a second's worth at once
    assert throttle.take(50_000, 0.0) == pytest.approx(0.05)
    assert throttle.take(0, 10.0) == 0.0
    with pytest.raises(ValueError, match="at least"):
        Throttle(MIN_RATE - 1, 0.0)


@pytest.mark.parametrize("direction", ["sending", "receiving"])
async def test_a_link_keeps_to_its_rate_in_both_directions(direction):
    size, rate = 800_000, 1_000_000
    loop = asyncio.get_running_loop()
    async with linked() as (hub, node):
        handler = Handler()
        near, far = await open_stream(hub, node, handler)
        hub.link.limit_rate(rate)
        source, sink = (near, far) if direction == "sending" else (far, near)
        begun, received = loop.time(), 0
        source.send(bytes(size))
        while received < size:
            piece = await sink.handler.events.get()
            if isinstance(piece, bytes):
                received += len(piece)
                sink.consume(len(piece))
        limited = loop.time() - begun
        assert limited >= (size - rate * 0.1 - RECEIVE_BUFFER_SIZE) / rate
        hub.link.limit_rate(None)
        source.send(b"and on without it")
        assert await sink.handler.events.get() == b"and on without it"


async def test_a_limited_link_can_be_ended_at_once():
    async with linked() as (hub, node):
        near, far = await open_stream(hub, node, Handler())
        hub.link.limit_rate(MIN_RATE)
        near.send(bytes(200_000))
        assert len(await far.handler.events.get()) > 0
        far.send(bytes(60_000))
        hub.link.close(GoAwayReason.REVOKED, "enough")
        await asyncio.wait_for(asyncio.shield(node.ended), 5)
        assert node.events.get_nowait() == "established"
        assert node.events.get_nowait().reason == GoAwayReason.REVOKED


async def test_ending_all_streams_leaves_the_tunnel():
    async with linked() as (hub, node):
        handler = Handler()
        _, far = await open_stream(hub, node, handler)
        unattended = hub.link.open_stream(TARGET, None)
        await node.offers.get()
        hub.link.end_streams(CloseReason.POLICY, "enough")
        assert await handler.events.get() is CloseReason.POLICY
        assert await far.handler.events.get() is CloseReason.POLICY
        assert not unattended.open
        assert hub.link.stream_count == 0
        near, _ = await open_stream(hub, node, Handler())
        assert near.open
