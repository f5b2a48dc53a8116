"""The node's settings and where its files are."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from restunnel_protocol import Rule
from restunnel_protocol.limits import PING_INTERVAL, PING_TIMEOUT
from restunnel_protocol.program.directories import open_data_dir
from restunnel_protocol.program.settings import Setting, parse_duration, read_toml, resolve

from .policy import parse_rules

ENVIRONMENT_PREFIX: Final = "RESTUNNEL_NODE"

BACKOFF_FIRST: Final = 1.0
BACKOFF_CAP: Final = 60.0
"""Seconds between attempts to reach a hub: at least, and at most."""

GRACE: Final = 10.0
"""Seconds that running streams get when the node stops."""

SETTINGS: Final = (
    Setting(
        "ping_interval", parse_duration, PING_INTERVAL, "TIME",
        "silence before the hub is asked for a sign of life (30s)",
    ),
    Setting(
        "ping_timeout", parse_duration, PING_TIMEOUT, "TIME",
        "silence after that before the tunnel is given up (10s)",
    ),
    Setting(
        "backoff_first", parse_duration, BACKOFF_FIRST, "TIME",
        "shortest wait before a hub is tried again (1s)",
    ),
    Setting(
        "backoff_cap", parse_duration, BACKOFF_CAP, "TIME",
        "longest wait before a hub is tried again (1m)",
    ),
    Setting(
        "grace", parse_duration, GRACE, "TIME",
        "time that running streams get when the node stops (10s)",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Paths:
    """Every file of a node."""

    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "node_key.bin"

    @property
    def hubs(self) -> Path:
        return self.directory / "hubs.toml"

    @property
    def policy(self) -> Path:
        return self.directory / "policy.toml"

    @property
    def timestamp(self) -> Path:
        return self.directory / "timestamp"

    @property
    def socket(self) -> Path:
        return self.directory / "node.sock"

    @property
    def lock(self) -> Path:
        return self.directory / "node.lock"

    @property
    def config(self) -> Path:
        return self.directory / "node.toml"


@dataclass(frozen=True, slots=True)
class Config:
    """What `restunnel-node run` goes by. Times in seconds."""

    paths: Paths
    rules: tuple[Rule, ...]
    ping_interval: float
    ping_timeout: float
    backoff_first: float
    backoff_cap: float
    grace: float


def open_paths(arguments: argparse.Namespace) -> Paths:
    """The data directory of `--data-dir`, or the user's own; created if need be."""
    return Paths(open_data_dir(arguments, "restunnel-node"))


def load_config(paths: Paths, arguments: argparse.Namespace) -> Config:
    """Configuration file, environment, flags. Raises `ProgramError`."""
    given: Path | None = getattr(arguments, "config", None)
    source = given or paths.config
    document: dict[str, Any] = read_toml(source) if given or source.exists() else {}
    rules = parse_rules(document.pop("policy", {}), str(source))
    values = resolve(SETTINGS, file=document, prefix=ENVIRONMENT_PREFIX, flags=arguments)
    return Config(paths, rules, **values)
