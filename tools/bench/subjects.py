"""What the bench compares: each subject carries a client's connections to the origin.

A subject starts its processes on loopback and says where its proxy listens. `way`
puts the distance of `--wan` between its two ends: it maps the port that the far end
would connect to onto the one that it shall connect to.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
PATIENCE = 20.0
"""Seconds for a subject to come up."""

SS_METHOD = "aes-256-gcm"


@dataclass
class Bench:
    """What subjects are given."""

    directory: Path
    origin: str
    way: Callable[[int], int]
    programs: dict[str, Path]


@dataclass
class Running:
    """A subject that is up: where its proxy listens, and the processes that it consists of."""

    via: str
    proxy: str
    processes: list[int]


Starter = Callable[[Bench, contextlib.ExitStack], Running]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def start(stack: contextlib.ExitStack, *command: Any, **options: Any) -> subprocess.Popen[str]:
    """A process that ends with the subject."""
    process = subprocess.Popen([str(part) for part in command], text=True, **options)

    def end() -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


def quiet(bench: Bench, name: str) -> dict[str, Any]:
    """Output into a file of the bench's directory."""
    log = (bench.directory / f"{name}.log").open("w")
    return {"stdout": log, "stderr": log}


def wait_for(port: int) -> None:
    """Until something listens on a port of 127.0.0.1."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


def call(*command: Any) -> str:
    """A command that must succeed; its output."""
    return subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True
    ).stdout


# --- Restunnel --------------------------------------------------------------------


def restunnel(bench: Bench, stack: contextlib.ExitStack, listener: str = "socks5") -> Running:
    """Hub and node as they come, all of their limits and counters on."""
    hub_dir, node_dir = bench.directory / "hub", bench.directory / "node"
    hub_line = [BIN / "restunnel-hub", "--data-dir", hub_dir]
    node_line = [BIN / "restunnel-node", "--data-dir", node_dir]
    tunnel = free_port()
    way = bench.way(tunnel)
    ports = [f"--{name}=127.0.0.1:0" for name in ("socks", "http", "dashboard")]
    command = [*hub_line, "run", f"--tunnel=127.0.0.1:{tunnel}", f"--advertise=127.0.0.1:{way}"]
    hub = start(stack, *command, *ports, **quiet(bench, "hub"))
    wait_for(tunnel)
    link = json.loads(_retry(*hub_line, "pair", "--json"))["link"]
    call(*node_line, "pair", link)
    call(*node_line, "policy", "allow", bench.origin)
    node = start(stack, *node_line, "run", **quiet(bench, "node"))
    deadline = time.monotonic() + PATIENCE
    while not any(entry["online"] for entry in json.loads(call(*hub_line, "nodes", "--json"))):
        if time.monotonic() > deadline:
            raise TimeoutError("the node does not come online")
    listeners = json.loads(call(*hub_line, "status", "--json"))["listeners"]
    via = "http" if listener == "http" else "socks5"
    return Running(via, listeners[listener], [hub.pid, node.pid])


def _retry(*command: Any) -> str:
    """The hub's control socket comes a little after its ports."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call(*command)
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def restunnel_http(bench: Bench, stack: contextlib.ExitStack) -> Running:
    """The same through HTTP CONNECT."""
    return restunnel(bench, stack, "http")


# --- the others -------------------------------------------------------------------


def go(bench: Bench, stack: contextlib.ExitStack) -> Running:
    """flynn/noise and yamux (gotunnel/main.go)."""
    tunnel, socks = free_port(), free_port()
    program = bench.programs["gotunnel"]
    hub = start(
        stack, program, "hub", f"127.0.0.1:{tunnel}", f"127.0.0.1:{socks}", stdout=subprocess.PIPE
    )
    assert hub.stdout is not None
    key = hub.stdout.readline().strip()
    node = start(stack, program, "node", f"127.0.0.1:{bench.way(tunnel)}", key)
    wait_for(socks)
    return Running("socks5", f"127.0.0.1:{socks}", [hub.pid, node.pid])


def ssh(bench: Bench, stack: contextlib.ExitStack) -> Running:
    """OpenSSH's reverse dynamic forwarding: `ssh -R PORT`."""
    directory = bench.directory
    for name in ("host", "user"):
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name)
    shutil.copy(directory / "user.pub", directory / "authorized")
    (directory / "authorized").chmod(0o600)
    tunnel, socks = free_port(), free_port()
    (directory / "sshd_config").write_text(
        f"Port {tunnel}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/authorized\nUsePAM no\nPidFile none\n"
        "PermitRootLogin yes\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    sshd = start(
        stack, shutil.which("sshd"), "-D", "-f", directory / "sshd_config", **quiet(bench, "sshd")
    )
    wait_for(tunnel)
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    options += ["-i", str(directory / "user"), "-p", str(bench.way(tunnel)), "-F", "none"]
    client = start(
        stack, "ssh", "-N", *options, "-R", f"127.0.0.1:{socks}", "127.0.0.1", **quiet(bench, "ssh")
    )
    wait_for(socks)
    return Running("socks5", f"127.0.0.1:{socks}", [sshd.pid, client.pid])


