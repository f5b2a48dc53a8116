#!/usr/bin/env python3
"""Compare Restunnel with other tunnels: `python3 tools/dev.py bench [SUBJECT ...]`.

Every subject does the same work on loopback, with the same compiled load generator and
origin (load/main.go), in interleaved rounds. Prints a table of medians; the ratios in it
and the CPU seconds mean something, the absolute figures only on one machine in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from subjects import (  # type: ignore[import-not-found]  # beside this file
    SUBJECTS,
    Bench,
    Running,
    missing,
    running,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support.delay import distance  # type: ignore[import-not-found]  # noqa: E402

PROGRAMS = ROOT / ".dev" / "bench"
TICK = os.sysconf("SC_CLK_TCK")
GB = 1_000_000_000
IDLE_STREAMS = 1000
WORK_TIMEOUT = 60.0
"""Seconds after which a work has failed: some subjects stall for good beside a stalled client."""

MANY_STREAMS = 5000
"""Open streams beside which a request should cost what it costs beside a hundred."""

Row = dict[str, float]


def main() -> int:
    """Run the bench; 0 if every subject did its work."""
    parser = argparse.ArgumentParser(prog="dev.py bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wan", metavar="100ms", help="round trip between the two ends")
    parser.add_argument("--scale", action="store_true", help="many streams, open and over")
    parser.add_argument("--profile", metavar="DIR", type=Path, help="perf data of a 1 GB download")
    parser.add_argument("--json", metavar="FILE", type=Path, help="all figures of all rounds")
    arguments = parser.parse_args()
    names = arguments.subjects or list(SUBJECTS)
    for name in names:
        if name not in SUBJECTS:
            parser.error(f"no subject {name}; there are {', '.join(SUBJECTS)}")
    programs = build()
    for name in list(names):
        if lacking := missing(name):
            print(f"bench: {name} is left out: no {', '.join(lacking)}", file=sys.stderr)
            names.remove(name)
    work = wan if arguments.wan else scale if arguments.scale else local
    rounds: dict[str, list[Row]] = {name: [] for name in names}
    with origin(programs["load"]) as address:
        for number in range(arguments.rounds):
            for name in names:
                print(f"bench: round {number + 1}, {name}", file=sys.stderr)
                rounds[name].append(measure(name, address, programs, arguments, work))
    medians = {name: median(rows) for name, rows in rounds.items()}
    print(table(medians, arguments))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({**circumstances(arguments), "rounds": rounds, "medians": medians}, indent=1)
        )
    return 0


# --- programs and processes -------------------------------------------------------


def build() -> dict[str, Path]:
    """The compiled programs."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    for name in ("load", "gotunnel"):
        command = ["go", "build", "-o", str(PROGRAMS / name), "."]
        subprocess.run(command, cwd=HERE / name, env=environment, check=True)
    return {name: PROGRAMS / name for name in ("load", "gotunnel")}


