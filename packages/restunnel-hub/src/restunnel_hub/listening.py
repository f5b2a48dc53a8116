"""Listening sockets, bound with an error that says what to do about it."""

from __future__ import annotations

import errno
import socket

from restunnel_protocol.program.errors import ProgramError, describe_os_error

from .config import Listen


def bind(listen: Listen, flag: str) -> socket.socket:
    """A bound TCP socket. Raises `ProgramError`; `flag` is the option that moves it."""
    try:
        if not listen.host:
            return _bind_everywhere(listen.port)
        family, _, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        raise ProgramError(
            f"cannot listen on {listen}: {describe_os_error(error)}", hint=_hint(error, flag)
        ) from error


def _bind_everywhere(port: int) -> socket.socket:
    """Every interface: IPv6 and IPv4 in one socket where the system can."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # IPv6 may be built in but switched off
                raise
    return socket.create_server(("", port), backlog=1024)


def _hint(error: OSError, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program listens there (a second hub?); choose another port with {flag}"
    if error.errno == errno.EACCES:
        return f"ports below 1024 need privileges; choose another with {flag}"
    return ""


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE to the hard limit; how many descriptors we may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 8192
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):
            pass  # macOS refuses "unlimited": the soft limit stays
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
