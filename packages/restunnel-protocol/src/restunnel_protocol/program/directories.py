"""The `--data-dir` that every command takes, before or after its name."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from platformdirs import user_data_path

from .files import make_private_directory


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Accept `--data-dir` here; a subcommand's own use of it does not undo an earlier one."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="D",
        default=argparse.SUPPRESS,
        help="where keys and state are kept",
    )


def open_data_dir(arguments: argparse.Namespace, program: str) -> Path:
    """The flag's directory, the environment's, or the user's own; created if need be.

    `program` is `restunnel-hub` or `restunnel-node`; the variable is
    `RESTUNNEL_HUB_DATA_DIR` or `RESTUNNEL_NODE_DATA_DIR`. Raises `ProgramError`.
    """
    directory: Path | None = getattr(arguments, "data_dir", None)
    if directory is None:
        named = os.environ.get(program.upper().replace("-", "_") + "_DATA_DIR")
        directory = Path(named) if named else user_data_path(program, appauthor=False)
    make_private_directory(directory)
    return directory
