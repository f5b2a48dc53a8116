"""Hubs and nodes as real processes, driven by their real command lines."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from restunnel_hub.client import request
from restunnel_node.policy import OwnerPolicy
from restunnel_protocol.exit_policy import Rule
from restunnel_protocol.program.files import make_private_directory
from restunnel_protocol.program.settings import parse_duration

BIN = Path(sys.executable).parent
PATIENCE = 30.0
"""Seconds after which an event that has not come is a failure."""


def run(program: str, *arguments: str | Path, stdin: str | None = None, **options: Any):
    """Run a command line to its end."""
    return subprocess.run(
        [str(BIN / program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        input=stdin,
        **options,
    )


def check(program: str, *arguments: str | Path, **options: Any) -> str:
    """Run a command line that must succeed; its output."""
    done = run(program, *arguments, **options)
    assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Look until the condition holds; its value."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience} s for {what}"
        time.sleep(0.02)
    return value


def faketime(offset: str) -> dict[str, str]:
    """An environment in which a program's wall clock is off by `offset` (as in `-1d`)."""
    listing = subprocess.run(
        ["faketime", "-f", offset, "env"], capture_output=True, text=True, check=True
    ).stdout
    lines = (line.partition("=") for line in listing.splitlines())
    found = {name: value for name, _, value in lines if name in ("LD_PRELOAD", "FAKETIME")}
    return {**found, "DONT_FAKE_MONOTONIC": "1"}


class Service:
    """A hub or node process. Its stderr goes to a file."""

    program = ""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def log(self) -> str:
        return "".join(p.read_text() for p in sorted(self.data_dir.parent.glob(self._log_pattern)))

    @property
    def _log_pattern(self) -> str:
        return f"{self.data_dir.name}.*.log"

    def call(self, *arguments: str | Path, **options: Any) -> str:
        """A command of this service's command line, on its data directory."""
        return check(self.program, "--data-dir", self.data_dir, *arguments, **options)

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until it says that it is ready."""
        self._starts += 1
        name = f"{self.data_dir.name}.{self._starts}.log"
        reading, writing = os.pipe()
        with (self.data_dir.parent / name).open("wb") as log:
            command = [self.program, "run", "--data-dir", self.data_dir, *arguments]
            self.process = subprocess.Popen(
                [str(BIN / command[0]), *map(str, command[1:]), "--ready-fd", str(writing)],
                stderr=log,
                stdout=log,
                pass_fds=[writing],
                env={**os.environ, **(environment or {})},
            )
        os.close(writing)
        with open(reading, "rb") as ready:
            assert ready.readline() == b"READY=1\n", self.log

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end; the exit code."""
        assert self.process is not None
        code = self.process.wait(patience)
        self.process = None
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its end; the exit code."""
        self.send(number)
        return self.wait()

    def destroy(self) -> None:
        """End it whatever its state."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def memory(service: Service) -> int:
    """Resident bytes of a running service."""
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmRSS" in line)


class Hub(Service):
    """A hub on free ports of 127.0.0.1."""

    program = "restunnel-hub"

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        ports = [f"--{name}=127.0.0.1:0" for name in ("tunnel", "socks", "http", "dashboard")]
        given = {argument.partition("=")[0] for argument in arguments}
        ports = [port for port in ports if port.partition("=")[0] not in given]
        super().start(*ports, *arguments, environment=environment)
        self.listeners: dict[str, str] = self.status()["listeners"]

    def ask(self, resource: str) -> Any:
        """What the REST API answers, as the command line asks it, without its start-up."""
        return request(self.data_dir / "hub.sock", "GET", resource)

    def status(self) -> Any:
        return self.ask("/status")

    def nodes(self) -> Any:
        return self.ask("/nodes")

    def link(self, *arguments: str) -> str:
        """A new pairing link."""
        wishes: dict[str, Any] = {
            name.removeprefix("--"): value
            for name, value in zip(arguments[::2], arguments[1::2], strict=True)
        }
        if "ttl" in wishes:
            wishes["ttl"] = parse_duration(wishes["ttl"])
        link: str = request(self.data_dir / "hub.sock", "POST", "/pairings", wishes)["link"]
        return link

    def address(self, listener: str) -> tuple[str, int]:
        host, _, port = self.listeners[listener].rpartition(":")
        return host.strip("[]"), int(port)

    def wait_online(self, count: int = 1) -> None:
        wait_until(
            lambda: sum(node["online"] for node in self.nodes()) == count, f"{count} nodes online"
        )


class Node(Service):
    """A node."""

    program = "restunnel-node"

    def pair(self, hub: Hub, *arguments: str) -> None:
        """Pair with a hub by a new link."""
        self.call("pair", hub.link(*arguments))

    def allow(self, rule: str) -> None:
        """What `restunnel-node policy allow` does, without its start-up."""
        make_private_directory(self.data_dir)
        OwnerPolicy(self.data_dir / "policy.toml").add(Rule.parse("allow", rule))


def socks_connect(
    address: tuple[str, int], host: str, port: int, *, username: str = ""
) -> tuple[socket.socket, int]:
    """CONNECT over SOCKS5 by name (RFC 1928); the socket and the reply code."""
    sock = socket.create_connection(address, PATIENCE)
    method = 2 if username else 0
    sock.sendall(bytes((5, 1, method)))
    assert read_exactly(sock, 2) == bytes((5, method))
    if username:
        raw = username.encode()
        sock.sendall(bytes((1, len(raw))) + raw + b"\x01x")
        assert read_exactly(sock, 2) == b"\x01\x00"
    name = host.encode()
    sock.sendall(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + port.to_bytes(2, "big"))
    return sock, read_exactly(sock, 10)[1]


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes; fails if the other end says less."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"the connection ended after {len(data)} of {count} bytes"
        data += piece
    return data


def read_to_end(sock: socket.socket) -> bytes:
    """All bytes up to a clean end."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def raw_server(
    node: Node,
    serve: Callable[[socket.socket], None],
    host: str = "127.0.0.1",
    connections: int = 1,
) -> Iterator[tuple[str, int]]:
    """A TCP server that the node may reach; `serve` treats `connections` of them in turn."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        node.allow(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

        def work() -> None:
            for _ in range(connections):
                sock, _ = listener.accept()
                sock.settimeout(PATIENCE)
                with sock:
                    serve(sock)

        thread = threading.Thread(target=work)
        thread.start()
        yield host, port
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextlib.contextmanager
def tunnel(directory: Path, *node_arguments: str) -> Iterator[tuple[Hub, Node]]:
    """A running hub and a running node that are paired and connected."""
    hub, node = Hub(directory / "hub"), Node(directory / "node")
    try:
        hub.start()
        node.pair(hub)
        node.start(*node_arguments)
        hub.wait_online()
        yield hub, node
    finally:
        node.destroy()
        hub.destroy()
