"""Connections of strangers in great number, as a process of its own.

`python flood.py PORT RATE SECONDS` opens RATE connections a second to 127.0.0.1:PORT,
says random bytes on each, and resets it a little later. It prints `flooding` once it
does, and at the end how many connections a second it came to.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

KEEP = 0.2
"""Seconds for which each connection is kept."""

SOURCES = 32
"""Addresses of 127/8 to connect from, each of which has its own 28,000 ports."""

_RESET = struct.pack("ii", 1, 0)


def flood(port: int, rate: int, seconds: float) -> float:
    """Flood; the rate that was reached."""
    held: collections.deque[tuple[float, socket.socket]] = collections.deque()
    garbage = os.urandom(200)
    start = time.monotonic()
    made = 0
    while (now := time.monotonic()) < start + seconds:
        while held and held[0][0] < now - KEEP:
            held.popleft()[1].close()
        due = int((now - start) * rate)
        if made >= due:
            time.sleep(0.001)
            continue
        for _ in range(min(due - made, 50)):
            held.append((now, _connect(port, made, garbage)))
            made += 1
    return made / (time.monotonic() - start)


def _connect(port: int, number: int, garbage: bytes) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.bind((f"127.0.1.{number % SOURCES + 1}", 0))
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", port))  # over by itself on loopback, unless it is refused
    with contextlib.suppress(OSError):
        sock.send(garbage)
    return sock


@contextlib.contextmanager
def flooded(port: int, rate: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A flood that has begun."""
    command = [sys.executable, str(Path(__file__)), str(port), str(rate), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "flooding\n"
        yield process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    print("flooding", flush=True)
    print(flood(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])), flush=True)
