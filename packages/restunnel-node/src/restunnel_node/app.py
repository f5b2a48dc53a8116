"""The node's composition root: every part, and who talks to whom.

hubs.toml --> Node --> a Connector for each hub --> Serving --> Dialer --> Resolver
                                                                  |
                                         policy.toml --> OwnerPolicy
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from restunnel_protocol import PrivateKey
from restunnel_protocol.limits import PROCESS_WINDOW_BUDGET
from restunnel_protocol.program.errors import ExitCode, ProgramError
from restunnel_protocol.program.files import lock
from restunnel_protocol.program.service import StopSignals, announce_ready, notify, watchdog
from restunnel_protocol.records import fastest_suite
from restunnel_protocol.windows import WindowBudget

from ._version import __version__
from .clock import RisingClock
from .config import Config
from .connector import Connector, Tuning
from .control import ControlServer
from .dialer import Dialer
from .hubs import Hub, HubFile
from .keystore import FileKeyStore
from .policy import OwnerPolicy
from .resolver import Resolver

log = logging.getLogger(__name__)


class Node:
    """All tunnels of this device."""

    def __init__(self, config: Config, key: PrivateKey) -> None:
        paths = config.paths
        self._key = key
        self._hubs = HubFile(paths.hubs)
        self._policy = OwnerPolicy(paths.policy, config.rules)
        self._policy.current()  # a damaged policy file is told now, not at the first stream
        self._dialer = Dialer(self._policy.current, Resolver())
        self._clock = RisingClock(paths.timestamp)
        self._suite = fastest_suite()
        self._budget = WindowBudget(PROCESS_WINDOW_BUDGET)
        self._tuning = self._tune(config)
        self._running: dict[Hub, tuple[Connector, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def _tune(self, config: Config) -> Tuning:
        return Tuning(
            config.ping_interval,
            config.ping_timeout,
            config.backoff_first,
            config.backoff_cap,
            self._suite,
            self._budget,
        )

    def reconfigure(self, load: Callable[[], Config]) -> None:
        """Take over settings that were changed, for verdicts at once, for hubs dialled anew."""
        try:
            config = load()
        except ProgramError as error:
            log.error("the settings stay as they are: %s", error.message)
            return
        self._policy.configure(config.rules)
        self._tuning = self._tune(config)
        self.reload()
        log.info("settings loaded again")

    def reload(self) -> dict[str, Any]:
        """Connect to hubs that `hubs.toml` has gained, leave those that it has lost."""
        wanted = [hub for hub in self._hubs.load() if hub.paired]
        for hub in [hub for hub in self._running if hub not in wanted]:
            connector, task = self._running.pop(hub)
            task.cancel()
            leaving = asyncio.get_running_loop().create_task(connector.close())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        for hub in wanted:
            if hub not in self._running:
                connector = Connector(hub, self._key, self._clock, self._dialer, self._tuning)
                task = asyncio.get_running_loop().create_task(connector.run())
                task.add_done_callback(_report_crash)
                self._running[hub] = connector, task
        return {"hubs": len(wanted)}

    def status(self) -> dict[str, Any]:
        """What `restunnel-node status` shows."""
        return {
            "version": __version__,
            "key": str(self._key.public),
            "hubs": [connector.status() for connector, _ in self._running.values()],
        }

    async def drain(self) -> None:
        """Announce the end to every hub and wait for all streams to finish."""
        await asyncio.gather(*(connector.stop() for connector, _ in self._running.values()))

    async def close(self) -> None:
        """End everything."""
        for connector, task in self._running.values():
            await connector.close()
            task.cancel()
        tasks = [task for _, task in self._running.values()]
        await asyncio.gather(*tasks, *self._leaving, return_exceptions=True)


async def run(load: Callable[[], Config], ready_fd: int | None) -> int:
    """Run the node until a signal stops it; the exit code. SIGHUP loads the settings again."""
    config = load()
    holder = lock(config.paths.lock, "a node")
    try:
        key = FileKeyStore(config.paths.key).load()
        if key is None or not any(hub.paired for hub in HubFile(config.paths.hubs).load()):
            raise ProgramError(
                "this node is not paired with any hub",
                hint="run `restunnel-node pair LINK` with the link that `restunnel-hub pair` shows",
                code=ExitCode.NOT_RUNNING,
            )
        node = Node(config, key)
        control = ControlServer(config.paths.socket, {"status": node.status, "reload": node.reload})
        with StopSignals().installed() as signals:
            signals.on_hangup(lambda: node.reconfigure(load))
            await control.start()
            node.reload()
            with watchdog():
                announce_ready(ready_fd)
                await signals.first.wait()
                notify("STOPPING=1")
                log.info("stopping")
                await control.stop()
                if not await signals.grace(node.drain(), config.grace):
                    log.warning("streams that were still running are cut off")
                await node.close()
        return ExitCode.OK
    finally:
        holder.close()


def _report_crash(task: asyncio.Task[None]) -> None:
    """A connector never ends by itself; if one does, that is a bug to be seen."""
    if not task.cancelled() and task.exception() is not None:
        log.error("a tunnel's task failed", exc_info=task.exception())
