"""Notices connections that end while nobody reads from them.

An event loop tells of a reset only to who is reading. A relay that has paused
(the tunnel is full) or has read the end (only the other direction goes on) would
keep its stream open for a peer that is long gone. So these, and only these, are
looked at every few seconds; while there are none, no timer runs.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import weakref
from collections.abc import Callable
from typing import Final

from .sockets import transport_socket

INTERVAL: Final = 5.0
"""Seconds between two looks."""

_TCP_CLOSED: Final = 7
"""tcpi_state of a connection that the peer has reset (linux/include/net/tcp_states.h)."""

_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, PeerWatch] = (
    weakref.WeakKeyDictionary()
)


def peer_is_gone(sock: socket.socket) -> bool:
    """Whether the kernel has seen the connection end; after a FIN only Linux says."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return True
    if sock.family == getattr(socket, "AF_UNIX", None):
        poll = select.poll()
        poll.register(sock, 0)  # what has happened to it, whether anybody reads or not
        return bool(poll.poll(0))
    if sys.platform != "linux":
        return False
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSED


class Watcher:
    """One connection's place in the watch of its loop; `gone` is called once if its peer is."""

    __slots__ = ("_gone", "_sock", "_watch")

    def __init__(self, loop: asyncio.AbstractEventLoop, gone: Callable[[], None]) -> None:
        self._watch = PeerWatch.of(loop)
        self._gone = gone
        self._sock: socket.socket | None = None

    def start(self, transport: asyncio.BaseTransport) -> None:
        """Nobody reads from the transport for now. Again is no different."""
        if self._sock is None:
            self._sock = transport_socket(transport)
            self._watch.add(self._sock, self._gone)

    def stop(self) -> None:
        """Somebody reads again, or the transport is done with."""
        if self._sock is not None:
            self._watch.remove(self._sock)
            self._sock = None


class PeerWatch:
    """The sockets of one event loop that nobody reads from."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[socket.socket, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> PeerWatch:
        """The one watch of a loop."""
        watch = _watches.get(loop)
        if watch is None:
            watch = _watches[loop] = cls(loop)
        return watch

    def add(self, sock: socket.socket, gone: Callable[[], None]) -> None:
        """Look at a socket from now on; `gone` is called once if its peer is."""
        self._watched[sock] = gone
        if self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)

    def remove(self, sock: socket.socket) -> None:
        """Somebody reads again, or the socket is done with."""
        self._watched.pop(sock, None)

    def _look(self) -> None:
        self._timer = None
        for sock, gone in list(self._watched.items()):
            if peer_is_gone(sock):
                self._watched.pop(sock, None)
                gone()
        if self._watched and self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)
