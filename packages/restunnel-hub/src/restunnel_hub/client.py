"""The command line's way to the running hub: its REST API over the Unix socket."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from restunnel_protocol.program.errors import ExitCode, ProgramError
from restunnel_protocol.program.unix import connect_unix

TIMEOUT = 30.0
"""Seconds for one answer."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = connect_unix(
            self._path,
            not_running="the hub is not running",
            hint="start it with `restunnel-hub run`, or name its --data-dir",
            timeout=TIMEOUT,
        )


def request(path: Path, method: str, resource: str, body: dict[str, Any] | None = None) -> Any:
    """One call; the JSON of the answer. Raises `ProgramError` with the hub's own words."""
    connection = _UnixConnection(path)
    try:
        content = json.dumps(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, f"/api/v1{resource}", content, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ProgramError(f"the running hub does not answer: {error}") from error
    finally:
        connection.close()
    if response.status >= 400:
        code = ExitCode.USAGE if response.status == 422 else ExitCode.FAILED
        raise ProgramError(
            answer.get("error") or answer.get("detail") or f"status {response.status}",
            hint=answer.get("hint", ""),
            code=code,
        )
    return answer
