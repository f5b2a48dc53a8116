"""Running as a service: event loop, signals, readiness."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

from .errors import ExitCode, ProgramError, describe_os_error

T = TypeVar("T")

GC_THRESHOLD: Final = 10_000
"""Objects between two looks for cycles; the data path makes none, so few are needed."""


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed, on asyncio's own loop elsewhere (Windows)."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


class StopSignals:
    """SIGINT and SIGTERM, counted: the first asks to stop, the second to hurry."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def _receive(self, *_: object) -> None:
        (self.second if self.first.is_set() else self.first).set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignals]:
        """Handle the signals within the block."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = [signal.getsignal(number) for number in numbers]
        for number in numbers:
            try:
                loop.add_signal_handler(number, self._receive)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._receive))
        try:
            yield self
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
                signal.signal(number, handler)
            if hasattr(signal, "SIGHUP"):
                loop.remove_signal_handler(signal.SIGHUP)

    @staticmethod
    def on_hangup(reload: Callable[[], None]) -> None:
        """Call `reload` at each SIGHUP, where there is such a signal."""
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)

    async def grace(self, done: Coroutine[Any, Any, Any], seconds: float) -> bool:
        """Wait for `done`, at most `seconds`, less after a second signal; whether it came."""
        work = asyncio.ensure_future(done)
        hurry = asyncio.ensure_future(self.second.wait())
        try:
            await asyncio.wait({work, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return work.done()
        finally:
            work.cancel()
            hurry.cancel()
            await asyncio.gather(work, hurry, return_exceptions=True)


def add_ready_flag(parser: Any) -> None:
    """`--ready-fd N`, for scripts that start the service."""
    parser.add_argument(
        "--ready-fd", type=int, metavar="N", help="write READY=1 to this descriptor once ready"
    )


def announce_ready(ready_fd: int | None) -> None:
    """Tell whoever waits, on a descriptor and by systemd's protocol (sd_notify(3)).

    What has been loaded by now stays, so the garbage collector need not look at it again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    if ready_fd is not None:
        try:
            os.write(ready_fd, b"READY=1\n")
            os.close(ready_fd)
        except OSError as error:
            raise ProgramError(
                f"--ready-fd {ready_fd}: {describe_os_error(error)}", code=ExitCode.USAGE
            ) from error
    notify("READY=1")


@contextlib.contextmanager
def watchdog() -> Iterator[None]:
    """Within the block, tell systemd that the event loop goes round, if it wants to know."""
    interval = _watchdog_interval()
    if interval is None:
        yield
        return
    telling = asyncio.get_running_loop().create_task(_tell_watchdog(interval))
    try:
        yield
    finally:
        telling.cancel()


async def _tell_watchdog(interval: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _watchdog_interval() -> float | None:
    """Half of the time after which systemd gives up, in seconds (sd_watchdog_enabled(3))."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 2_000_000
    except (KeyError, ValueError):
        return None


FIRST_INHERITED: Final = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def inherited_sockets() -> dict[str, socket.socket]:
    """Listening sockets that systemd hands over, by their FileDescriptorName=.

    Empty if there are none for this process. They are taken: a second call finds none.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    found: dict[str, socket.socket] = {}
    for number in range(count):
        os.set_inheritable(FIRST_INHERITED + number, False)
        name = names[number] if number < len(names) else ""
        found[name] = socket.socket(fileno=FIRST_INHERITED + number)
    return found


def notify(state: str) -> None:
    """One message to systemd, if systemd started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.sendall(state.encode())
    except OSError as error:
        print(f"cannot notify systemd: {error}", file=sys.stderr)
