"""Fixtures of the protocol's tests."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from support.links import linked

LOOPS = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):  # not for Windows
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop

TEST_TIMEOUT = 30.0
"""Seconds after which an event that has not come is a failure."""


def pytest_asyncio_loop_factories(config, item):
    """Both kinds of loop that programs run on: their transports differ."""
    return LOOPS


@pytest.fixture
async def links():
    """The owners of a hub's and a node's link."""
    async with asyncio.timeout(TEST_TIMEOUT), linked() as owners:
        yield owners
