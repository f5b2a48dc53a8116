"""The node's settings and where its files are."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from restunnel_protocol import Rule
from restunnel_protocol.program.directories import open_data_dir
from restunnel_protocol.program.settings import (
    Setting,
    load_settings,
    parse_duration,
    service_settings,
)

from .policy import parse_rules

ENVIRONMENT_PREFIX: Final = "RESTUNNEL_NODE"

BACKOFF_FIRST: Final = 1.0
BACKOFF_CAP: Final = 30.0
"""Seconds between attempts to reach a hub: at least, and at most."""

SETTINGS: Final = (
    *service_settings("the hub"),
    Setting(
        "backoff_first", parse_duration, BACKOFF_FIRST, "TIME",
        "shortest wait before a hub is tried again (1s)",
    ),
    Setting(
        "backoff_cap", parse_duration, BACKOFF_CAP, "TIME",
        "longest wait before a hub is tried again (30s)",
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
    values, policy, path = load_settings(
        SETTINGS,
        default_file=paths.config,
        prefix=ENVIRONMENT_PREFIX,
        arguments=arguments,
        section="policy",
    )
    rules = parse_rules(policy, str(path)) if policy is not None else ()
    return Config(paths, rules, **values)
