"""What `doctor` finds, and how it says so."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys

import pytest

from restunnel_protocol.program import checks
from restunnel_protocol.program.checks import (
    Finding,
    bad,
    check_clock,
    check_descriptors,
    check_private,
    doubtful,
    good,
    report,
)


def test_a_failure_decides_the_exit_code_and_each_has_its_remedy(capsys):
    findings = [good("a", "fine"), doubtful("b", "odd", "look"), bad("c", "broken", "mend it")]
    assert report(findings, as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=1) == ["ok", "a: fine"]
    assert lines[-1].strip() == "-> mend it"
    assert report(findings[:2], as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document[1] == {"name": "b", "state": "warning", "detail": "odd", "remedy": "look"}


def test_files_are_their_owners_alone(tmp_path, monkeypatch):
    path = tmp_path / "key"
    assert check_private(path, 0o600).detail == "not there yet"
    path.write_bytes(b"")
    path.chmod(0o644)
    found = check_private(path, 0o600)
    assert (found.state, found.remedy) == ("failure", f"chmod 600 {path}")
    path.chmod(0o600)
    assert check_private(path, 0o600).state == "ok"
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert check_private(path, 0o600).detail == "belongs to another user"


@pytest.mark.parametrize(("answer", "state"), [(0, "ok"), (1, "ok"), (5, "warning"), (-1, "ok")])
def test_the_clock(monkeypatch, answer, state):
    class Library:
        def __init__(self, name) -> None:
            """The C library."""

        def adjtimex(self, buffer) -> int:
            return answer

    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(sys, "platform", "linux")
    assert check_clock().state == state
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert check_clock().detail.startswith("this system does not say")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert check_clock().detail.startswith("this system does not say")


def test_the_clock_of_this_machine_is_looked_at():
    assert isinstance(check_clock(), Finding)


def test_descriptors(monkeypatch):
    for hard, state in ((100, "warning"), (9000, "ok"), (resource.RLIM_INFINITY, "ok")):
        monkeypatch.setattr(resource, "getrlimit", lambda which, hard=hard: (10, hard))
        assert check_descriptors(4096).state == state
    monkeypatch.setitem(sys.modules, "resource", None)
    assert checks.check_descriptors(4096).detail == "no limit"
