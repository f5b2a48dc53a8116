"""A client reaches a real server through hub and node, over both proxies."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from restunnel_protocol import (
    ConnectFailReason,
    Connection,
    Enroll,
    Hello,
    PairingLink,
    PrivateKey,
    Role,
    Target,
)
from restunnel_protocol.aio import Link, dial_hub
from support.origin import BLOCK, pattern_digest
from support.services import (
    PATIENCE,
    Hub,
    raw_server,
    read_exactly,
    read_to_end,
    reset,
    socks_connect,
)

GIGABYTE = 10**9
LESS = 3 * 10**8
"""What the ways carry that differ little from one that carries a gigabyte."""

PROXIES = {
    "socks5": ("socks5", "socks5h://{}", []),
    "http": ("http", "http://{}", []),
    "connect": ("http", "http://{}", ["--proxytunnel"]),
}


def sizes(*whole: str) -> list[Any]:
    """A gigabyte for these ways; for the others less, and a gigabyte in the slow tests."""
    wholes = [pytest.param(kind, GIGABYTE, id=kind) for kind in whole]
    others = [kind for kind in PROXIES if kind not in whole]
    wholes += [
        pytest.param(kind, GIGABYTE, id=f"{kind}-whole", marks=pytest.mark.slow) for kind in others
    ]
    return wholes + [pytest.param(kind, LESS, id=kind) for kind in others]


def proxy_options(hub: Hub, kind: str) -> list[str]:
    """Curl's options for one way through the hub."""
    listener, url, more = PROXIES[kind]
    proxy = url.format(hub.listeners[listener])
    return ["--silent", "--show-error", "--fail", "--proxy", proxy, *more]


