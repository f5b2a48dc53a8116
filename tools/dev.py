#!/usr/bin/env python3
"""Everything that a developer does with this repository, with Python alone.

    python3 tools/dev.py demo [--once]   see Restunnel work: hub, node, two fetches
    python3 tools/dev.py test [--slow]   gates and all tests
    python3 tools/dev.py lint            the gates alone
    python3 tools/dev.py fix             format, and mend what the linter can
    python3 tools/dev.py build           wheels and sdists into dist/
    python3 tools/dev.py bench [...]     compare with other tunnels (tools/bench)
    python3 tools/dev.py run ARGS...     a command in the workspace's environment

Needs Python 3.11 or newer and a way to the package index. Makes its environments
below .dev/ and touches nothing else; root is not needed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".dev"
PACKAGES = ("restunnel-protocol", "restunnel-hub", "restunnel-node")
TOOLS = ("hatch>=1.16",)  # the first with workspaces
BRANCH_COVERAGE = 98
"""Percent of the protocol package's branches that its own tests must reach."""

DEBIAN_PACKAGES = {
    "curl": "curl",
    "chromedriver": "chromium-driver",
    "faketime": "faketime",
}
"""Programs that tests use, and the Debian packages that have them."""

BENCH_PACKAGES = {
    "sshd": "openssh-server",
    "ss-local": "shadowsocks-libev",
    "v2ray": "v2ray",
    "microsocks": "microsocks",
}
"""The same for the subjects of the bench."""


def main() -> int:
    """Run one command; its exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is what old Pythons get to see
        fail("Python 3.11 or newer is needed, this is " + sys.version.split()[0])
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="see Restunnel work")
    demo.add_argument("--once", action="store_true", help="end after the fetches")
    demo.set_defaults(command=run_demo)
    test = commands.add_parser("test", help="gates and all tests; more arguments go to pytest")
    test.add_argument("--slow", action="store_true", help="the slow tests too")
    test.set_defaults(command=run_tests)
    for name, text, command in (
        ("lint", "the gates alone", run_lint),
        ("fix", "format, and mend what the linter can", run_fix),
        ("build", "wheels and sdists into dist/", run_build),
    ):
        commands.add_parser(name, help=text).set_defaults(command=command)
    bench = commands.add_parser("bench", help="compare with other tunnels", add_help=False)
    bench.set_defaults(command=run_bench)
    run = commands.add_parser("run", help="a command in the workspace's environment")
    run.add_argument("rest", nargs=argparse.REMAINDER, metavar="ARGS")
    run.set_defaults(command=run_in_workspace)
    os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # trust what the system trusts, as git does
    arguments, rest = parser.parse_known_args()
    if arguments.command in (run_tests, run_bench):
        arguments.rest = rest
    elif rest:
        parser.error("unknown arguments: " + " ".join(rest))
    return int(arguments.command(arguments))


def run_demo(arguments: argparse.Namespace) -> int:
    """Build the three packages, install them into an environment of their own, and show."""
    wheels = STATE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    build(wheels, "wheel")
    environment = STATE / "demo"
    python = make_environment(environment, "--clear")
    say("installing the packages")
    check(
        [hatch_tool("uv"), "pip", "install", "--quiet", "--python", str(python)]
        + [str(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    )
    once = ["--once"] if arguments.once else []
    # Ctrl-C reaches the demonstration too; it ends by itself, and this waits for it.
    signal.signal(signal.SIGINT, lambda *_: None)
    return subprocess.call([str(python), str(ROOT / "tools" / "demo.py"), *once])


def run_tests(arguments: argparse.Namespace) -> int:
    """The gates, then pytest on all cores."""
    install_debian_packages(DEBIAN_PACKAGES)
    status = run_lint(arguments)
    if status:
        return status
    pytest = ["run", "pytest"]
    # Most tests wait for processes more than they compute: two for each core.
    workers = str(2 * (os.cpu_count() or 1))
    side_by_side = [*pytest, "-n", workers, "--dist", "loadgroup"]
    pace = "" if arguments.slow else " and not slow"
    if arguments.rest:
        selection = [] if arguments.slow else ["-m", "not slow"]
        return hatch(*side_by_side, *selection, *arguments.rest)
    protocol = [*side_by_side, "tests/protocol", *coverage_options(), "-m", f"not alone{pace}"]
    others = [*side_by_side, "--ignore=tests/protocol", "-m", f"not alone{pace}"]
    alone = [*pytest, "-m", f"alone{pace}"]
    return hatch(*protocol) or check_coverage() or hatch(*others) or hatch(*alone)


def coverage_options() -> list[str]:
    """Have pytest measure what the protocol package's own tests reach."""
    report = f"--cov-report=json:{STATE / 'coverage.json'}"
    return ["--cov=restunnel_protocol", "--cov-branch", report]


