"""Socket options and the shared receive buffer. Each option says why it is set."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from typing import Final, cast

RECEIVE_BUFFER_SIZE: Final = 256 * 1024
"""Bytes that one read can take: four full records."""

NOTSENT_LOWAT: Final = 128 * 1024
"""Bytes that the kernel may hold unsent on a tunnel: what a small request waits behind."""

PROXIED_NOTSENT_LOWAT: Final = 256 * 1024
"""The same towards a client or target: one that stalls would keep megabytes in the kernel."""

KEEPALIVE_IDLE: Final = 60
"""Seconds without traffic before TCP probes whether the other end still exists."""

_LINGER: Final = struct.Struct("hh" if os.name == "nt" else "ii")
_LINGER_RESET: Final = _LINGER.pack(1, 0)
_LINGER_NORMAL: Final = _LINGER.pack(0, 0)


class _LoopBuffer(threading.local):
    """One buffer per thread, so per event loop: it is only used within one callback."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(RECEIVE_BUFFER_SIZE))


_loop_buffer = _LoopBuffer()


def receive_buffer() -> memoryview:
    """This loop's receive buffer. What it holds is gone after the callback returns."""
    return _loop_buffer.view


def tune_tunnel(sock: socket.socket, dead_after: float) -> None:
    """Options for a tunnel that must notice a dead route within `dead_after` seconds."""
    _set(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock)
    _set_named(sock, "TCP_NOTSENT_LOWAT", NOTSENT_LOWAT)
    _set_named(sock, "TCP_USER_TIMEOUT", int(dead_after * 1000))


def tune_proxied(sock: socket.socket) -> None:
    """Options for a connection to a client or a target.

    To be set before there is a connection: on a listener, whose connections inherit
    them, or before connecting. Through a loop's transport each would cost microseconds.
    """
    _set(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keep_alive(sock, TCP_KEEPIDLE=KEEPALIVE_IDLE)
    _set_named(sock, "TCP_NOTSENT_LOWAT", PROXIED_NOTSENT_LOWAT)


def keep_alive(sock: socket.socket, **options: int) -> None:
    """Have the kernel find out that a peer is gone; TCP_KEEP* options in seconds and probes."""
    _set(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options.items():
        _set_named(sock, option, value)


def reset_on_close(sock: socket.socket, reset: bool) -> None:
    """Whether closing, or the death of this process, resets the connection.

    A connection that carries a stream is set to reset until both directions have
    ended, so that a transfer cut short by a crash never looks complete.
    """
    _set(sock, socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET if reset else _LINGER_NORMAL)


def as_transport(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """The transport that a stream protocol gets; uvloop's is one in all but its class."""
    return cast(asyncio.Transport, transport)


def transport_socket(transport: asyncio.BaseTransport) -> socket.socket:
    """The socket below a transport, for options only."""
    sock: socket.socket = transport.get_extra_info("socket")
    return sock


def _set_named(sock: socket.socket, option: str, value: int) -> None:
    number = getattr(socket, option, None)
    if number is None and option == "TCP_NOTSENT_LOWAT" and hasattr(socket, "TCP_USER_TIMEOUT"):
        number = 25  # Linux; Python names it from 3.12 on
    if number is not None:
        _set(sock, socket.IPPROTO_TCP, number, value)


def _set(sock: socket.socket, level: int, option: int, value: int | bytes) -> None:
    # The peer may be gone already, or the socket not TCP: the next read or write says so.
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return