@contextlib.contextmanager
def origin(program: Path) -> Iterator[str]:
    """The origin; its address."""
    process = subprocess.Popen(
        [str(program), "origin", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def family(processes: list[int]) -> set[int]:
    """These processes and all of their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    waiting = list(processes)
    while waiting:
        found.add(number := waiting.pop())
        waiting += children.get(number, [])
    return found


def cpu_seconds(processes: list[int]) -> float:
    """CPU time that the processes have used."""
    total = 0
    for number in family(processes):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(processes: list[int]) -> int:
    """Resident bytes of the processes."""
    pages = 0
    for number in family(processes):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{number}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- the work ---------------------------------------------------------------------


class Load:
    """Runs the load generator against one subject."""

    def __init__(self, program: Path, subject: Running, address: str) -> None:
        self._line = ["-via", subject.via, "-proxy", subject.proxy, "-origin", address]
        self._program = str(program)

    def command(self, work: str, **options: Any) -> list[str]:
        """The command line of a work."""
        flags = [f"-{name}={str(value).lower()}" for name, value in options.items()]
        return [self._program, work, *self._line, *flags]

    def __call__(self, work: str, figures: dict[str, str], **options: Any) -> Row:
        """Run a work: its figures under the names that they get here; none if it fails."""
        try:
            output = subprocess.check_output(
                self.command(work, **options), text=True, timeout=WORK_TIMEOUT
            )
        except subprocess.SubprocessError as error:
            print(f"bench: {', '.join(figures.values())}: {error}", file=sys.stderr)
            return {}
        result = json.loads(output)
        return {name: result[figure] for figure, name in figures.items()}


def measure(
    name: str,
    address: str,
    programs: dict[str, Path],
    arguments: argparse.Namespace,
    work: Callable[[Load, Running], Row],
) -> Row:
    """One round of one subject."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        one_way = float((arguments.wan or "0").removesuffix("ms")) / 2000

        def way(port: int) -> int:
            return stack.enter_context(distance(port, one_way)) if arguments.wan else port

        bench = Bench(directory, address, way, programs)
        try:
            subject = stack.enter_context(running(name, bench))
            load = Load(programs["load"], subject, address)
            if arguments.profile:
                profile(load, subject, arguments.profile, name)
            return work(load, subject)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            return {}


def local(load: Load, subject: Running) -> Row:
    """Everything that is measured without distance."""
    row: Row = {}
    load("down", {}, size=GB // 10)  # the first bytes find everything cold
    for work in ("down", "up"):
        before = cpu_seconds(subject.processes)
        row |= load(work, {"MB/s": f"{work} MB/s"}, size=GB)
        row[f"CPU s/GB {work}"] = cpu_seconds(subject.processes) - before
    row |= load("down", {"MB/s": "8 down MB/s"}, size=GB, streams=8)
    row |= load("connections", {"per second": "conn/s"}, streams=32)
    row |= load("requests", {"per second": "req/s", "p99 ms": "p99 ms"}, streams=32)
    row |= load("requests", {"p50 ms": "1 client p50 ms"}, streams=1)
    row |= load("requests", {"p99 ms": "p99 ms beside bulk"}, streams=1, bulk=True)
    row["KB per idle stream"] = idle_memory(load, subject)
    beside = {"per second": "req/s beside stalled", "p99 ms": "p99 ms beside stalled"}
    row |= load("requests", beside, streams=32, stalled=True)
    return row


def scale(load: Load, subject: Running) -> Row:
    """What many streams cost: those that are open, and those that have been."""
    row: Row = {}
    for held in (100, MANY_STREAMS):
        row |= load("requests", {"per second": f"req/s, {held} open"}, streams=32, held=held)
    load("connections", {}, streams=32, seconds=5)
    before = memory(subject.processes)
    load("connections", {}, streams=32, seconds=30)
    row["MB grown by 30 s of connections"] = (memory(subject.processes) - before) / 1e6
    return row


def idle_memory(load: Load, subject: Running) -> float:
    """Kilobytes of both ends for each stream that is held and has been used once."""
    before = memory(subject.processes)
    holder = subprocess.Popen(
        load.command("idle", held=IDLE_STREAMS), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        return (memory(subject.processes) - before) / IDLE_STREAMS / 1000
    finally:
        holder.communicate()


def wan(load: Load, subject: Running) -> Row:
    """Everything that distance matters for."""
    return (
        load("first-byte", {"ms": "first byte ms"})
        | load("down", {"MB/s": "300 MB down MB/s"}, size=3 * GB // 10)
        | load("up", {"MB/s": "300 MB up MB/s"}, size=3 * GB // 10)
    )


def profile(load: Load, subject: Running, directory: Path, name: str) -> None:
    """Perf's samples of all processes of a subject during a download."""
    directory.mkdir(parents=True, exist_ok=True)
    numbers = ",".join(map(str, family(subject.processes)))
    output = directory / f"{name}.perf"
    perf = subprocess.Popen(["perf", "record", "-q", "-g", "-p", numbers, "-o", str(output)])
    load("down", {}, size=GB)
    perf.send_signal(2)
    perf.wait()
    print(f"bench: perf report -i {output}", file=sys.stderr)


# --- results ----------------------------------------------------------------------


def median(rows: list[Row]) -> Row:
    """The median of each figure over the rounds that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.median(row[name] for row in rows if name in row) for name in names}


def circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {model}, Linux {platform.release()}",
        "python": platform.python_version(),
        "commit": commit.strip(),
        "rounds": arguments.rounds,
        "wan": arguments.wan or "",
    }


def table(medians: dict[str, Row], arguments: argparse.Namespace) -> str:
    """Markdown: a column for each subject, with its ratio to the Go tunnel in brackets."""
    about = circumstances(arguments)
    lines = [", ".join(f"{key} {value}" for key, value in about.items() if value), ""]
    names = [name for name, row in medians.items() if row]
    lines.append("| | " + " | ".join(names) + " |")
    lines.append("|---|" + "---|" * len(names))
    for figure in dict.fromkeys(figure for row in medians.values() for figure in row):
        cells = [cell(medians, name, figure) for name in names]
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(medians: dict[str, Row], name: str, figure: str) -> str:
    """A figure, and how many times the Go tunnel's it is."""
    value = medians[name].get(figure)
    if value is None:
        return "-"
    text = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    base = medians.get("go", {}).get(figure)
    return f"{text} ({value / base:.2f})" if base and name != "go" else text


if __name__ == "__main__":
    sys.exit(main())
