"""A node that is far away: 100 ms of round trip between it and the hub."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from support.delay import distance
from support.origin import BLOCK, origin, pattern_digest
from support.services import PATIENCE, Hub, Node

ONE_WAY = 0.05
SIZE = 200_000_000
FIXED_WINDOW_RATE = 256 * 1024 / (2 * ONE_WAY)
"""Bytes a second that the initial window alone would allow: 2.6 MB/s."""


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory):
    """A hub and a node with 100 ms between them, and a web server beside the node."""
    directory = tmp_path_factory.mktemp("far")
    hub, node = Hub(directory / "hub"), Node(directory / "node")
    try:
        hub.start()
        port = hub.address("tunnel")[1]
        with distance(port, ONE_WAY) as entrance, origin() as web:
            (hub.data_dir / "hub.toml").write_text(f'advertise = ["127.0.0.1:{entrance}"]\n')
            hub.stop()
            hub.start(f"--tunnel=127.0.0.1:{port}")
            node.pair(hub)
            node.allow(f"127.0.0.1:{web}")
            node.start()
            hub.wait_online()
            yield hub, web
    finally:
        node.destroy()
        hub.destroy()


def test_one_stream_is_not_held_to_its_initial_window(far, curl, tmp_path: Path):
    hub, web = far
    options = ["-sS", "--proxy", f"socks5h://{hub.listeners['socks5']}"]
    body = tmp_path / "body"
    started = time.monotonic()
    subprocess.run(
        [curl, *options, "-o", str(body), f"http://127.0.0.1:{web}/bytes/{SIZE}"],
        check=True,
        timeout=PATIENCE,
    )
    down = SIZE / (time.monotonic() - started)
    assert body.read_bytes()[: len(BLOCK)] == BLOCK
    started = time.monotonic()
    done = subprocess.run(
        [curl, *options, "-T", str(body), f"http://127.0.0.1:{web}/"],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    up = SIZE / (time.monotonic() - started)
    assert done.stdout == pattern_digest(SIZE)
    assert min(down, up) > 8 * FIXED_WINDOW_RATE


@pytest.mark.parametrize(
    ("proxy", "round_trips"),
    [
        ("socks5h://{socks5}", 2),
        ("socks5h://optimistic=yes:x@{socks5}", 1),
        ("http://optimistic=yes:x@{http}", 1),
    ],
)
def test_a_new_connections_first_byte_takes_as_many_round_trips_as_it_must(
    far, curl, proxy, round_trips
):
    hub, web = far
    command = [curl, "-sS", "--proxytunnel", "--proxy", proxy.format(**hub.listeners)]
    command += [
        "-o",
        "/dev/null",
        "-w",
        "%{time_starttransfer}",
        f"http://127.0.0.1:{web}/bytes/100",
    ]
    times = []
    for _ in range(5):  # the machine may be busy with other tests; the least is what counts
        done = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        times.append(float(done.stdout))
    assert round_trips * 2 * ONE_WAY <= min(times) < (round_trips + 1) * 2 * ONE_WAY
