"""What a node does with a hub's CONNECT: dial the target and relay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from restunnel_protocol import CloseReason, ConnectFailReason, LocalError, Target
from restunnel_protocol.aio import Relay, TunnelStream
from restunnel_protocol.program.errors import ProgramError

from .dialer import Dialer, DialError

log = logging.getLogger(__name__)


class Serving:
    """All connections that this node makes on behalf of one hub."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._offers: set[Offer] = set()
        self._relays: set[Relay] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.streams_served = 0
        self.bytes_up = 0
        self.bytes_down = 0

    @property
    def active(self) -> int:
        """Connections that are being dialled, carry data or still flush it."""
        return len(self._offers) + len(self._relays)

    def connect(self, stream: TunnelStream, target: Target) -> None:
        """Serve one CONNECT."""
        self._idle.clear()
        self.streams_served += 1
        self._offers.add(Offer(self, stream, target))

    async def wait_idle(self) -> None:
        """Until nothing is active."""
        await self._idle.wait()

    def abort(self, reason: CloseReason) -> None:
        """End everything at once."""
        for offer in list(self._offers):
            offer.cancel()
        for relay in list(self._relays):
            relay.abort(reason)

    def _dialled(self, offer: Offer, relay: Relay | None) -> None:
        self._offers.discard(offer)
        if relay is not None and relay.alive:
            self._relays.add(relay)
        self._check_idle()

    def _relayed(self, relay: Relay) -> None:
        self._relays.discard(relay)
        self.bytes_up += relay.bytes_sent
        self.bytes_down += relay.bytes_received
        self._check_idle()

    def _check_idle(self) -> None:
        if not self.active:
            self._idle.set()


class Offer:
    """A stream from its CONNECT to its relay; keeps what the hub sends meanwhile."""

    def __init__(self, serving: Serving, stream: TunnelStream, target: Target) -> None:
        self._serving = serving
        self._stream = stream
        self._target = target
        self._backlog = bytearray()
        self._ended = False
        stream.handler = self
        self._task = asyncio.get_running_loop().create_task(self._run())
        # A task that is cancelled before its first step runs no `finally` of its own.
        self._task.add_done_callback(self._finish)

    def cancel(self) -> None:
        """Give the dial up."""
        self._task.cancel()

    def _finish(self, task: asyncio.Task[Relay | None]) -> None:
        relay = None
        if not task.cancelled():
            if task.exception() is not None:
                log.error("serving a stream failed", exc_info=task.exception())
            else:
                relay = task.result()
        self._serving._dialled(self, relay)

    async def _run(self) -> Relay | None:
        try:
            return await self._dial()
        except DialError as error:
            log.debug("stream %d: %s", self._stream.id, error.detail)
            self._refuse(error.reason, error.detail)
        except ProgramError as error:
            log.error("%s", error.message)
            self._refuse(ConnectFailReason.GENERAL, "the node's exit policy cannot be read")
        except OSError as error:
            self._refuse(ConnectFailReason.GENERAL, str(error))
        return None

    async def _dial(self) -> Relay | None:
        sock, address = await self._serving._dialer.dial(self._target)
        if not self._stream.open:
            sock.close()
            return None
        self._stream.accept(address)
        loop = asyncio.get_running_loop()
        relay = TargetRelay(self._stream, self._serving._relayed, self._replay)
        try:
            await loop.create_connection(lambda: relay, sock=sock)
        except BaseException:
            relay.abort(CloseReason.INTERNAL)
            sock.close()
            raise
        return relay

    def _refuse(self, reason: ConnectFailReason, detail: str) -> None:
        if self._stream.open:
            try:
                self._stream.refuse(reason, detail)
            except LocalError:  # it was accepted before the socket failed
                self._stream.close(CloseReason.INTERNAL, detail)

    def _replay(self, relay: Relay) -> None:
        if self._backlog:
            relay.stream_data(memoryview(self._backlog))
        if self._ended:
            relay.stream_eof()

    # --- the stream, while the dial goes on ------------------------------------------

    def stream_connected(self, address: Target) -> None:
        raise AssertionError("a node is not told of its own connections")

    def stream_failed(self, reason: ConnectFailReason, detail: str) -> None:
        raise AssertionError("a node is not told of its own failures")

    def stream_data(self, data: memoryview) -> None:
        self._backlog += data  # at most the stream's window

    def stream_eof(self) -> None:
        self._ended = True

    def stream_closed(self, reason: CloseReason | None, detail: str) -> None:
        self._task.cancel()

    def stream_writable(self) -> None:
        """Nothing has been sent yet."""


class TargetRelay(Relay):
    """A relay that begins with what came before the target was connected."""

    def __init__(
        self,
        stream: TunnelStream,
        done: Callable[[Relay], None],
        opened: Callable[[Relay], None],
    ) -> None:
        super().__init__(stream, done)
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened(self)
