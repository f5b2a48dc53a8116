"""The hubs that this node is paired with: `hubs.toml` in the data directory."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from restunnel_protocol import AddressError, Endpoint, PublicKey
from restunnel_protocol.program.errors import ExitCode, ProgramError
from restunnel_protocol.program.files import read_private, write_private


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub. Until ENROLL_OK has arrived `node_id` is empty and `run` leaves it alone."""

    key: PublicKey
    endpoints: tuple[Endpoint, ...]
    node_id: str = ""
    name: str = ""
    """What the hub calls this node."""

    @property
    def paired(self) -> bool:
        return bool(self.node_id)

    @property
    def label(self) -> str:
        """How people and logs tell hubs apart."""
        return str(self.endpoints[0])


class HubFile:
    """All hubs, read and written whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Hub]:
        """In the order of pairing. Raises `ProgramError` if the file is damaged."""
        try:
            document = tomllib.loads(read_private(self._path).decode())
            return [_parse(entry) for entry in document.get("hub", [])]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProgramError(
                f"the file {self._path} is damaged: {error}",
                hint="restore it from a backup, or move it away and pair again",
            ) from error

    def put(self, hub: Hub) -> None:
        """Add a hub, or replace the entry of the same key."""
        hubs = self.load()
        keys = [known.key for known in hubs]
        if hub.key in keys:
            hubs[keys.index(hub.key)] = hub
        else:
            hubs.append(hub)
        self._save(hubs)

    def find(self, key: PublicKey) -> Hub | None:
        return next((hub for hub in self.load() if hub.key == key), None)

    def forget(self, text: str) -> Hub:
        """Remove the hub whose label, address or key begins with `text`."""
        hubs = self.load()
        found = [hub for hub in hubs if text in (hub.label, str(hub.key), hub.key.fingerprint)]
        found = found or [hub for hub in hubs if str(hub.key).startswith(text)]
        if len(found) != 1:
            problem = "no hub" if not found else "more than one hub"
            raise ProgramError(
                f"{problem} is called {text!r}",
                hint="see `restunnel-node hubs`",
                code=ExitCode.USAGE,
            )
        self._save([hub for hub in hubs if hub is not found[0]])
        return found[0]

    def _save(self, hubs: list[Hub]) -> None:
        document = {
            "hub": [
                {
                    "key": str(hub.key),
                    "endpoints": [str(endpoint) for endpoint in hub.endpoints],
                    "node_id": hub.node_id,
                    "name": hub.name,
                }
                for hub in hubs
            ]
        }
        write_private(self._path, tomli_w.dumps(document).encode())


def confirmed(hub: Hub, node_id: str, name: str) -> Hub:
    """The hub after its ENROLL_OK."""
    return replace(hub, node_id=node_id, name=name)


def _parse(entry: dict[str, Any]) -> Hub:
    try:
        endpoints = tuple(Endpoint.parse(text) for text in entry["endpoints"])
    except AddressError as error:
        raise ValueError(str(error)) from error
    if not endpoints:
        raise ValueError("a hub without endpoints")
    return Hub(PublicKey.parse(entry["key"]), endpoints, str(entry["node_id"]), str(entry["name"]))
