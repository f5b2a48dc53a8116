"""Connecting to targets: resolve here, judge each address, dial exactly what was judged."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from aiohappyeyeballs import start_connection

from restunnel_protocol import ConnectFailReason, ExitPolicy, Target
from restunnel_protocol.addresses import IPAddress
from restunnel_protocol.aio.sockets import tune_proxied

from .resolver import AddressInfo, Resolver

MAX_DIALS: Final = 256
"""Dials at once; more wait their turn."""

RESOLVE_TIMEOUT: Final = 10.0
CONNECT_TIMEOUT: Final = 20.0
"""Seconds for a name, and for all of its addresses together."""

HAPPY_EYEBALLS_DELAY: Final = 0.25
"""Seconds before the next address is tried beside the last (RFC 8305, section 8)."""

_REASONS: Final = {
    errno.ECONNREFUSED: ConnectFailReason.REFUSED,
    errno.ECONNRESET: ConnectFailReason.REFUSED,
    errno.ENETUNREACH: ConnectFailReason.NETWORK_UNREACHABLE,
    errno.ENETDOWN: ConnectFailReason.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: ConnectFailReason.NETWORK_UNREACHABLE,
    errno.EAFNOSUPPORT: ConnectFailReason.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: ConnectFailReason.HOST_UNREACHABLE,
    errno.EHOSTDOWN: ConnectFailReason.HOST_UNREACHABLE,
    errno.ETIMEDOUT: ConnectFailReason.TIMEOUT,
    errno.EMFILE: ConnectFailReason.BUSY,
    errno.ENFILE: ConnectFailReason.BUSY,
    errno.ENOBUFS: ConnectFailReason.BUSY,
    errno.ENOMEM: ConnectFailReason.BUSY,
}

_NAME_UNKNOWN: Final = {
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA") if hasattr(socket, name)
}


class DialError(Exception):
    """A target that was not connected; `reason` goes into CONNECT_FAIL."""

    def __init__(self, reason: ConnectFailReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Dialer:
    """Opens TCP connections that the exit policy allows."""

    def __init__(
        self,
        policy: Callable[[], ExitPolicy],
        resolver: Resolver,
        *,
        resolve_timeout: float = RESOLVE_TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_dials: int = MAX_DIALS,
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self._resolve_timeout = resolve_timeout
        self._connect_timeout = connect_timeout
        self._slots = asyncio.Semaphore(max_dials)

    async def dial(self, target: Target) -> tuple[socket.socket, Target]:
        """A connected, non-blocking socket and the address it is connected to.

        Raises `DialError`; cancelling it leaves no socket behind.
        """
        async with self._slots:
            infos = self._permitted(target, await self._addresses(target))
            sock = await self._connect(infos)
            try:
                return sock, self._check_peer(sock, target, infos)
            except BaseException:
                sock.close()
                raise

    async def addresses(self, target: Target) -> list[IPAddress]:
        """Where a target's name leads, unjudged. Raises `DialError`."""
        return [_address(info) for info in await self._addresses(target)]

    async def _addresses(self, target: Target) -> list[AddressInfo]:
        if not isinstance(target.host, str):
            return [_literal(target.host, target.port)]
        verdict = self._policy().judge_name(target.host, target.port)
        if not verdict.allowed:
            raise DialError(ConnectFailReason.NOT_ALLOWED, f"{target.host}: {verdict.reason}")
        try:
            infos = await self._resolver.resolve(target.host, target.port, self._resolve_timeout)
        except socket.gaierror as error:
            raise _name_error(target.host, error) from error
        except TimeoutError as error:
            raise DialError(
                ConnectFailReason.NAME_UNRESOLVED, f"no answer from the resolver for {target.host}"
            ) from error
        except (OSError, UnicodeError) as error:
            raise DialError(ConnectFailReason.NAME_UNRESOLVED, str(error)) from error
        if not infos:
            raise DialError(ConnectFailReason.NAME_NOT_FOUND, f"{target.host} has no address")
        return infos

    def _permitted(self, target: Target, infos: list[AddressInfo]) -> list[AddressInfo]:
        policy = self._policy()
        name = target.host if isinstance(target.host, str) else None
        verdicts = [policy.judge(_address(info), target.port, name) for info in infos]
        allowed = [info for info, v in zip(infos, verdicts, strict=True) if v.allowed]
        if not allowed:
            raise DialError(ConnectFailReason.NOT_ALLOWED, verdicts[0].reason)
        return allowed

    async def _connect(self, infos: list[AddressInfo]) -> socket.socket:
        try:
            async with asyncio.timeout(self._connect_timeout):
                if len(infos) == 1:
                    return await _connect_one(infos[0])
                return await start_connection(
                    infos,
                    happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY,
                    interleave=1,
                    socket_factory=_make_socket,
                )
        except TimeoutError as error:
            raise DialError(ConnectFailReason.TIMEOUT, "the target does not answer") from error
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, ConnectFailReason.GENERAL)
            raise DialError(reason, _plain(error)) from error

    def _check_peer(self, sock: socket.socket, target: Target, judged: list[AddressInfo]) -> Target:
        """The address at the other end, judged once more if it is none that was judged."""
        try:
            address = sock.getpeername()
        except OSError as error:
            raise DialError(ConnectFailReason.REFUSED, _plain(error)) from error
        if any(info[4][:2] == address[:2] for info in judged):
            return Target(ip_address(address[0].partition("%")[0]), target.port)
        peer = Target(ip_address(address[0].partition("%")[0]), target.port)
        assert not isinstance(peer.host, str)
        name = target.host if isinstance(target.host, str) else None
        verdict = self._policy().judge(peer.host, target.port, name)
        if not verdict.allowed:
            raise DialError(ConnectFailReason.NOT_ALLOWED, verdict.reason)
        return peer


def _make_socket(info: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
    family, kind, proto, _, _ = info
    sock = socket.socket(family, kind, proto)
    sock.setblocking(False)
    tune_proxied(sock)
    return sock


async def _connect_one(info: AddressInfo) -> socket.socket:
    sock, address = _make_socket(info), info[4]
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _literal(address: IPAddress, port: int) -> AddressInfo:
    if address.version == 4:
        return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), port)
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), port, 0, 0)


def _address(info: AddressInfo) -> IPAddress:
    return ip_address(info[4][0].partition("%")[0])


def _name_error(name: str, error: socket.gaierror) -> DialError:
    if error.errno in _NAME_UNKNOWN:
        return DialError(ConnectFailReason.NAME_NOT_FOUND, f"{name}: name not found")
    return DialError(ConnectFailReason.NAME_UNRESOLVED, f"{name}: {str(error.strerror).lower()}")


def _plain(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
