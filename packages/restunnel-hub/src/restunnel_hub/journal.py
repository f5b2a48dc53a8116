"""What an operator wants to look up later: in the log at once, in the store soon after.

Enrolments and revocations are written by the store together with what they tell of
(`stored=True`); all else follows within `DELAY`. Refusals by an owner's policy come as
often as clients ask, so each node's are counted together.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from .store import NewEvent, NodeRecord, StoreThread

log = structlog.get_logger("restunnel_hub")

DELAY: Final = 1.0
"""Seconds in which events collect before they are written."""

REFUSED_DELAY: Final = 30.0
"""Seconds over which a node's refusals are counted together."""

MAX_REFUSED: Final = 1000
"""Refusals that are counted apart at once: as many nodes, or targets where those are logged."""

KINDS: Final = {
    "started": "the hub began to serve",
    "stopped": "the hub has stopped, in order",
    "enrolled": "a device was paired",
    "connected": "a node's tunnel is up",
    "replaced": "a newer tunnel of a node took over",
    "lost": "a node's tunnel has ended",
    "revoked": "a node's key was removed",
    "changed": "a node's name, group, note, limits or drain",
    "refused": "a node's owner does not allow a target",
    "quota": "a node has used up its bytes",
    "client-added": "a client got a password",
    "client-removed": "a client's password was removed",
    "login": "somebody logged in to the dashboard",
    "login-failed": "somebody tried to",
}
"""Every kind of event, and what it means."""


class Journal:
    """Takes events from the event loop's thread."""

    def __init__(self, store: StoreThread) -> None:
        self._store = store
        self._pending: list[NewEvent] = []
        self._refused: dict[tuple[str, str], NewEvent] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._refused_timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self.counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        """Events of each kind since the start."""

    def note(
        self, kind: str, node: NodeRecord | None = None, detail: str = "", *, stored: bool = False
    ) -> None:
        """Something happened; `stored`: the store has it already."""
        event = self._event(kind, node, detail)
        fields = {"node": event.node, "detail": detail}
        log.info(kind, **{name: value for name, value in fields.items() if value})
        if not stored:
            self._pending.append(event)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(DELAY, self._flush_soon)

    def refused(self, node: NodeRecord, detail: str) -> None:
        """A node's owner does not allow a target; `detail` may name it."""
        key = (node.id, detail)
        first = self._refused.get(key)
        if first is None:
            log.info("refused", node=node.name, **({"detail": detail} if detail else {}))
        event = self._event("refused", node, detail)
        count = first.count + 1 if first is not None else 1
        self._refused[key] = replace(event, count=count)
        if len(self._refused) >= MAX_REFUSED:
            self._flush_refused()
        elif self._refused_timer is None:
            self._refused_timer = asyncio.get_running_loop().call_later(
                REFUSED_DELAY, self._flush_refused
            )

    def _event(self, kind: str, node: NodeRecord | None, detail: str) -> NewEvent:
        self.counts[kind] += 1
        node_id, name = (node.id, node.name) if node is not None else ("", "")
        return NewEvent(time.time(), kind, node_id, name, detail)

    def _take_refused(self) -> None:
        """What was counted together is an event to be written."""
        if self._refused_timer is not None:
            self._refused_timer.cancel()
            self._refused_timer = None
        self._pending += self._refused.values()
        self._refused.clear()

    def _flush_refused(self) -> None:
        self._take_refused()
        self._flush_soon()

    def _flush_soon(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self.flush())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def flush(self) -> None:
        """Write what has collected."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            await self._store.call(self._store.store.ledger.add_events, pending)
        except SQLAlchemyError as error:  # a full disk, say; the log has them
            log.error("events are not kept", reason=str(error))

    async def close(self) -> None:
        """Write all that is left."""
        if self._timer is not None:
            self._timer.cancel()
        self._take_refused()
        await asyncio.gather(*self._writing)
        await self.flush()
