"""Tunnels of nodes: from a message 1 that authenticates to a registered tunnel."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from restunnel_protocol import (
    CloseReason,
    Connection,
    EnrollOk,
    GoAwayReason,
    GoAwayReceived,
    HandshakeError,
    Hello,
    LocalError,
    PrivateKey,
    Request,
    Responder,
    Role,
    Session,
    Settings,
    Suite,
    Target,
)
from restunnel_protocol.aio import Link, StreamHandler, TunnelStream
from restunnel_protocol.limits import PROCESS_WINDOW_BUDGET, TUNNEL_WINDOW_BUDGET
from restunnel_protocol.messages import GoAway
from restunnel_protocol.windows import WindowBudget

from ._version import __version__
from .doorkeeper import Doorkeeper
from .journal import Journal
from .pairing import Pairing
from .registry import Node, Registry
from .store import NodeRecord, StoreThread

log = logging.getLogger(__name__)

AGENT = f"restunnel-hub/{__version__}"

CONFIRM_TIMEOUT = 15.0
"""Seconds after message 2 for the node's first record; its key is known by then."""


@dataclass(frozen=True, slots=True)
class TunnelTimes:
    """Seconds of silence before a PING, and after it."""

    ping_interval: float
    ping_timeout: float


class Tunnel:
    """One tunnel of one node. Owner of its link."""

    def __init__(self, node: Node, address: str, registry: Registry, journal: Journal) -> None:
        self.node = node
        self.address = address
        self.since = time.time()
        self.status: dict[str, Any] = {}
        self.agent = ""
        self._registry = registry
        self._journal = journal
        self._goodbye = ""
        self._settled = (0, 0)
        self._link: Link | None = None
        self._closed = asyncio.get_running_loop().create_future()
        self._on_closed: Callable[[Tunnel], None] | None = None

    def start(self, link: Link, agent: str, on_closed: Callable[[Tunnel], None]) -> None:
        """The socket is attached; `on_closed` is called once it is done with."""
        self._link = link
        link.limit_rate(self.node.record.bandwidth)
        self.agent = agent
        self._on_closed = on_closed

    @property
    def draining(self) -> bool:
        """Whether it takes no new streams."""
        return self._link is None or self._link.connection.draining or self._link.connection.ended

    @property
    def stream_count(self) -> int:
        return self._link.stream_count if self._link else 0

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of this tunnel received and sent so far, as on the wire."""
        return (self._link.bytes_received, self._link.bytes_sent) if self._link else (0, 0)

    def open_stream(self, target: Target, handler: StreamHandler | None) -> TunnelStream:
        """Ask the node for a connection. Raises `LocalError` if it takes none."""
        if self._link is None:
            raise LocalError("the tunnel has no socket")
        if self._link.connection.stream_ids_left == 0:
            self.close(GoAwayReason.RECONNECT, "stream ids are used up")
        return self._link.open_stream(target, handler)

    def limit_rate(self, rate: int | None) -> None:
        """Let so many bytes a second pass in each direction; None: no limit."""
        if self._link is not None:
            self._link.limit_rate(rate)

    def end_streams(self, reason: CloseReason, detail: str) -> None:
        """End all streams, visibly; the tunnel stays."""
        if self._link is not None:
            self._link.end_streams(reason, detail)

    def settle(self) -> None:
        """Count what has passed since the last time on the node's account."""
        received, sent = self._settled
        self._settled = self.traffic
        self.node.usage.count(self._settled[0] - received, self._settled[1] - sent)

    def go_away(self, reason: GoAwayReason, detail: str) -> None:
        """Announce the end; running streams go on."""
        if self._link is not None:
            self._link.go_away(reason, detail=detail)

    def close(self, reason: GoAwayReason, detail: str) -> None:
        """End it with all of its streams."""
        if self._link is not None:
            self._link.close(reason, detail)

    async def wait_closed(self) -> None:
        """Until the socket is closed."""
        await asyncio.shield(self._closed)

    # --- the link's owner ----------------------------------------------------------------

    def established(self, link: Link) -> None:
        kind = "replaced" if self.node.tunnel is not None else "connected"
        self._journal.note(kind, self.node.record, f"from {self.address}")
        self._registry.confirm(self.node, self)

    def connect_requested(self, stream: TunnelStream, target: Target) -> None:
        raise AssertionError("a hub takes no CONNECT")

    def status_received(self, link: Link, fields: dict[str, Any]) -> None:
        self.status = fields

    def go_away_received(self, link: Link, event: GoAwayReceived) -> None:
        message = GoAway(event.reason, event.retry_after, event.detail)
        self._goodbye = event.detail or message.reason_name

    def link_closed(self, link: Link, reason: GoAwayReason | None, detail: str) -> None:
        self.settle()
        if self.node.tunnel is self:
            self._journal.note("lost", self.node.record, self._goodbye or detail)
        self._registry.lost(self.node, self)
        self._closed.set_result(None)
        if self._on_closed is not None:
            self._on_closed(self)


