"""One hub's tunnel: dial, serve, and dial again for as long as the node runs."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from restunnel_protocol import (
    CloseReason,
    Connection,
    GoAwayReason,
    GoAwayReceived,
    HandshakeError,
    Hello,
    PrivateKey,
    Role,
    Settings,
    Status,
    Suite,
    Target,
)
from restunnel_protocol.aio import Dialled, Link, TunnelStream, dial_hub
from restunnel_protocol.limits import TUNNEL_WINDOW_BUDGET
from restunnel_protocol.program.errors import ProgramError, describe_os_error
from restunnel_protocol.windows import WindowBudget

from ._version import __version__
from .backoff import Backoff
from .clock import RisingClock
from .dialer import Dialer
from .hubs import Hub
from .serving import Serving

log = logging.getLogger(__name__)

AGENT = f"restunnel-node/{__version__}"

STATUS_INTERVAL = 60.0
"""Seconds between STATUS reports."""

STABLE_AFTER = 10.0
"""Seconds that a tunnel must have held for the back-off to begin anew."""

REPLACED_DELAY = 30.0
"""Seconds to stay away when another process holds this node's key, lest both fight."""

MAX_CLOCK_ERROR = 300.0
"""Seconds by which the hub's clock may differ before the log says so."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times in seconds (`Config`), and the shared parts of all tunnels."""

    ping_interval: float
    ping_timeout: float
    backoff_first: float
    backoff_cap: float
    suite: Suite
    budget: WindowBudget

    def settings(self) -> Settings:
        return Settings(
            self.ping_interval,
            self.ping_timeout,
            budget=WindowBudget(TUNNEL_WINDOW_BUDGET, self.budget),
        )