def check_coverage() -> int:
    """Whether they reach enough of its branches."""
    totals = json.loads((STATE / "coverage.json").read_text())["totals"]
    percent = 100 * totals["covered_branches"] / totals["num_branches"]
    say(f"tests/protocol reaches {percent:.1f} % of the protocol package's branches")
    return int(percent < BRANCH_COVERAGE)


def run_lint(arguments: argparse.Namespace) -> int:
    """Format, lint, types, import contracts."""
    return hatch("run", "lint")


def run_fix(arguments: argparse.Namespace) -> int:
    """What the formatter and the linter can do by themselves."""
    return hatch("run", "fix")


def run_build(arguments: argparse.Namespace) -> int:
    """Wheels and sdists of the three packages."""
    build(ROOT / "dist", "wheel", "sdist")
    return 0


def run_bench(arguments: argparse.Namespace) -> int:
    """The bench, with whichever of its subjects are installed."""
    install_debian_packages(BENCH_PACKAGES)
    return hatch("run", "python", str(ROOT / "tools" / "bench" / "bench.py"), *arguments.rest)


def run_in_workspace(arguments: argparse.Namespace) -> int:
    """Any command, with all packages and test tools at hand."""
    return hatch("run", *arguments.rest)


def build(target: Path, *kinds: str) -> None:
    """Build every package into `target`."""
    options = [option for kind in kinds for option in ("-t", kind)]
    for package in PACKAGES:
        say(f"building {package}")
        hatch("build", *options, str(target), cwd=ROOT / "packages" / package, quiet=True)


def hatch(*command: str, cwd: Path = ROOT, quiet: bool = False) -> int:
    """Run hatch with all of its state below .dev/."""
    environment = dict(
        os.environ,
        HATCH_DATA_DIR=str(STATE / "hatch"),
        HATCH_CONFIG=str(STATE / "hatch.toml"),
        HATCH_PYTHON=sys.executable,
        HATCH_INTERACTIVE="0",
    )
    for name in ("HATCH_ENV", "VIRTUAL_ENV", "PYTHONPATH", "UV_PYTHON"):
        environment.pop(name, None)
    STATE.mkdir(exist_ok=True)
    (STATE / "hatch.toml").touch()
    full = [hatch_tool("hatch"), *command]
    if not quiet:
        return subprocess.call(full, cwd=cwd, env=environment)
    done = subprocess.run(full, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        fail(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return 0


def hatch_tool(name: str) -> str:
    """A program of the environment that holds hatch (and uv, which comes with it)."""
    environment = STATE / "tools"
    stamp = environment / "restunnel-tools"
    wanted = f"{sys.version}\n{TOOLS}\n"
    if not stamp.exists() or stamp.read_text() != wanted:
        python = make_environment(environment, "--clear")
        say("installing hatch")
        check([str(python), "-m", "pip", "install", "--quiet", *TOOLS, "uv"])
        stamp.write_text(wanted)
    return str(environment / ("Scripts" if os.name == "nt" else "bin") / name)


def make_environment(path: Path, *options: str) -> Path:
    """A virtual environment; its Python. Works under a system Python that refuses pip."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        fail(
            "this Python lacks ensurepip and cannot make environments;"
            f" install it, as in: sudo apt install python{version}-venv"
        )
    STATE.mkdir(exist_ok=True)
    builder = venv.EnvBuilder(with_pip=True, clear="--clear" in options, symlinks=os.name != "nt")
    builder.create(path)
    return path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install_debian_packages(wanted: dict[str, str]) -> None:
    """What is used and the system lacks, where we may; without it that part is left out."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = [name for program, name in wanted.items() if not shutil.which(program, path=path)]
    if not missing or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    say("installing " + ", ".join(missing))
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing],
    ):
        if subprocess.call(command, stdout=subprocess.DEVNULL, env=environment):
            say("that did not work; what needs them is left out")
            return


def check(command: list[str]) -> None:
    """Run a command that must succeed."""
    if subprocess.call(command):
        fail(f"{' '.join(command[:6])} ... failed")


def say(text: str) -> None:
    """What is going on, on stderr."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    """End with a message."""
    print(f"dev.py: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # what a shell reports for SIGINT
