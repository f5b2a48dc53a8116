"""Restunnel on one machine: hub, node, pairing, and two fetches through both proxies.

`tools/dev.py demo` runs this in an environment where the three packages are
installed from their wheels. Everything that it starts is the real thing; only
the distance between hub and node is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

BIN = Path(sys.executable).parent
TIMEOUT = 30.0
"""Seconds for anything to happen."""

PAGE = b"<h1>Hello through your own device</h1>\n" * 2500
"""About 100 kB."""

DEFAULT_PORTS = {"socks": 1080, "http": 1081, "dashboard": 8080}


def main() -> int:
    """Run the demonstration; the exit status."""
    parser = argparse.ArgumentParser(description="Restunnel on one machine")
    parser.add_argument("--once", action="store_true", help="end after the fetches")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="restunnel-")))
        web = stack.enter_context(serve_page())
        hub = ["--data-dir", str(directory / "hub")]
        node = ["--data-dir", str(directory / "node")]

        step("Starting a hub, as on your server")
        ports = [f"--{name}=127.0.0.1:{free_port(port)}" for name, port in DEFAULT_PORTS.items()]
        start(stack, "hub", ["restunnel-hub", "run", *hub, "--tunnel=127.0.0.1:0", *ports])
        listeners = json.loads(call("restunnel-hub", "status", "--json", *hub))["listeners"]
        for name, address in listeners.items():
            print(f"{name:10} {address}")

        step("Pairing a device: scan this with it, or paste the link")
        pairing = json.loads(call("restunnel-hub", "pair", "--json", "--name", "demo", *hub))
        print(pairing["qr"])
        print(pairing["link"])
        print(call("restunnel-node", "pair", pairing["link"], *node).splitlines()[0])

        step("Starting the node, as on your device; its owner allows the local page")
        call("restunnel-node", "policy", "allow", web, *node)
        start(stack, "node", ["restunnel-node", "run", *node])
        wait_online(hub)

        step(f"Fetching http://{web}/ through the node")
        report("SOCKS5", listeners["socks5"], lambda: by_socks5(listeners["socks5"], web))
        report("HTTP CONNECT", listeners["http"], lambda: by_connect(listeners["http"], web))

        step("What the hub saw")
        print(call("restunnel-hub", "nodes", *hub), end="")
        seen = json.loads(call("restunnel-hub", "nodes", "--json", *hub))[0]
        print(
            f"through the tunnel: {seen['bytes_received']} bytes received,"
            f" {seen['bytes_sent']} bytes sent, encrypted"
        )
        print(f"\nproxies: socks5h://{listeners['socks5']}  http://{listeners['http']}")
        print(f"try:     curl --proxy socks5h://{listeners['socks5']} https://example.com/")
        print(f"pages:   {call('restunnel-hub', 'dashboard', *hub).strip()}")
        if not arguments.once:
            print("\nCtrl-C ends the demonstration.")
            wait_for_signal()
    return 0


def step(text: str) -> None:
    """A heading."""
    print(f"\n== {text}", flush=True)


@contextlib.contextmanager
def serve_page() -> Iterator[str]:
    """A web server on this machine, as HOST:PORT."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_: object) -> None:
            """The demonstration prints what matters itself."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def free_port(wanted: int) -> int:
    """The usual port, or 0 (any) if something else has it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
    return wanted


def call(program: str, *arguments: str) -> str:
    """Run a command line to its end; its output."""
    done = subprocess.run([str(BIN / program), *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program} failed:\n{done.stderr}")
    return done.stdout


def start(stack: contextlib.ExitStack, name: str, command: list[str]) -> None:
    """Start a service, wait until it says that it is ready, and have it stopped at the end."""
    reading, writing = os.pipe()
    log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    process = subprocess.Popen(
        [str(BIN / command[0]), *command[1:], "--ready-fd", str(writing)],
        pass_fds=[writing],
        stderr=log,
    )
    os.close(writing)
    stack.callback(stop, process)
    with open(reading, "rb") as ready:
        if not ready.readline():
            log.seek(0)
            sys.exit(f"the {name} did not start:\n{log.read().decode()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a service the way systemd would."""
    process.send_signal(signal.SIGTERM)
    process.wait(TIMEOUT)


def wait_online(hub: list[str]) -> None:
    """Until the hub shows the node as online."""
    deadline = time.monotonic() + TIMEOUT
    while not json.loads(call("restunnel-hub", "nodes", "--json", *hub))[0]["online"]:
        if time.monotonic() > deadline:
            sys.exit("the node did not connect")
        time.sleep(0.1)


def report(name: str, proxy: str, fetch: object) -> None:
    """Fetch the page, compare it, and print size and time."""
    assert callable(fetch)
    started = time.monotonic()
    body = fetch()
    seconds = time.monotonic() - started
    if body != PAGE:
        sys.exit(f"{name}: the page arrived damaged")
    print(f"{name:12} via {proxy}: {len(body)} bytes in {seconds * 1000:.1f} ms, as sent")


def by_socks5(proxy: str, web: str) -> bytes:
    """GET through the SOCKS5 proxy (RFC 1928)."""
    host, _, port = web.rpartition(":")
    with connect(proxy) as sock:
        name = host.encode()
        sock.sendall(b"\x05\x01\x00")
        expect(sock, b"\x05\x00")
        sock.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + int(port).to_bytes(2, "big"))
        expect(sock, b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        connection = http.client.HTTPConnection(web)
        connection.sock = sock
        connection.request("GET", "/")
        return connection.getresponse().read()


def by_connect(proxy: str, web: str) -> bytes:
    """GET through CONNECT of the HTTP proxy (RFC 9110, section 9.3.6)."""
    connection = http.client.HTTPConnection(proxy, timeout=TIMEOUT)
    host, _, port = web.rpartition(":")
    connection.set_tunnel(host, int(port))
    with contextlib.closing(connection):
        connection.request("GET", "/")
        return connection.getresponse().read()


def connect(proxy: str) -> socket.socket:
    """A TCP connection to HOST:PORT."""
    host, _, port = proxy.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT)


def expect(sock: socket.socket, wanted: bytes) -> None:
    """Read exactly these bytes."""
    received = b""
    while len(received) < len(wanted):
        piece = sock.recv(len(wanted) - len(received))
        if not piece:
            break
        received += piece
    if received != wanted:
        sys.exit(f"the proxy answered {received.hex()} instead of {wanted.hex()}")


def wait_for_signal() -> None:
    """Until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(3600):
        """Until then there is nothing to do."""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # what a shell reports for SIGINT