class Connector:
    """Keeps the tunnel to one hub. Its failures are its own."""

    def __init__(
        self, hub: Hub, key: PrivateKey, clock: RisingClock, dialer: Dialer, tuning: Tuning
    ) -> None:
        self.hub = hub
        self.state = "connecting"
        self.problem = ""
        self.online_since: float | None = None
        self._key = key
        self._clock = clock
        self._serving = Serving(dialer)
        self._tuning = tuning
        self._backoff = Backoff(tuning.backoff_first, tuning.backoff_cap)
        self._link: Link | None = None
        self._closed: asyncio.Future[str] | None = None
        self._go_away: GoAwayReceived | None = None
        self._reported: asyncio.TimerHandle | None = None
        self._closing = False

    async def run(self) -> None:
        """Connect, serve and reconnect until closed or cancelled."""
        while True:
            delay = await self._attempt()
            if self._closing:
                return
            self.state = "waiting"
            log.info("%s: next attempt in %.1f s", self.hub.label, delay)
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Take no new streams, and wait for the running ones to finish."""
        if self._link is not None:
            self._link.go_away(GoAwayReason.SHUTDOWN, detail="the node is stopping")
        await self._serving.wait_idle()

    async def close(self) -> None:
        """End the tunnel and whatever still runs in it, for good."""
        self._closing = True
        self._serving.abort(CloseReason.GOING_AWAY)
        if self._link is not None and self._closed is not None:
            self._link.close(GoAwayReason.SHUTDOWN, "the node is stopping")
            await self._closed

    def status(self) -> dict[str, Any]:
        """What `restunnel-node status` shows of this hub."""
        serving, link = self._serving, self._link
        return {
            "hub": self.hub.label,
            "key": str(self.hub.key),
            "name": self.hub.name,
            "state": self.state,
            "problem": self.problem,
            "online_since": self.online_since,
            "streams": serving.active,
            "streams_served": serving.streams_served,
            "bytes_received": link.bytes_received if link else 0,
            "bytes_sent": link.bytes_sent if link else 0,
        }

    # --- one attempt -----------------------------------------------------------------

    async def _attempt(self) -> float:
        """One tunnel from dial to end; the seconds to wait before the next."""
        self.state = "connecting"
        try:
            dialled = await self._dial()
            started = time.monotonic()
            detail = await self._serve(dialled)
        except (OSError, HandshakeError, ProgramError) as error:
            self.problem = _describe(error)
            log.warning("%s: %s", self.hub.label, self.problem)
            return self._backoff.next()
        self.problem = detail
        level = logging.INFO if self._closing else logging.WARNING
        log.log(level, "%s: tunnel ended: %s", self.hub.label, detail)
        if time.monotonic() - started >= STABLE_AFTER:
            self._backoff.reset()
        return max(self._backoff.next(), self._requested_delay())

    async def _dial(self) -> Dialled:
        failure: Exception | None = None
        for endpoint in self.hub.endpoints:
            hello = Hello(self._clock.next(), agent=AGENT)
            try:
                return await dial_hub(
                    endpoint, self._key, self.hub.key, hello, suite=self._tuning.suite
                )
            except (OSError, HandshakeError) as error:
                failure = error
        assert failure is not None  # a hub has at least one endpoint
        raise failure

    async def _serve(self, dialled: Dialled) -> str:
        loop = asyncio.get_running_loop()
        tuning = self._tuning
        self._go_away = None
        self._closed = loop.create_future()
        connection = Connection(Role.NODE, dialled.session, loop.time(), tuning.settings())
        link = Link(
            connection,
            self,
            loop=loop,
            dead_after=tuning.ping_interval + tuning.ping_timeout,
            leftover=dialled.leftover,
        )
        try:
            await loop.create_connection(lambda: link, sock=dialled.sock)
            self._link = link
            self._online(dialled)
            return await self._closed
        except OSError:
            dialled.sock.close()
            raise
        finally:
            self._offline()

    def _online(self, dialled: Dialled) -> None:
        self.state, self.problem, self.online_since = "online", "", time.time()
        log.info("%s: connected", self.hub.label)
        error = dialled.session.remote.timestamp / 1e9 - time.time()
        if abs(error) > MAX_CLOCK_ERROR:
            log.warning("%s: the hub's clock differs by %.0f s", self.hub.label, error)
        self._report()

    def _offline(self) -> None:
        self.state, self.online_since, self._link = "offline", None, None
        if self._reported is not None:
            self._reported.cancel()
            self._reported = None

    def _report(self) -> None:
        """Send STATUS now and every `STATUS_INTERVAL`."""
        if self._link is None or self._link.connection.ended:
            return
        self._link.send_status(
            Status(
                {
                    "version": __version__,
                    "streams": self._serving.active,
                    "streams_served": self._serving.streams_served,
                    "bytes_up": self._serving.bytes_up,
                    "bytes_down": self._serving.bytes_down,
                }
            )
        )
        self._reported = asyncio.get_running_loop().call_later(STATUS_INTERVAL, self._report)

    def _requested_delay(self) -> float:
        event = self._go_away
        if event is None:
            return 0.0
        if event.reason == GoAwayReason.REPLACED:
            return REPLACED_DELAY
        return float(event.retry_after)

    # --- the link's owner --------------------------------------------------------------

    def established(self, link: Link) -> None:
        """The hub has proved itself in message 2 already."""

    def connect_requested(self, stream: TunnelStream, target: Target) -> None:
        self._serving.connect(stream, target)

    def status_received(self, link: Link, fields: dict[str, Any]) -> None:
        raise AssertionError("a node takes no STATUS")

    def go_away_received(self, link: Link, event: GoAwayReceived) -> None:
        self._go_away = event
        log.info("%s: the hub says goodbye: %s", self.hub.label, event.detail or event.reason)

    def link_closed(self, link: Link, reason: GoAwayReason | None, detail: str) -> None:
        if self._go_away is not None:
            detail = self._go_away.detail or detail
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(detail)


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "cannot reach the hub: no answer"
    if isinstance(error, OSError):
        return f"cannot reach the hub: {describe_os_error(error)}"
    if isinstance(error, ProgramError):  # a file that cannot be written, as on a full disk
        return error.message
    return f"the hub refuses: {error}"
