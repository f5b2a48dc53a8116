"""The tunnel port's silence: who is a stranger learns nothing, not even by a close.

Every accepted socket is read without a transport, task or timer around it, and time
for strangers is budgeted. As long as its bytes may still become a message 1 they are kept,
`MAX_MESSAGE_1` at most; from the first wrong byte on everything is read and thrown away. Only a
message 1 whose mac1 is right leaves here. A hub never sends to a stranger and
never closes first, whatever the reason: the close, its timing and its kind are
what gives a probe-resistant server away (Frolov et al., NDSS 2020).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

from restunnel_protocol.aio.peer_watch import peer_is_gone
from restunnel_protocol.aio.sockets import keep_alive
from restunnel_protocol.limits import LENGTH_SIZE, MAX_MESSAGE_1
from restunnel_protocol.noise import Responder, message_1_length
from restunnel_protocol.records import Suite

from .crowd import Crowd

log = logging.getLogger(__name__)

ACCEPT_BURST: Final = 64
"""Connections accepted in one turn of the loop, so that tunnels get theirs."""

ACCEPT_WINDOW: Final = 0.1
ACCEPT_SHARE: Final = 0.15
"""In each window of so many seconds this part at most goes into accepting (and about as
much again into reading); past that the kernel's queue fills, and the kernel drops in silence."""

ACCEPT_PAUSE: Final = 0.25
"""Seconds without accepting when descriptors are short; the kernel's queue holds or drops."""

BACKLOG: Final = 4096
"""Connections that the kernel keeps for us: half a second of a flood."""

HALF_CLOSED_SHARE: Final = 0.25
"""Part of what strangers may hold that peers who have ended their side may take.

TCP does not tell a peer that still listens from one that is gone (for a minute or
two). Beyond this number the oldest are let go, so that a flood of short connections
leaves room for nodes; those peers did close first.
"""

SWEEP_INTERVAL: Final = 30.0
"""Seconds between looks at connections whose peer has half-closed."""

KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds and probes after which the kernel finds out that a peer is gone."""

_GONE: Final = {errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH}
"""accept(2): this connection failed already; others have not."""

_scrap = bytearray(64 * 1024)


class Doorkeeper:
    """Listens, and passes on whoever knows the hub's key.

    `admit(sock, message_1, suite, address)` gets the non-blocking socket, which is
    not watched any more; it gives it back with `turn_away` or keeps it for good.
    """

    def __init__(
        self,
        responder: Responder,
        admit: Callable[[socket.socket, bytes, Suite, str], None],
        max_held: int,
    ) -> None:
        self._responder = responder
        self._admit = admit
        self._max_held = max_held
        self._max_half_closed = max(1, int(max_held * HALF_CLOSED_SHARE))
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._visitors: dict[int, Visitor] = {}
        self._crowd = Crowd(self._loop, self._read)
        self._window_ends = 0.0
        self._spent = 0.0
        self._half_closed: dict[int, socket.socket] = {}
        self._paused: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """Connections that have not proved anything."""
        return len(self._visitors) + len(self._half_closed)

    def holds(self, received: bytes) -> bool:
        """Whether a visitor has sent just these bytes, and may still go on to a message 1.

        So the operator can see whether the port is reached, and strangers learn nothing.
        """
        return any(visitor.received == received for visitor in self._visitors.values())

    def listen(self, sock: socket.socket) -> None:
        """Accept on a bound socket."""
        sock.listen(BACKLOG)
        sock.setblocking(False)
        keep_alive(sock, **KEEPALIVE)  # accepted sockets inherit it
        self._listeners.append(sock)
        self._loop.add_reader(sock, self._accept, sock)
        if self._sweeper is None:
            self._sweep()

    def close(self) -> None:
        """Stop listening and let everybody go."""
        for timer in (self._paused, self._sweeper):
            if timer is not None:
                timer.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        for visitor in self._visitors.values():
            self._crowd.close_socket(visitor.sock)
        self._crowd.close()
        for sock in self._half_closed.values():
            sock.close()

    def turn_away(self, sock: socket.socket) -> None:
        """Take back a socket that `admit` got: a stranger after all."""
        self._watch(Visitor(sock, None))

    # --- accepting -------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        started = time.monotonic()
        if started >= self._window_ends:
            self._window_ends = started + ACCEPT_WINDOW
            self._spent = 0.0
        self._accept_some(listener)
        self._spent += time.monotonic() - started
        if self._spent > ACCEPT_WINDOW * ACCEPT_SHARE:
            self._pause(max(0.0, self._window_ends - time.monotonic()))

    def _accept_some(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BURST):
            if self.held >= self._max_held:
                self._pause(ACCEPT_PAUSE)
                return
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _GONE:  # out of descriptors or memory
                    log.warning("accepting pauses: %s", error)
                    self._pause(ACCEPT_PAUSE)
                    return
                continue
            sock.setblocking(False)
            self._watch(Visitor(sock, b""))

    def _pause(self, seconds: float) -> None:
        if self._paused is None:
            for listener in self._listeners:
                self._loop.remove_reader(listener)
            self._paused = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._paused = None
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)

    # --- reading ---------------------------------------------------------------------

    def _watch(self, visitor: Visitor) -> None:
        self._visitors[visitor.sock.fileno()] = visitor
        self._crowd.add(visitor.sock)

    def _release(self, visitor: Visitor) -> None:
        self._crowd.remove(visitor.sock)
        del self._visitors[visitor.sock.fileno()]

    def _read(self, descriptor: int, failed: bool) -> None:
        visitor = self._visitors[descriptor]
        try:
            count = -1 if failed else visitor.sock.recv_into(_scrap)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = -1
        if count < 0:  # reset by the peer, or given up by keep-alive: it went first
            del self._visitors[descriptor]
            self._crowd.close_socket(visitor.sock)
            return
        if count == 0:
            self._release(visitor)
            self._hold(visitor.sock)
        elif visitor.received is not None:
            self._take(visitor, visitor.received, count)

    def _take(self, visitor: Visitor, received: bytes, count: int) -> None:
        """Bytes of what may be a message 1; admit the visitor if they are."""
        received += memoryview(_scrap)[: min(count, LENGTH_SIZE + MAX_MESSAGE_1 + 1)]
        length = message_1_length(received) if len(received) >= LENGTH_SIZE else MAX_MESSAGE_1
        if length is not None and len(received) < LENGTH_SIZE + length:
            visitor.received = received
            return
        visitor.received = None
        if length is None or len(received) > LENGTH_SIZE + length:
            return
        suite = self._responder.recognise(received)
        if suite is not None:
            self._release(visitor)
            self._admit(visitor.sock, received, suite, _peer(visitor.sock))

    # --- peers that have half-closed -----------------------------------------------------

    def _hold(self, sock: socket.socket) -> None:
        """Keep a connection open whose peer has ended its side, in place of the oldest."""
        if len(self._half_closed) >= self._max_half_closed:
            self._half_closed.pop(next(iter(self._half_closed))).close()
        self._half_closed[sock.fileno()] = sock

    def _sweep(self) -> None:
        """Drop half-closed connections that are gone; nothing else would tell."""
        for number, sock in list(self._half_closed.items()):
            if peer_is_gone(sock):
                del self._half_closed[number]
                sock.close()
        self._sweeper = self._loop.call_later(SWEEP_INTERVAL, self._sweep)


class Visitor:
    """An accepted socket that has not proved anything.

    `received` may still become a message 1; None: no more, and all else is thrown away.
    """

    __slots__ = ("received", "sock")

    def __init__(self, sock: socket.socket, received: bytes | None) -> None:
        self.sock = sock
        self.received = received


def _peer(sock: socket.socket) -> str:
    try:
        host: str = sock.getpeername()[0]
    except OSError:
        return ""
    return host.removeprefix("::ffff:")