class TunnelServer:
    """The tunnel port: handshakes, and every tunnel that came of one."""

    def __init__(
        self,
        key: PrivateKey,
        registry: Registry,
        pairing: Pairing,
        store: StoreThread,
        times: Callable[[], TunnelTimes],
        journal: Journal,
        max_held: int,
    ) -> None:
        self._journal = journal
        self._responder = Responder(key)
        self._registry = registry
        self._pairing = pairing
        self._store = store
        self._times = times
        self._budget = WindowBudget(PROCESS_WINDOW_BUDGET)
        self._doorkeeper = Doorkeeper(self._responder, self._admit, max_held)
        self._tunnels: set[Tunnel] = set()
        self._handshakes: set[asyncio.Task[None]] = set()

    def listen(self, sock: socket.socket) -> None:
        """Take nodes on a bound socket."""
        self._doorkeeper.listen(sock)

    @property
    def strangers(self) -> int:
        """Connections that have proved nothing."""
        return self._doorkeeper.held

    def holds(self, received: bytes) -> bool:
        """Whether one of them has sent just these bytes, the beginning of a message 1."""
        return self._doorkeeper.holds(received)

    def go_away(self) -> None:
        """Tell every node that the hub is stopping."""
        for tunnel in self._tunnels:
            tunnel.go_away(GoAwayReason.SHUTDOWN, "the hub is stopping")

    async def close(self) -> None:
        """Stop listening and end every tunnel."""
        self._doorkeeper.close()
        for task in list(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        tunnels = list(self._tunnels)
        for tunnel in tunnels:
            tunnel.close(GoAwayReason.SHUTDOWN, "the hub has stopped")
        await asyncio.gather(*(tunnel.wait_closed() for tunnel in tunnels))

    # --- handshakes ------------------------------------------------------------------------

    def _admit(self, sock: socket.socket, message_1: bytes, suite: Suite, address: str) -> None:
        task = asyncio.get_running_loop().create_task(
            self._shake_hands(sock, message_1, suite, address)
        )
        self._handshakes.add(task)
        task.add_done_callback(self._handshake_done)

    def _handshake_done(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a handshake failed in a way of its own", exc_info=task.exception())

    async def _shake_hands(
        self, sock: socket.socket, message_1: bytes, suite: Suite, address: str
    ) -> None:
        try:
            request = self._responder.read_message_1(message_1, suite)
            decision = await self._decide(request, address)
        except HandshakeError:
            decision = None
        except SQLAlchemyError as error:  # a full disk, say; the node will come again
            log.error("the database fails: %s", error)
            decision = None
        except BaseException:
            sock.close()
            raise
        if decision is None:
            self._doorkeeper.turn_away(sock)
            return
        node, enroll_ok = decision
        message_2, session = request.write_message_2(Hello(time.time_ns(), agent=AGENT), enroll_ok)
        try:
            await self._start(sock, message_2, session, node, address)
        except OSError as error:  # the node went away meanwhile
            log.info("%s did not stay for the answer: %s", node.record.name, error)
            sock.close()
        except BaseException:
            sock.close()
            raise

    async def _decide(self, request: Request, address: str) -> tuple[Node, EnrollOk | None] | None:
        """Who may come in; None means silence. Everything is on disk before the answer."""
        if request.enroll is not None:
            record = await self._pairing.redeem(request, request.enroll, address)
            if record is None:
                return None
            self._journal.note("enrolled", record, f"from {address}", stored=True)
            return self._registry.put(record), EnrollOk(record.id, record.name)
        node = self._registry.by_key(request.node)
        if node is None or not await self._is_fresh(node.record, request, address):
            return None
        if not self._registry.is_current(node):  # revoked while the store was busy
            return None
        return node, None

    async def _is_fresh(self, record: NodeRecord, request: Request, address: str) -> bool:
        return await self._store.call(
            self._store.store.raise_timestamp,
            record.id,
            request.hello.timestamp,
            address,
            time.time(),
        )

    async def _start(
        self, sock: socket.socket, message_2: bytes, session: Session, node: Node, address: str
    ) -> None:
        loop = asyncio.get_running_loop()
        times = self._times()
        tunnel = Tunnel(node, address, self._registry, self._journal)
        settings = Settings(
            times.ping_interval,
            times.ping_timeout,
            budget=WindowBudget(TUNNEL_WINDOW_BUDGET, self._budget),
        )
        link = Link(
            Connection(Role.HUB, session, loop.time(), settings),
            tunnel,
            loop=loop,
            dead_after=times.ping_interval + times.ping_timeout,
        )
        await loop.sock_sendall(sock, message_2)
        tunnel.start(link, session.remote.agent, self._tunnels.discard)
        node.unconfirmed.add(tunnel)
        self._tunnels.add(tunnel)
        try:
            await loop.connect_accepted_socket(lambda: link, sock)
        except BaseException:
            node.unconfirmed.discard(tunnel)
            self._tunnels.discard(tunnel)
            raise
        loop.call_later(CONFIRM_TIMEOUT, self._expect_confirmation, tunnel)

    def _expect_confirmation(self, tunnel: Tunnel) -> None:
        if tunnel in tunnel.node.unconfirmed:
            tunnel.close(GoAwayReason.PING_TIMEOUT, "no first record from the node")
