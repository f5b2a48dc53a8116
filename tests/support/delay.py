"""A relay that delays all bytes, as a process of its own: `python delay.py PORT SECONDS`.

What comes in goes out to 127.0.0.1:PORT after SECONDS, in both directions, at any
rate: distance without loss. Prints the port that it listens on.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LIMIT = 128 * 1024 * 1024
"""Bytes under way at which the relay stops reading; more than any window."""


class End(asyncio.Protocol):
    """One of the two connections; what it reads the other writes, later."""

    def __init__(self, delay: float) -> None:
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None
        self._delay = delay
        self._under_way: collections.deque[tuple[float, bytes]] = collections.deque()
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(2 * LIMIT)

    def data_received(self, data: bytes) -> None:
        self._under_way.append((self._loop.time() + self._delay, data))
        self._size += len(data)
        if self._size > LIMIT:
            self.transport.pause_reading()
        if self._timer is None:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._loop.call_later(self._delay, self.other.close)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._under_way[0][0], self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._under_way and self._under_way[0][0] <= now:
            _, data = self._under_way.popleft()
            self._size -= len(data)
            if self.other.transport is not None:
                self.other.transport.write(data)
        if self._size <= LIMIT and self.transport is not None:
            self.transport.resume_reading()
        if self._under_way:
            self._arm()


async def _main(port: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    connecting = set()

    def accept() -> End:
        near, far = End(delay), End(delay)
        near.other, far.other = far, near
        task = loop.create_task(loop.create_connection(lambda: far, "127.0.0.1", port))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def distance(port: int, delay: float) -> Iterator[int]:
    """A relay to `port` with `delay` seconds each way; the port that it listens on."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(port), str(delay)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(int(sys.argv[1]), float(sys.argv[2])))
