"""Watches thousands of sockets at little cost each.

An event loop's own reader costs microseconds to set up and hundreds of bytes to keep,
per socket. Where the system has epoll, all of these sockets share one reader: an
epoll descriptor is itself readable as soon as one of its sockets is.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections.abc import Callable
from typing import Final

BATCH: Final = 64
"""Sockets served in one turn of the loop."""


class Crowd:
    """Calls `ready(descriptor, failed)` for each watched socket with something to read.

    `failed` tells that the connection is over, where the system says so for nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: Callable[[int, bool], None]) -> None:
        self._loop = loop
        self._ready = ready
        self._epoll = select.epoll() if sys.platform == "linux" else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._serve)

    def add(self, sock: socket.socket) -> None:
        """Watch a socket."""
        if self._epoll is not None:
            self._epoll.register(sock, select.EPOLLIN)
        else:
            self._loop.add_reader(sock, self._ready, sock.fileno(), False)

    def remove(self, sock: socket.socket) -> None:
        """Watch it no longer."""
        if self._epoll is not None:
            self._epoll.unregister(sock)
        else:
            self._loop.remove_reader(sock)

    def close_socket(self, sock: socket.socket) -> None:
        """Watch it no longer, and close it."""
        if self._epoll is None:
            self._loop.remove_reader(sock)
        sock.close()  # which takes it out of an epoll

    def close(self) -> None:
        """Watch nothing any more."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _serve(self) -> None:
        assert self._epoll is not None
        for descriptor, events in self._epoll.poll(0, BATCH):
            self._ready(descriptor, bool(events & (select.EPOLLERR | select.EPOLLHUP)))
