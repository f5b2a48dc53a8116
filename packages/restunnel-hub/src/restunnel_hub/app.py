"""The hub's composition root: every part, and who talks to whom.

nodes   -> Doorkeeper -> TunnelServer -> Registry
clients -> ProxyServer (Access) -> Outlet -> Registry -> a node's Tunnel
all of them -> Journal, Accounting -> Store
operator -> control socket or dashboard -> Operations -> Registry, Pairing, Store
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from restunnel_protocol import Endpoint, PrivateKey, Target
from restunnel_protocol.addresses import join_host_port
from restunnel_protocol.aio.sockets import tune_proxied
from restunnel_protocol.program.errors import ExitCode, ProgramError
from restunnel_protocol.program.files import lock, read_private, write_private
from restunnel_protocol.program.keyfile import parse_key
from restunnel_protocol.program.service import (
    StopSignals,
    announce_ready,
    inherited_sockets,
    notify,
    watchdog,
)
from restunnel_protocol.program.unix import bind_unix

from ._version import __version__
from .access import Access
from .accounting import Accounting
from .config import LISTENERS, Config, Listen, Paths, check_exposure, is_loopback
from .geo import Countries
from .journal import Journal
from .listening import bind, raise_descriptor_limit
from .operations import Operations
from .outlet import Outlet, RoutePolicy
from .pairing import Pairing, advertised_host
from .passwords import PROPERTY, Passwords
from .proxy import ProxyServer
from .registry import Node, Registry
from .store import Ledger, Store, StoreThread
from .tunnels import TunnelServer, TunnelTimes

if TYPE_CHECKING:  # what it imports takes half a second
    from .web import WebServer

log = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 24
"""Listeners, database, event loop: what strangers can never take."""

STRANGERS_SHARE = 0.75
"""Part of the remaining descriptors that unproven connections may hold."""

FIXED = (*LISTENERS, "proxy_socket", "geoip", "log_format")
"""Settings that only a start takes up."""

PROXY_BACKLOG = 1024
"""Connections of clients that the kernel keeps for us."""


async def run(load: Callable[[], Config], ready_fd: int | None) -> int:
    """Run the hub until a signal stops it; the exit code. SIGHUP loads the settings again."""
    inherited = inherited_sockets()
    config = _inherit(load(), inherited)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(lock(config.paths.lock, "a hub"))
        key = load_key(config.paths)
        store = StoreThread(Store(config.paths.database))
        stack.callback(store.close)
        _check_credentials(config, store.store.ledger)
        sockets = _bind(config, inherited, stack)
        with StopSignals().installed() as signals:
            hub = Hub(config, key, store, sockets)
            signals.on_hangup(lambda: hub.reload(load))
            async with hub.serving():
                stack.enter_context(watchdog())
                announce_ready(ready_fd)
                await signals.first.wait()
                notify("STOPPING=1")
                log.info("stopping")
                if not await signals.grace(hub.drain(), hub.config.grace):
                    log.warning("streams that were still running are cut off")
    return ExitCode.OK


def load_key(paths: Paths) -> PrivateKey:
    """The hub's key; made at the first start. Raises `ProgramError`."""
    try:
        return parse_key(paths.key, read_private(paths.key))
    except FileNotFoundError:
        key = PrivateKey.generate()
        write_private(paths.key, key.raw, replace=False)
        return key


def _check_credentials(config: Config, ledger: Ledger) -> None:
    """Raises `ProgramError` if strangers would reach a service that knows no credentials."""
    for name in ("socks", "http"):
        if not is_loopback(getattr(config, name).host) and not ledger.accounts():
            raise ProgramError(
                f"--{name}: an exposed proxy needs clients with a password, and there are none",
                hint="start the hub on 127.0.0.1 and run `restunnel-hub client add NAME`",
                code=ExitCode.USAGE,
            )
    if not is_loopback(config.dashboard.host) and ledger.property(PROPERTY) is None:
        raise ProgramError(
            "--dashboard: an exposed dashboard needs a password, and there is none",
            hint="start the hub on 127.0.0.1 and run `restunnel-hub password`",
            code=ExitCode.USAGE,
        )


def _inherit(config: Config, inherited: dict[str, socket.socket]) -> Config:
    """Settings that tell the addresses of the sockets that systemd hands over.

    Raises `ProgramError` if there is one of no use, or one that must not be exposed.
    """
    strange = sorted(set(inherited) - set(LISTENERS))
    if strange:
        raise ProgramError(
            f"systemd hands over a socket called {strange[0]!r}",
            hint=f"FileDescriptorName= takes {', '.join(LISTENERS)}",
            code=ExitCode.USAGE,
        )
    addresses = {name: Listen(*sock.getsockname()[:2]) for name, sock in inherited.items()}
    config = replace(config, **addresses)  # type: ignore[arg-type]
    check_exposure(config)
    return config


def _bind(
    config: Config, inherited: dict[str, socket.socket], stack: contextlib.AsyncExitStack
) -> dict[str, socket.socket]:
    """All network sockets, before anything is served on any of them."""
    sockets: dict[str, socket.socket] = {}
    for name in LISTENERS:
        sock = inherited.get(name) or bind(getattr(config, name), f"--{name}")
        sockets[name] = stack.enter_context(sock)
    return sockets


