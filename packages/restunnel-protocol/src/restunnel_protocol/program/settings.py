"""Settings from one TOML file, then the environment, then flags; the last one wins."""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..limits import PING_INTERVAL, PING_TIMEOUT
from .errors import ExitCode, ProgramError

GRACE: Final = 10.0
"""Seconds that running streams get when a service stops."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


_SWITCH: Final = {"yes": True, "true": True, "no": False, "false": False}


def parse_duration(text: str) -> float:
    """Seconds from `500ms`, `30s`, `15m`, `2h`, `1d`, or a bare number of seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", text.strip())
    if match is None:
        raise ValueError(f"not a duration: {text!r} (as in 30s, 15m, 2h)")
    return float(match[1]) * _UNITS[match[2]]


def format_duration(seconds: float) -> str:
    """`parse_duration`'s reverse, in the largest unit that leaves a whole number."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:.12g}s"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `ping_interval` in TOML, `PREFIX_PING_INTERVAL`, `--ping-interval`.

    `parse` takes the text and raises `ValueError`. A `many` setting is a list in
    TOML, comma-separated in the environment, and a flag that may be repeated. A
    `switch` is true or false in TOML, yes or no in the environment, and a flag without
    a value.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str
    help: str
    many: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def add_flags(parser: argparse.ArgumentParser, settings: Sequence[Setting]) -> None:
    """A flag for each setting; None where it is not given."""
    for setting in settings:
        if setting.many:  # `--advertise A B` and `--advertise A --advertise B`
            parser.add_argument(
                setting.flag, metavar=setting.metavar, help=setting.help, action="extend", nargs="+"
            )
        elif setting.switch:
            parser.add_argument(setting.flag, help=setting.help, action="store_const", const="yes")
        else:
            parser.add_argument(setting.flag, metavar=setting.metavar, help=setting.help)


def switch(name: str, purpose: str) -> Setting:
    """A setting that is off unless somebody switches it on."""
    return Setting(name, parse_switch, False, "", purpose, switch=True)


def parse_switch(text: str) -> bool:
    """`yes` or `no`; `true` and `false` are understood. Raises `ValueError`."""
    word = text.strip().lower()
    if word not in _SWITCH:
        raise ValueError(f"{text!r} is neither yes nor no")
    return _SWITCH[word]


def choice_of(*words: str) -> Callable[[str], str]:
    """A parser that takes one of some words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return parse


def read_toml(path: Path) -> dict[str, Any]:
    """A configuration file. Raises `ProgramError`."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ProgramError(f"no configuration file {path}", code=ExitCode.USAGE) from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProgramError(
            f"cannot read the configuration {path}: {error}", code=ExitCode.USAGE
        ) from error


def service_settings(peer: str) -> tuple[Setting, ...]:
    """What every service has: liveness of its tunnels, and the grace of its end."""
    return (
        Setting(
            "ping_interval", parse_duration, PING_INTERVAL, "TIME",
            f"silence before {peer} is asked for a sign of life (30s)",
        ),
        Setting(
            "ping_timeout", parse_duration, PING_TIMEOUT, "TIME",
            "silence after that before the tunnel is given up (10s)",
        ),
        Setting(
            "grace", parse_duration, GRACE, "TIME",
            "time that running streams get at the end (10s)",
        ),
    )  # fmt: skip


def load_settings(
    settings: Sequence[Setting],
    *,
    default_file: Path,
    prefix: str,
    arguments: argparse.Namespace,
    section: str = "",
) -> tuple[dict[str, Any], Any, Path]:
    """Settings from the file of `--config` or the default one, the environment and flags.

    Returns the values, the raw table called `section` (None if there is none), and the
    file. Raises `ProgramError` (usage).
    """
    given: Path | None = getattr(arguments, "config", None)
    path = given or default_file
    document = read_toml(path) if given or default_file.exists() else {}
    table = document.pop(section, None) if section else None
    return resolve(settings, file=document, prefix=prefix, flags=arguments), table, path


def resolve(
    settings: Sequence[Setting],
    *,
    file: Mapping[str, Any],
    prefix: str,
    flags: argparse.Namespace,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The value of every setting. Raises `ProgramError` (usage) naming the source."""
    environment = os.environ if environment is None else environment
    unknown = sorted(set(file) - {setting.name for setting in settings})
    if unknown:
        raise ProgramError(
            f"unknown setting in the configuration: {unknown[0]}", code=ExitCode.USAGE
        )
    return {setting.name: _value(setting, file, prefix, flags, environment) for setting in settings}


def _value(
    setting: Setting,
    file: Mapping[str, Any],
    prefix: str,
    flags: argparse.Namespace,
    environment: Mapping[str, str],
) -> Any:
    variable = f"{prefix}_{setting.name.upper()}"
    flag = getattr(flags, setting.name, None)
    if flag is not None:
        return _parse(setting, flag, setting.flag)
    if variable in environment:
        text = environment[variable]
        return _parse(setting, _split(text) if setting.many else text, variable)
    if setting.name in file:
        return _parse(setting, file[setting.name], f"{setting.name} in the configuration")
    return setting.default


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse(setting: Setting, raw: Any, source: str) -> Any:
    try:
        if setting.switch and isinstance(raw, bool):
            return raw
        if not setting.many:
            return setting.parse(_scalar(raw))
        if not isinstance(raw, list):
            raise ValueError("a list is needed")
        return tuple(setting.parse(_scalar(item)) for item in raw)
    except ValueError as error:
        raise ProgramError(f"{source}: {error}", code=ExitCode.USAGE) from error


def _scalar(raw: Any) -> str:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(f"not usable: {raw!r}")
    return str(raw)
