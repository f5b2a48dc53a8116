"""Each package from its wheel, alone in an empty environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("wheels")  # built once, by one worker

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the checkout, with nothing of ours on any path."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=clean,
        cwd="/",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three wheels, built without isolation from a copy of the sources."""
    target = tmp_path_factory.mktemp("wheels")
    for name in ("protocol", "hub", "node"):
        source = tmp_path_factory.mktemp("source") / name
        shutil.copytree(ROOT / "packages" / f"restunnel-{name}", source)
        run(UV, "build", "--wheel", "--no-build-isolation", "--python", sys.executable,
            "--out-dir", target, source)  # fmt: skip
    return target


def environment(wheels: Path, directory: Path, *packages: str) -> Path:
    """The bin directory of an environment with these packages."""
    run(UV, "venv", "--python", sys.executable, directory)
    files = [next(wheels.glob(f"restunnel_{package}-*.whl")) for package in packages]
    run(UV, "pip", "install", "--python", directory / "bin" / "python", *files)
    return directory / "bin"


IMPORT_ALONE = """
import sys, restunnel_protocol as protocol
for name in protocol.__all__:
    getattr(protocol, name)
found = {"asyncio", "uvloop", "fastapi", "sqlalchemy", "socket"} & set(sys.modules)
found -= set(sys.argv[1:])
assert not found, found
import restunnel_protocol.aio
assert "asyncio" in sys.modules and "uvloop" not in sys.modules
"""


def test_the_protocol_alone_brings_no_event_loop(wheels: Path, tmp_path: Path):
    bin_directory = environment(wheels, tmp_path / "env", "protocol")
    # `socket` is loaded by a dependency on some versions; what we promise is asyncio and up.
    run(bin_directory / "python", "-c", IMPORT_ALONE, "socket")
    installed = run(UV, "pip", "list", "--python", bin_directory / "python").stdout
    for name in ("uvloop", "fastapi", "sqlalchemy", "restunnel-hub", "restunnel-node"):
        assert name not in installed


@pytest.mark.parametrize(("package", "other"), [("hub", "node"), ("node", "hub")])
def test_hub_and_node_install_and_start_without_each_other(wheels, tmp_path, package, other):
    bin_directory = environment(wheels, tmp_path / "env", "protocol", package)
    program = bin_directory / f"restunnel-{package}"
    assert run(program, "--version").stdout.startswith(f"restunnel-{package} 0.")
    assert "COMMAND" in run(program, "--help").stdout
    run(bin_directory / "python", "-c",
        f"import restunnel_{package}.app, importlib.util as u;"
        f"assert u.find_spec('restunnel_{other}') is None")  # fmt: skip
    if package == "hub":
        run(bin_directory / "python", "-c", "from restunnel_hub.dashboard.pages import PackageLoader;"
            "PackageLoader('restunnel_hub.dashboard').get_source(None, 'overview.html')")  # fmt: skip


@pytest.mark.slow
def test_the_oldest_dependencies_that_are_allowed_work(wheels: Path, tmp_path: Path):
    """The lower bounds in each pyproject.toml are not just hopes."""
    python = tmp_path / "env" / "bin" / "python"
    run(UV, "venv", "--python", sys.executable, tmp_path / "env")
    files = [next(wheels.glob(f"restunnel_{name}-*.whl")) for name in ("protocol", "hub", "node")]
    tools = ["pytest", "pytest-asyncio", "hypothesis", "zxing-cpp"]
    run(UV, "pip", "install", "--python", python, *tools)
    run(UV, "pip", "install", "--python", python, "--resolution", "lowest-direct", *files)
    done = subprocess.run(
        [
            str(python),
            "-m",
            "pytest",
            "-q",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            "tests/protocol",
            "tests/hub",
            "tests/node",
            "tests/system/test_pairing.py",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_wheels_hold_what_belongs_in_them(wheels: Path):
    import zipfile

    for wheel in wheels.glob("*.whl"):
        names = zipfile.ZipFile(wheel).namelist()
        package = wheel.name.partition("-")[0]
        assert f"{package}/py.typed" in names
        assert all(name.startswith((f"{package}/", f"{package}-")) for name in names)
        assert not any("test_" in name or name.endswith(".pyc") for name in names)