@pytest.mark.parametrize("kind", PROXIES)
def test_a_page_arrives_through_each_proxy(shared_tunnel, origin_port, curl, kind):
    hub, _ = shared_tunnel
    url = f"http://127.0.0.1:{origin_port}/bytes/100000"
    done = subprocess.run(
        [curl, *proxy_options(hub, kind), url], capture_output=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == BLOCK[:100000]


@pytest.mark.parametrize(("kind", "size"), sizes("socks5"))
def test_a_gigabyte_comes_down_whole(shared_tunnel, origin_port, curl, kind, size):
    hub, _ = shared_tunnel
    url = f"http://127.0.0.1:{origin_port}/bytes/{size}"
    digest, received = hashlib.sha256(), 0
    command = [curl, *proxy_options(hub, kind), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while piece := process.stdout.read(1 << 20):
            digest.update(piece)
            received += len(piece)
    assert (process.returncode, received) == (0, size)
    assert digest.hexdigest() == pattern_digest(size)


@pytest.mark.parametrize(("kind", "size"), sizes("connect"))
def test_a_gigabyte_goes_up_whole(shared_tunnel, origin_port, curl, kind, size):
    hub, _ = shared_tunnel
    command = [curl, *proxy_options(hub, kind), "-T", "-", "-H", f"Content-Length: {size}"]
    process = subprocess.Popen(
        [*command, "-H", "Transfer-Encoding:", f"http://127.0.0.1:{origin_port}/"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    for start in range(0, size, len(BLOCK)):
        process.stdin.write(BLOCK[: size - start])
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert output.decode() == pattern_digest(size)


@pytest.mark.parametrize(
    "kind",
    ["socks5", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("http", "connect"))],
)
def test_two_hundred_at_once_each_get_their_own_answer(
    shared_tunnel, origin_port, curl, kind, tmp_path
):
    hub, _ = shared_tunnel
    done = subprocess.run(
        [
            *[curl, *proxy_options(hub, kind), "--parallel", "--parallel-immediate"],
            *["--parallel-max", "200", "-o", str(tmp_path / "#1")],
            f"http://127.0.0.1:{origin_port}/bytes/[100001-100200]",
        ],
        timeout=60,
    )
    assert done.returncode == 0
    for size in range(100001, 100201):
        assert (tmp_path / str(size)).read_bytes() == BLOCK[:size]


def test_a_client_that_ends_its_side_still_receives_the_answer(shared_tunnel):
    hub, node = shared_tunnel

    def serve(sock: socket.socket) -> None:
        body = read_to_end(sock)
        sock.sendall(hashlib.sha256(body).digest() + BLOCK)

    with raw_server(node, serve) as (host, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port)
        with sock:
            assert reply == 0
            sock.sendall(BLOCK)
            sock.shutdown(socket.SHUT_WR)
            answer = read_to_end(sock)
    assert answer == hashlib.sha256(BLOCK).digest() + BLOCK


@pytest.mark.parametrize("proxy", ["socks5", "http"])
def test_a_client_that_says_all_and_ends_before_it_is_connected_gets_its_answer(
    shared_tunnel, proxy
):
    hub, node = shared_tunnel
    with raw_server(node, lambda sock: sock.sendall(read_to_end(sock))) as (host, port):
        if proxy == "socks5":
            packed = socket.inet_aton(host) + port.to_bytes(2, "big")
            request = b"\x05\x01\x00\x05\x01\x00\x01" + packed
        else:
            request = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with socket.create_connection(hub.address(proxy), PATIENCE) as sock:
            sock.sendall(request + BLOCK[:50_000])
            sock.shutdown(socket.SHUT_WR)
            answer = read_to_end(sock)
    assert answer.endswith(BLOCK[:50_000])
    assert len(answer) < 50_100
    assert "Traceback" not in hub.log


def test_a_target_that_ends_its_side_still_receives_the_rest(shared_tunnel):
    hub, node = shared_tunnel
    received = []

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"done")
        sock.shutdown(socket.SHUT_WR)
        received.append(read_to_end(sock))

    with raw_server(node, serve) as (host, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port)
        with sock:
            assert reply == 0
            assert read_to_end(sock) == b"done"
            sock.sendall(BLOCK)
    assert received == [BLOCK]


def test_a_reset_by_the_target_reaches_the_client_after_the_data_before_it(shared_tunnel):
    hub, node = shared_tunnel
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"last words")
        go.wait(PATIENCE)
        reset(sock)

    with raw_server(node, serve) as (host, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port)
        with sock:
            assert reply == 0
            assert read_exactly(sock, 10) == b"last words"
            go.set()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_a_reset_by_the_client_reaches_the_target(shared_tunnel):
    hub, node = shared_tunnel
    errors: list[BaseException] = []

    def serve(sock: socket.socket) -> None:
        try:
            read_to_end(sock)
        except ConnectionResetError as error:
            errors.append(error)

    with raw_server(node, serve) as (host, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port)
        assert reply == 0
        reset(sock)
    assert len(errors) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses_of_both_families_are_reached(shared_tunnel, host):
    hub, node = shared_tunnel
    with raw_server(node, lambda sock: sock.sendall(b"here"), host) as (_, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port)
        with sock:
            assert (reply, read_to_end(sock)) == (0, b"here")


def test_a_name_is_resolved_by_the_node(shared_tunnel):
    hub, node = shared_tunnel
    with raw_server(node, lambda sock: sock.sendall(b"here")) as (_, port):
        sock, reply = socks_connect(hub.address("socks5"), "localhost", port)
        with sock:
            assert (reply, read_to_end(sock)) == (0, b"here")


async def test_the_hub_passes_names_on_as_they_are(hub: Hub):
    """A node of this test's own sees what the hub asks for."""
    hub.start()
    link = PairingLink.parse(hub.link())
    enroll = Enroll(link.token, "watcher")
    hello = Hello(time.time_ns())
    key = PrivateKey.generate()
    dialled = await dial_hub(link.endpoints[0], key, link.hub, hello, enroll=enroll)
    loop, asked = asyncio.get_running_loop(), asyncio.Queue()

    class Watcher:
        def connect_requested(self, stream, target):
            asked.put_nowait(target)
            stream.refuse(ConnectFailReason.NAME_NOT_FOUND)

        def established(self, link):
            """Nothing to do."""

        status_received = go_away_received = link_closed = lambda *_: None

    connection = Connection(Role.NODE, dialled.session, loop.time())
    tunnel = Link(connection, Watcher(), loop=loop, dead_after=40, leftover=dialled.leftover)
    transport, _ = await loop.create_connection(lambda: tunnel, sock=dialled.sock)
    await asyncio.to_thread(hub.wait_online)
    for name in ("made-up.invalid", "localhost", "0x7f.1", "EXAMPLE.com."):
        request = asyncio.to_thread(socks_connect, hub.address("socks5"), name, 443)
        sock, reply = await request
        sock.close()
        assert reply == 4
        assert await asked.get() == Target(name, 443)
    transport.close()


@pytest.mark.parametrize(
    "host",
    [
        *["127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1"],
        *["169.254.169.254", "0.0.0.0", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1"],
        *["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "nas.local"],
    ],
)
def test_targets_at_home_are_refused_by_default(shared_tunnel, host):
    hub, _ = shared_tunnel
    sock, reply = socks_connect(hub.address("socks5"), host, 80)
    sock.close()
    assert reply == 2  # not allowed by ruleset


def test_the_http_proxy_says_that_policy_refused(shared_tunnel, curl):
    hub, _ = shared_tunnel
    host, port = hub.address("http")
    with socket.create_connection((host, port), PATIENCE) as sock:
        sock.sendall(b"CONNECT 192.168.1.1:80 HTTP/1.1\r\nHost: 192.168.1.1:80\r\n\r\n")
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b"restunnel: 192.168.1.1 is private use (RFC 1918)\n")


def test_the_owners_word_applies_at_once_and_can_be_taken_back(shared_tunnel, origin_port):
    hub, node = shared_tunnel
    address = hub.address("socks5")
    node.call("policy", "deny", f"127.0.0.1:{origin_port}")
    sock, reply = socks_connect(address, "127.0.0.1", origin_port)
    sock.close()
    assert reply == 2
    node.allow(f"127.0.0.1:{origin_port}")
    sock, reply = socks_connect(address, "127.0.0.1", origin_port)
    sock.close()
    assert reply == 0


def test_a_port_where_nobody_listens_is_refused_in_the_targets_name(shared_tunnel):
    hub, node = shared_tunnel
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    node.allow(f"127.0.0.1:{port}")
    sock, reply = socks_connect(hub.address("socks5"), "127.0.0.1", port)
    sock.close()
    assert reply == 5  # connection refused


def test_an_optimistic_client_is_answered_at_once_and_a_failure_is_a_reset(shared_tunnel):
    hub, node = shared_tunnel
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    node.allow(f"127.0.0.1:{port}")
    address = hub.address("socks5")
    sock, reply = socks_connect(address, "127.0.0.1", port, username="optimistic=yes")
    with sock:
        assert reply == 0
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with socks_connect(address, "127.0.0.1", port, username="optimistic=no")[0] as sock:
        assert sock.recv(1) == b""  # told of the refusal already
    sock, reply = socks_connect(address, "127.0.0.1", port, username="nobody,optimistic=yes")
    with sock:
        assert reply == 1  # there is nobody to be optimistic about


def test_what_an_optimistic_client_says_travels_with_its_connect(shared_tunnel):
    hub, node = shared_tunnel

    def serve(sock: socket.socket) -> None:
        assert read_exactly(sock, 5) == b"hello"
        sock.sendall(b"answer")

    with raw_server(node, serve) as (host, port):
        sock, reply = socks_connect(hub.address("socks5"), host, port, username="optimistic=yes")
        with sock:
            sock.sendall(b"hello")
            assert reply == 0
            assert read_to_end(sock) == b"answer"


def test_the_user_name_chooses_the_node_and_an_unknown_one_fails(shared_tunnel, origin_port, curl):
    hub, _ = shared_tunnel
    name = hub.nodes()[0]["name"]
    for username, expected in ((name, 0), (f"node={name}", 0), ("nobody", 1), ("colour=red", 1)):
        sock, reply = socks_connect(
            hub.address("socks5"), "127.0.0.1", origin_port, username=username
        )
        sock.close()
        assert reply == expected, username


def test_without_a_node_the_proxies_fail_at_once(hub: Hub, curl: str, tmp_path: Path):
    hub.start()
    sock, reply = socks_connect(hub.address("socks5"), "example.com", 80)
    sock.close()
    assert reply == 1
    done = subprocess.run(
        [
            curl,
            "-s",
            "-x",
            f"http://{hub.listeners['http']}",
            "-w",
            "%{http_code}",
            "http://example.com/",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "restunnel: no exit node is connected\n503"
