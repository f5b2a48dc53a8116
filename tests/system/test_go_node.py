"""A node in another language, written from the specification alone, against a real hub."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.origin import origin, pattern_digest
from support.services import PATIENCE, Hub, socks_connect

SOURCE = Path(__file__).parent / "go_node"
SIZE = 100_000_000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built node."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    path = tmp_path_factory.mktemp("go") / "go_node"
    try:
        done = subprocess.run(
            ["go", "build", "-o", str(path), "."],
            cwd=SOURCE,
            env={**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the Go node's modules do not arrive")
    if done.returncode and ("dial tcp" in done.stderr or "requires go >=" in done.stderr):
        pytest.skip(f"the Go node cannot be built here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def web() -> Iterator[int]:
    with origin() as port:
        yield port


class GoNode:
    """A running node of that program."""

    def __init__(self, program: Path, key: Path, link: str, web: int) -> None:
        self.process = subprocess.Popen(
            [str(program), "-key", str(key), "-allow", f"127.0.0.1:{web}", link],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> GoNode:
        assert self.process.stdout.readline() == "connected\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_it_enrols_carries_both_ways_refuses_and_reconnects_by_its_key(
    hub: Hub, program: Path, web: int, curl: str, tmp_path: Path
):
    hub.start("--grace=1s")
    link = hub.link("--name", "gopher")
    body = tmp_path / "body"
    options = ["-sS", "--proxy", f"socks5h://{hub.listeners['socks5']}"]
    for _ in range(2):  # the second time the link's token is dead: the key is what counts
        with GoNode(program, tmp_path / "key", link, web):
            hub.wait_online()
            subprocess.run(
                [curl, *options, "-o", str(body), f"http://127.0.0.1:{web}/bytes/{SIZE}"],
                check=True,
                timeout=PATIENCE,
            )
            done = subprocess.run(
                [curl, *options, "-T", str(body), f"http://127.0.0.1:{web}/"],
                check=True,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            assert done.stdout == pattern_digest(SIZE)
            sock, reply = socks_connect(hub.address("socks5"), "127.0.0.1", 1)
            sock.close()
            assert reply == 2
        hub.wait_online(0)
    assert [node["name"] for node in hub.nodes()] == ["gopher"]


def test_many_streams_at_once_get_their_own_bytes(
    hub: Hub, program: Path, web: int, curl: str, tmp_path: Path
):
    hub.start("--grace=1s")
    with GoNode(program, tmp_path / "key", hub.link(), web) as node:
        hub.wait_online()
        done = subprocess.run(
            [
                curl,
                "-sS",
                "--proxy",
                f"http://{hub.listeners['http']}",
                "--parallel",
                "--parallel-immediate",
                "--parallel-max",
                "50",
                "-o",
                str(tmp_path / "#1"),
                f"http://127.0.0.1:{web}/bytes/[300001-300050]",
            ],
            timeout=PATIENCE,
        )
        assert done.returncode == 0
        for size in range(300001, 300051):
            assert (tmp_path / str(size)).stat().st_size == size
        assert hub.stop() == 0
        output, _ = node.process.communicate(timeout=PATIENCE)
        assert "tunnel ended: EOF" in output
