"""`getaddrinfo` in a few threads of our own, which never delay the program's end.

The event loop's resolver shares its threads with everything else and
`concurrent.futures` waits for its threads at exit; a resolver that does not
answer would hold up both. These threads are daemons: a name that nobody waits
for any more costs one of them until the system gives up, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from typing import TypeAlias

AddressInfo: TypeAlias = tuple[
    socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]
]
_Job: TypeAlias = tuple[str, int, asyncio.AbstractEventLoop, "asyncio.Future[list[AddressInfo]]"]

THREADS = 16
"""Names looked up at once; more wait their turn."""


class Resolver:
    """Looks names up with the operating system's resolver."""

    def __init__(self, threads: int = THREADS) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._limit = threads
        self._threads = 0
        self._idle = threading.Semaphore(0)

    async def resolve(self, name: str, port: int, timeout: float) -> list[AddressInfo]:
        """TCP addresses of a name. Raises `socket.gaierror`, or `TimeoutError`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[AddressInfo]] = loop.create_future()
        if not self._idle.acquire(blocking=False) and self._threads < self._limit:
            self._threads += 1
            threading.Thread(target=self._work, name="resolver", daemon=True).start()
        self._jobs.put((name, port, loop, future))
        async with asyncio.timeout(timeout):
            return await future

    def _work(self) -> None:
        while True:
            name, port, loop, future = self._jobs.get()
            if not future.cancelled():
                self._look_up(name, port, loop, future)
            self._idle.release()

    def _look_up(
        self,
        name: str,
        port: int,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[list[AddressInfo]],
    ) -> None:
        result: list[AddressInfo] | Exception
        try:
            result = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
        except (OSError, UnicodeError) as error:
            result = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_deliver, future, result)


def _deliver(
    future: asyncio.Future[list[AddressInfo]], result: list[AddressInfo] | Exception
) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
