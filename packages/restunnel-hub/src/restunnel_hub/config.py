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
from restunnel_protocol.program.settings import Setting, load_settings, service_settings

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


def parse_local_listen(text: str) -> Listen:
    """The same for a service that strangers must never see: loopback only."""
    listen = parse_listen(text)
    if not is_loopback(listen.host):
        raise ValueError(f"{text} is not a loopback address, and this service must stay private")
    return listen


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


SETTINGS: Final = (
    Setting(
        "tunnel", parse_listen, Listen("", TUNNEL_PORT), "HOST:PORT",
        "where exit nodes connect to (every interface, port 9000)",
    ),
    Setting(
        "socks", parse_local_listen, Listen("127.0.0.1", 1080), "HOST:PORT",
        "SOCKS5 proxy (127.0.0.1:1080)",
    ),
    Setting(
        "http", parse_local_listen, Listen("127.0.0.1", 1081), "HOST:PORT",
        "HTTP proxy (127.0.0.1:1081)",
    ),
    Setting(
        "dashboard", parse_local_listen, Listen("127.0.0.1", 8080), "HOST:PORT",
        "dashboard (127.0.0.1:8080)",
    ),
    Setting(
        "advertise", _parse_endpoint, (), "HOST:PORT",
        "address of this hub to put into pairing links; may be repeated", many=True,
    ),
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
    ping_interval: float
    ping_timeout: float
    grace: float


def open_paths(arguments: argparse.Namespace) -> Paths:
    """The data directory of `--data-dir`, or the user's own; created if need be."""
    return Paths(open_data_dir(arguments, "restunnel-hub"))


def load_config(paths: Paths, arguments: argparse.Namespace) -> Config:
    """Configuration file, environment, flags. Raises `ProgramError`."""
    values, _, _ = load_settings(
        SETTINGS, default_file=paths.config, prefix=ENVIRONMENT_PREFIX, arguments=arguments
    )
    return Config(paths, **values)