def shadowsocks(bench: Bench, stack: contextlib.ExitStack) -> Running:
    """shadowsocks-libev; not a reverse tunnel, so it has one hop less to set up."""
    tunnel, socks = free_port(), free_port()
    common = ["-k", "bench", "-m", SS_METHOD]
    server = start(
        stack, "ss-server", "-s", "127.0.0.1", "-p", tunnel, *common, **quiet(bench, "ss-server")
    )
    wait_for(tunnel)
    addresses = ["-s", "127.0.0.1", "-p", bench.way(tunnel), "-b", "127.0.0.1", "-l", socks]
    client = start(stack, "ss-local", *addresses, *common, **quiet(bench, "ss-local"))
    wait_for(socks)
    return Running("socks5", f"127.0.0.1:{socks}", [server.pid, client.pid])


def v2ray(bench: Bench, stack: contextlib.ExitStack) -> Running:
    """v2ray's reverse proxy over VMess: portal at the hub's place, bridge at the node's."""
    tunnel, socks = free_port(), free_port()
    user = {"id": "27848739-7e62-4138-9fd3-098a63964b6b", "alterId": 0, "security": "aes-128-gcm"}
    rule = {"type": "field"}
    portal = {
        "log": {"loglevel": "warning"},
        "reverse": {"portals": [{"tag": "portal", "domain": "bench.internal"}]},
        "inbounds": [
            {"tag": "in", "port": socks, "listen": "127.0.0.1", "protocol": "socks"},
            {
                "tag": "tunnel", "port": tunnel, "listen": "127.0.0.1", "protocol": "vmess",
                "settings": {"clients": [user]},
            },
        ],
        "routing": {
            "rules": [
                {**rule, "inboundTag": ["in"], "outboundTag": "portal"},
                {**rule, "inboundTag": ["tunnel"], "outboundTag": "portal"},
            ]
        },
    }  # fmt: skip
    server = {"address": "127.0.0.1", "port": bench.way(tunnel), "users": [user]}
    bridge = {
        "log": {"loglevel": "warning"},
        "reverse": {"bridges": [{"tag": "bridge", "domain": "bench.internal"}]},
        "outbounds": [
            {"tag": "tunnel", "protocol": "vmess", "settings": {"vnext": [server]}},
            {"tag": "out", "protocol": "freedom", "settings": {}},
        ],
        "routing": {
            "rules": [
                {
                    **rule, "inboundTag": ["bridge"], "domain": ["full:bench.internal"],
                    "outboundTag": "tunnel",
                },
                {**rule, "inboundTag": ["bridge"], "outboundTag": "out"},
            ]
        },
    }  # fmt: skip
    running = []
    for name, config in (("portal", portal), ("bridge", bridge)):
        path = bench.directory / f"{name}.json"
        path.write_text(json.dumps(config))
        running.append(start(stack, "v2ray", "-config", path, **quiet(bench, name)).pid)
        wait_for(tunnel)
    wait_for(socks)
    time.sleep(2)  # for the bridge to have reached the portal, which nothing tells
    return Running("socks5", f"127.0.0.1:{socks}", running)


def rathole(bench: Bench, stack: contextlib.ExitStack) -> Running:
    """Rathole with Noise, and microsocks behind it as the node's dialler."""
    tunnel, socks, inner = free_port(), free_port(), free_port()
    shared = 'default_token = "bench"\n'
    keys = call("rathole", "--genkey").split()
    private, public = keys[2], keys[5]
    noise = '[{}.transport]\ntype = "noise"\n[{}.transport.noise]\n'
    (bench.directory / "server.toml").write_text(
        f'[server]\nbind_addr = "127.0.0.1:{tunnel}"\n{shared}'
        + noise.format("server", "server")
        + f'local_private_key = "{private}"\n'
        f'[server.services.socks]\nbind_addr = "127.0.0.1:{socks}"\n'
    )
    (bench.directory / "client.toml").write_text(
        f'[client]\nremote_addr = "127.0.0.1:{bench.way(tunnel)}"\n{shared}'
        + noise.format("client", "client")
        + f'remote_public_key = "{public}"\n'
        f'[client.services.socks]\nlocal_addr = "127.0.0.1:{inner}"\n'
    )
    quietly = quiet(bench, "rathole")
    exit_ = start(stack, "microsocks", "-i", "127.0.0.1", "-p", inner, **quietly)
    server = start(stack, "rathole", "--server", bench.directory / "server.toml", **quietly)
    wait_for(tunnel)
    client = start(stack, "rathole", "--client", bench.directory / "client.toml", **quietly)
    wait_for(socks)
    return Running("socks5", f"127.0.0.1:{socks}", [exit_.pid, server.pid, client.pid])


SUBJECTS: dict[str, tuple[Starter, tuple[str, ...]]] = {
    "restunnel": (restunnel, ()),
    "restunnel-http": (restunnel_http, ()),
    "go": (go, ("go",)),
    "ssh": (ssh, ("ssh", "sshd")),
    "shadowsocks": (shadowsocks, ("ss-server", "ss-local")),
    "v2ray": (v2ray, ("v2ray",)),
    "rathole": (rathole, ("rathole", "microsocks")),
}
"""How each is started, and the programs that it needs."""


@contextlib.contextmanager
def running(name: str, bench: Bench) -> Iterator[Running]:
    """A subject, up."""
    with contextlib.ExitStack() as stack:
        yield SUBJECTS[name][0](bench, stack)


def missing(name: str) -> list[str]:
    """Programs of a subject that are not installed."""
    return [program for program in SUBJECTS[name][1] if not shutil.which(program, path=_PATH)]


_PATH = os.environ.get("PATH", "") + ":/usr/sbin"
os.environ["PATH"] = _PATH
