#!/usr/bin/env python3
"""Fuzz one target: `python3 tools/dev.py run python tools/fuzz/run.py TARGET [--seconds N]`.

Starts from the corpus beside this file. With `--keep`, inputs that reach new code are
added to it. A failure is left in `.dev/fuzz/` with the command that repeats it.
Needs atheris, which is there for Linux on x86-64.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["restunnel_protocol"]):
    import targets  # type: ignore[import-not-found]  # beside this file

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
FAILURES = HERE.parent.parent / ".dev" / "fuzz"
MAX_INPUT = 4096
"""Bytes of an input: larger ones find nothing that smaller ones do not."""


def main() -> int:
    """Run one target; libFuzzer's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(targets.TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", action="store_true", help="add what reaches new code")
    parser.add_argument("--input", type=Path, help="repeat one input")
    arguments = parser.parse_args()
    function = targets.TARGETS[arguments.target]
    if arguments.input:
        function(arguments.input.read_bytes())
        return 0
    seeds = CORPUS / arguments.target
    seeds.mkdir(parents=True, exist_ok=True)
    FAILURES.mkdir(parents=True, exist_ok=True)
    options = [f"-max_len={MAX_INPUT}", f"-artifact_prefix={FAILURES}/{arguments.target}-"]
    with tempfile.TemporaryDirectory() as found:
        limit = f"-max_total_time={arguments.seconds}"
        status = in_child(function, [*options, limit, found, str(seeds)])
        if status == 0 and arguments.keep:
            for path in Path(found).iterdir():  # libFuzzer writes only what reaches new code
                shutil.copy(path, seeds)
    return status


def fuzz(function: object, options: list[str]) -> None:
    """Hand over to libFuzzer, which ends the process itself."""
    atheris.Setup([sys.argv[0], *options], function)
    atheris.Fuzz()


def in_child(function: object, options: list[str]) -> int:
    """The same in a process of its own; its exit status."""
    child = os.fork()
    if child == 0:
        fuzz(function, options)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
