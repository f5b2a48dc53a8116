"""The running node's private door: a Unix socket in the data directory, mode 0600.

One line of JSON in (`{"command": "status"}`), one line of JSON out. The node
listens on no network port, ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from restunnel_protocol.program.errors import ProgramError
from restunnel_protocol.program.unix import bind_unix, connect_unix

log = logging.getLogger(__name__)

Command = Callable[[], dict[str, Any]]

MAX_REQUEST = 4096
"""Bytes of a request line."""

TIMEOUT = 10.0
"""Seconds that either side waits for the other."""


class ControlServer:
    """Answers the node's own command line."""

    def __init__(self, path: Path, commands: dict[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, where there are Unix sockets (not on Windows). Raises `ProgramError`."""
        if not hasattr(asyncio, "start_unix_server"):
            log.info("this system has no Unix sockets: `status` will not find this node")
            return
        sock = bind_unix(self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_REQUEST)

    async def stop(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                writer.write(json.dumps(self._answer(await reader.readline())).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            log.debug("control connection: %s", error)
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            command = self._commands[json.loads(line)["command"]]
        except (ValueError, KeyError, TypeError):
            return {"error": "unknown command"}
        return command()


def ask(path: Path, command: str) -> dict[str, Any]:
    """Send one command to the running node. Raises `ProgramError`."""
    with connect_unix(
        path,
        not_running="the node is not running",
        hint="start it with `restunnel-node run`",
        timeout=TIMEOUT,
    ) as sock:
        try:
            sock.sendall(json.dumps({"command": command}).encode() + b"\n")
            with sock.makefile("rb") as file:
                answer = json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise ProgramError(f"the running node does not answer: {error}") from error
    assert isinstance(answer, dict)
    return answer
