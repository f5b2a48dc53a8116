"""The fuzz targets (tools/fuzz): every input that was ever worth keeping, and new ones."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "tools" / "fuzz"
SECONDS = 15
"""How long each target is fuzzed."""


def load_targets():
    spec = importlib.util.spec_from_file_location("fuzz_targets", FUZZ / "targets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TARGETS


TARGETS = load_targets()
names = pytest.mark.parametrize("name", sorted(TARGETS))


@names
def test_the_corpus_holds(name):
    inputs = sorted((FUZZ / "corpus" / name).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[name](path.read_bytes())


@names
@pytest.mark.slow
def test_new_inputs_hold(name):
    pytest.importorskip("atheris", reason="atheris has no build for this system")
    command = [sys.executable, str(FUZZ / "run.py"), name, "--seconds", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS * 6)
    assert done.returncode == 0, done.stderr[-3000:]
