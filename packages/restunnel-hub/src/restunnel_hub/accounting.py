"""Samples what nodes and clients carry, holds nodes to their quotas, and keeps the books."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from structlog import get_logger

from restunnel_protocol import CloseReason

from .clients import Clients
from .journal import Journal
from .registry import Node, Registry
from .store import StoreThread

log = get_logger("restunnel_hub")

SAMPLE_INTERVAL: Final = 2.0
"""Seconds between two looks; a quota may be overrun by what passes within one."""

WRITE_INTERVAL: Final = 60.0
"""Seconds between two writes: what a crash of the machine can take from the books."""

FOLD_INTERVAL: Final = 86400.0
"""Seconds between two looks for days that are long past."""


class Accounting:
    """The books of a running hub. Owner of its timer."""

    def __init__(
        self, registry: Registry, clients: Clients, store: StoreThread, journal: Journal
    ) -> None:
        self._registry = registry
        self._clients = clients
        self._store = store
        self._journal = journal
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sample and write from now on."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.settle()

    async def settle(self) -> None:
        """Have the store know all that has passed until now."""
        self.sample()
        await self.write()

    async def _keep(self) -> None:
        written = folded = time.monotonic()
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL)
            self.sample()
            now = time.monotonic()
            if now - written >= WRITE_INTERVAL:
                written = now
                await self.write()
            if now - folded >= FOLD_INTERVAL:
                folded = now
                await self._call(self._store.store.ledger.fold_traffic, time.time())

    def sample(self) -> None:
        """Count what has passed since the last time."""
        for node in self._registry.all():
            if node.tunnel is not None:
                node.tunnel.settle()
                if node.over_quota:
                    self._end_streams(node)
        self._clients.settle()

    def _end_streams(self, node: Node) -> None:
        assert node.tunnel is not None
        if node.quota_noted != node.usage.day:
            node.quota_noted = node.usage.day
            self._journal.note("quota", node.record, "its bytes for this day or month are used up")
        node.tunnel.end_streams(CloseReason.POLICY, "the node has used up its bytes")

    async def write(self) -> None:
        """Everything that the store does not have yet."""
        nodes = {
            node.id: pending
            for node in self._registry.all()
            if (pending := node.usage.take_pending())
        }
        accounts = {name: more for name, more in self._clients.meter.take().items() if more}
        if nodes or accounts:
            await self._call(self._store.store.ledger.add_traffic, nodes, accounts, time.time())

    async def _call(self, method: object, *arguments: object) -> None:
        try:
            await self._store.call(method, *arguments)  # type: ignore[arg-type]
        except SQLAlchemyError as error:  # a full disk, say: what was counted is lost
            log.error("traffic is not kept", reason=str(error))