class Hub:
    """All parts of a hub, wired."""

    def __init__(
        self,
        config: Config,
        key: PrivateKey,
        store: StoreThread,
        sockets: dict[str, socket.socket],
    ) -> None:
        self.config = config
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self.listeners = {_label(name): _name(sock) for name, sock in sockets.items()}
        self._unix: socket.socket | None = None
        if config.proxy_socket is not None:
            self._unix = bind_unix(config.proxy_socket)
            self.listeners["proxy-socket"] = str(config.proxy_socket)
        descriptors = raise_descriptor_limit()
        ledger = store.store.ledger
        self._countries = Countries(config.geoip) if config.geoip is not None else None
        self._journal = Journal(store)
        self._registry = Registry(store.store.nodes(), ledger.usages())
        self._pairing = Pairing(store, key.public, self._endpoints)
        self._tunnels = TunnelServer(
            key,
            self._registry,
            self._pairing,
            store,
            lambda: TunnelTimes(self.config.ping_interval, self.config.ping_timeout),
            self._journal,
            max(1, int((descriptors - RESERVED_DESCRIPTORS) * STRANGERS_SHARE)),
        )
        outlet = Outlet(
            self._registry,
            lambda: RoutePolicy(
                self.config.default_route == "spread", self.config.session_lifetime
            ),
            self._countries.of if self._countries is not None else None,
            self._note_refusal,
        )
        access = Access(lambda: self.config.auth_required)
        access.replace(ledger.accounts())
        self._proxy = ProxyServer(outlet, access)
        self._accounting = Accounting(self._registry, self._proxy.clients, store, self._journal)
        self._operations = Operations(
            self._registry,
            store,
            self._pairing,
            self._tunnels,
            outlet,
            self._proxy.clients,
            access,
            self._journal,
            self._accounting,
            Passwords(store),
            self.listeners,
            time.time(),
        )

    def _note_refusal(self, node: Node, target: Target) -> None:
        detail = str(target) if self.config.log_targets else ""
        self._journal.refused(node.record, detail)

    def reload(self, load: Callable[[], Config]) -> None:
        """Take over settings that were changed; what a listener is bound to stays."""
        try:
            new = load()
        except ProgramError as error:
            log.error("the settings stay as they are: %s", error.message)
            return
        for name in FIXED:
            if getattr(new, name) != getattr(self.config, name):
                log.warning("%s changes at the next start", name)
        # What is in force counts: a proxy that strangers reach goes on asking for passwords.
        self.config = replace(new, **{name: getattr(self.config, name) for name in FIXED})
        log.info("settings loaded again")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve within the block. Nodes and clients come first, the dashboard a little later."""
        web: tuple[WebServer, ...] = ()
        try:
            self._journal.note("started", detail=f"version {__version__}")
            self._accounting.start()
            self._tunnels.listen(self._sockets["tunnel"])
            self._announce("tunnel")
            await self._serve_proxies()
            # Half a second of imports, during which the loop goes on.
            await self._operations.passwords.load()
            web = control, pages = await asyncio.to_thread(self._make_web)
            await control.start(bind_unix(self.config.paths.socket))
            await pages.start(self._sockets["dashboard"])
            self._announce("dashboard")
            yield
        finally:
            for server in self._servers:
                server.close()
            for website in web:
                await website.stop()
            self.config.paths.socket.unlink(missing_ok=True)
            if self.config.proxy_socket is not None:
                self.config.proxy_socket.unlink(missing_ok=True)
            self._proxy.abort()
            await self._tunnels.close()
            await self._accounting.close()
            self._journal.note("stopped")
            await self._journal.close()
            if self._countries is not None:
                self._countries.close()

    async def _serve_proxies(self) -> None:
        loop = asyncio.get_running_loop()
        for name, factory in (("socks", self._proxy.socks), ("http", self._proxy.http)):
            sock = self._sockets[name]
            tune_proxied(sock)
            self._servers.append(
                await loop.create_server(factory, sock=sock, backlog=PROXY_BACKLOG)
            )
            self._announce(_label(name))
        if self._unix is not None:
            self._servers.append(await loop.create_unix_server(self._proxy.http, sock=self._unix))
            self._announce("proxy-socket")

    def _make_web(self) -> tuple[WebServer, WebServer]:
        """What serves the control socket, and what serves the dashboard."""
        from .api import control_app
        from .dashboard import Dashboard
        from .web import WebServer

        dashboard = Dashboard(
            self._operations,
            self.listeners["dashboard"],
            exposed=not is_loopback(self.config.dashboard.host),
        )
        control = control_app(self._operations, dashboard.new_login)
        return WebServer(control), WebServer(dashboard.app)

    def _announce(self, name: str) -> None:
        """Tell whoever started us that a listener accepts."""
        print(f"listening {name} {self.listeners[name]}", file=sys.stderr, flush=True)

    async def drain(self) -> None:
        """Take nothing new, and wait for every client to finish."""
        for server in self._servers:
            server.close()
        self._tunnels.go_away()
        self._proxy.drain()
        await self._proxy.clients.wait_idle()

    def _endpoints(self) -> tuple[Endpoint, ...]:
        """What goes into pairing links."""
        if self.config.advertise:
            return self.config.advertise
        host, port = self._sockets["tunnel"].getsockname()[:2]
        if host in ("::", "0.0.0.0"):
            host = advertised_host()
        return (Endpoint(host, port),)


def _label(setting: str) -> str:
    """A listener's name for people: SOCKS5 is what the port speaks."""
    return "socks5" if setting == "socks" else setting


def _name(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return join_host_port(host, port)
