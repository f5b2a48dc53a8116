"""The log on stderr: a line for people, or a JSON object for programs, per entry."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

NOISY = ("uvicorn", "uvicorn.error", "asyncio", "alembic")
"""Loggers whose information nobody needs."""


def configure(log_format: str, *, verbose: bool) -> None:
    """Send everything, also what other libraries log, to stderr in one format."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=log_format == "json"),
        structlog.processors.format_exc_info,
    ]
    if log_format == "json":
        shared.append(structlog.stdlib.add_logger_name)
        renderer: Any = structlog.processors.JSONRenderer()
    else:
        renderer = _line
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _line(logger: Any, name: str, entry: dict[str, Any]) -> str:
    """`2026-11-22T19:00:00 INFO connected node=phone detail='from 192.0.2.1'`."""
    when, level, event = (entry.pop(key, "") for key in ("timestamp", "level", "event"))
    trace = entry.pop("exception", "")
    fields = "".join(f" {key}={_value(value)}" for key, value in entry.items())
    line = f"{when} {str(level).upper()} {_plain(str(event))}{fields}"
    return f"{line}\n{trace}" if trace else line


def _value(value: Any) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)


def _plain(text: str) -> str:
    """One line, whatever a peer has put into it."""
    return text if text.isprintable() else repr(text)[1:-1]
