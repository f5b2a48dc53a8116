"""The hub's settings and where its files are."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from restunnel_protocol import AddressError, Endpoint
from restunnel_protocol.addresses import join_host_port, split_host_port
from restunnel_protocol.program.directories import open_data_dir
from restunnel_protocol.program.errors import ExitCode, ProgramError
from restunnel_protocol.program.settings import (
    Setting,
    choice_of,
    load_settings,
    parse_duration,
    service_settings,
    switch,
)

ENVIRONMENT_PREFIX: Final = "RESTUNNEL_HUB"

TUNNEL_PORT: Final = 9000


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. An empty host means every interface, IPv6 and IPv4."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host or "*", self.port)


def parse_listen(text: str) -> Listen:
    """`HOST:PORT`; `*:PORT` and `:PORT` for every interface. Raises `ValueError`."""
    if text.startswith(":"):
        text = "*" + text
    host, port = split_host_port(text)
    return Listen("" if host == "*" else host, port)


def is_loopback(host: str) -> bool:
    """Whether a listener there is out of reach of other machines."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text, TUNNEL_PORT)
    except AddressError as error:
        raise ValueError(str(error)) from error


PRIVATE: Final = ("socks", "http", "dashboard")
"""Listeners that stay on this machine unless `expose` names them."""

LISTENERS: Final = ("tunnel", *PRIVATE)
"""Settings that are addresses to listen on."""

SETTINGS: Final = (
    Setting(
        "tunnel", parse_listen, Listen("", TUNNEL_PORT), "HOST:PORT",
        "where exit nodes connect to (every interface, port 9000)",
    ),
    Setting(
        "socks", parse_listen, Listen("127.0.0.1", 1080), "HOST:PORT",
        "SOCKS5 proxy (127.0.0.1:1080)",
    ),
    Setting(
        "http", parse_listen, Listen("127.0.0.1", 1081), "HOST:PORT",
        "HTTP proxy (127.0.0.1:1081)",
    ),
    Setting(
        "dashboard", parse_listen, Listen("127.0.0.1", 8080), "HOST:PORT",
        "dashboard (127.0.0.1:8080)",
    ),
    Setting(
        "advertise", _parse_endpoint, (), "HOST:PORT",
        "address of this hub to put into pairing links; may be repeated", many=True,
    ),
    Setting(
        "proxy_socket", Path, None, "PATH",
        "Unix socket for both proxies, for this user only (none)",
    ),
    switch("require_auth", "proxies take only clients with a password (see `client add`)"),
    Setting(
        "expose", choice_of(*PRIVATE), (), "LISTENER",
        "socks, http or dashboard: may listen on other than loopback addresses", many=True,
    ),
    Setting(
        "default_route", choice_of("stable", "spread"), "stable", "WAY",
        "without a session: stable (the same node while it is up) or spread over all",
    ),
    Setting(
        "session_lifetime", parse_duration, 0.0, "TIME",
        "after so long a session moves to another node (0: never)",
    ),
    Setting("geoip", Path, None, "FILE", "MMDB with countries, for expect-country= (none)"),
    Setting(
        "log_format", choice_of("console", "json"), "console", "FORMAT", "console or json",
    ),
    switch("log_targets", "name targets in the log and in events"),
    *service_settings("a node"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Paths:
    """Every file of a hub."""

    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "hub_key.bin"

    @property
    def database(self) -> Path:
        return self.directory / "hub.sqlite3"

    @property
    def socket(self) -> Path:
        return self.directory / "hub.sock"

    @property
    def lock(self) -> Path:
        return self.directory / "hub.lock"

    @property
    def config(self) -> Path:
        return self.directory / "hub.toml"


@dataclass(frozen=True, slots=True)
class Config:
    """What `restunnel-hub run` goes by. Times in seconds."""

    paths: Paths
    tunnel: Listen
    socks: Listen
    http: Listen
    dashboard: Listen
    advertise: tuple[Endpoint, ...]
    proxy_socket: Path | None
    require_auth: bool
    expose: tuple[str, ...]
    default_route: str
    session_lifetime: float
    geoip: Path | None
    log_format: str
    log_targets: bool
    ping_interval: float
    ping_timeout: float
    grace: float

    @property
    def auth_required(self) -> bool:
        """Whether the proxies' clients need a password: also where strangers reach a proxy."""
        return self.require_auth or any(
            not is_loopback(listen.host) for listen in (self.socks, self.http)
        )


def open_paths(arguments: argparse.Namespace) -> Paths:
    """The data directory of `--data-dir`, or the user's own; created if need be."""
    return Paths(open_data_dir(arguments, "restunnel-hub"))


def load_config(paths: Paths, arguments: argparse.Namespace) -> Config:
    """Configuration file, environment, flags. Raises `ProgramError`."""
    values, _, _ = load_settings(
        SETTINGS, default_file=paths.config, prefix=ENVIRONMENT_PREFIX, arguments=arguments
    )
    config = Config(paths, **values)
    check_exposure(config)
    return config


def check_exposure(config: Config) -> None:
    """Raises `ProgramError` for a listener that strangers could reach by mistake."""
    for name in PRIVATE:
        listen = getattr(config, name)
        if is_loopback(listen.host) or name in config.expose:
            continue
        raise ProgramError(
            f"--{name}: {listen} is not a loopback address, and this service must stay private",
            hint=f"keep it on 127.0.0.1 and use `ssh -L`; if it must be, add --expose {name}",
            code=ExitCode.USAGE,
        )
