"""What the proxies speak, on which port, to whom, and what they say when they refuse."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from restunnel_protocol import ConnectFailReason, Target
from support.mmdb import write_country_database
from support.origin import BLOCK
from support.scripted import ScriptedNode
from support.services import (
    PATIENCE,
    Hub,
    Node,
    read_exactly,
    read_to_end,
    run,
    socks_connect,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("proxies")  # most share a hub

SIZE = 50_000


def fetch(curl: str, *options: str, port: int) -> subprocess.CompletedProcess[bytes]:
    """Curl a known page."""
    url = f"http://127.0.0.1:{port}/bytes/{SIZE}"
    command = [curl, "--silent", "--show-error", "--fail", *options, url]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE)


@pytest.mark.parametrize("listener", ["socks5", "http"])
@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks4", "socks4a", "http"])
def test_each_port_takes_every_protocol(shared_tunnel, origin_port, curl, listener, scheme):
    hub, _ = shared_tunnel
    proxy = f"{scheme}://{hub.listeners[listener]}"
    more = ["--proxytunnel"] if scheme == "http" and listener == "socks5" else []
    done = fetch(curl, "--proxy", proxy, *more, port=origin_port)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == BLOCK[:SIZE]


@pytest.mark.parametrize("proxy", ["socks4a", "http"])
def test_names_go_to_the_node_in_every_protocol(shared_tunnel, origin_port, curl, proxy):
    hub, _ = shared_tunnel
    url = f"http://localhost:{origin_port}/bytes/{SIZE}"
    command = [curl, "-sSf", "--proxy", f"{proxy}://{hub.listeners['socks5']}", url]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE)
    assert done.stdout == BLOCK[:SIZE], done.stderr


def test_both_protocols_come_over_a_unix_socket_of_the_users_own(
    hub: Hub, node: Node, curl, tmp_path, origin_port
):
    path = tmp_path / "proxy.sock"
    hub.start("--proxy-socket", str(path))
    node.pair(hub)
    node.allow(f"127.0.0.1:{origin_port}")
    node.start()
    hub.wait_online()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = fetch(curl, "--proxy", f"socks5h://localhost{path}", port=origin_port)
    assert (done.returncode, done.stdout) == (0, BLOCK[:SIZE])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        head = f"GET http://127.0.0.1:{origin_port}/bytes/{SIZE} HTTP/1.1\r\nHost: x\r\n"
        sock.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n" + BLOCK[:SIZE])
    assert hub.stop() == 0
    assert not path.exists()


def say(hub: Hub, request: str, listener: str = "http") -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Send an HTTP request; status line, fields and body of what comes until the end."""
    with socket.create_connection(hub.address(listener), PATIENCE) as sock:
        sock.sendall(request.encode())
        head, _, body = read_to_end(sock).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    fields = {line.split(b": ")[0].lower(): line.partition(b": ")[2] for line in lines}
    return status, fields, body


REASONS = {
    ConnectFailReason.REFUSED: (5, b"502 Bad Gateway", b"error=connection_refused"),
    ConnectFailReason.NOT_ALLOWED: (2, b"403 Forbidden", b"error=destination_ip_prohibited"),
    ConnectFailReason.TIMEOUT: (6, b"504 Gateway Timeout", b"error=connection_timeout"),
    ConnectFailReason.NAME_NOT_FOUND: (4, b"502 Bad Gateway", b'error=dns_error; rcode="NXDOMAIN"'),
    ConnectFailReason.NETWORK_UNREACHABLE: (
        *(3, b"502 Bad Gateway", b"error=destination_ip_unroutable"),
    ),
    ConnectFailReason.HOST_UNREACHABLE: (
        *(4, b"502 Bad Gateway", b"error=destination_ip_unroutable"),
    ),
    ConnectFailReason.BUSY: (1, b"503 Service Unavailable", b"error=connection_limit_reached"),
    ConnectFailReason.GENERAL: (1, b"502 Bad Gateway", b"error=destination_unavailable"),
}


async def test_failures_tell_the_nodes_reason_in_every_protocol(common_hub: Hub):
    hub = common_hub
    node = ScriptedNode(lambda target: ConnectFailReason(target.port))
    await node.join(hub)
    await asyncio.to_thread(hub.wait_online)
    for reason, (reply, status, error) in REASONS.items():
        port = int(reason)
        assert port > 0
        sock, code = await asyncio.to_thread(
            socks_connect, hub.address("socks5"), "target.test", port
        )
        sock.close()
        assert code == reply
        for request in (
            f"CONNECT target.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n",
            f"GET http://target.test:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            line, fields, body = await asyncio.to_thread(say, hub, request)
            assert line == b"HTTP/1.1 " + status
            assert fields[b"proxy-status"].startswith(b"restunnel; " + error + b"; details=")
            assert fields[b"connection"] == b"close"
            assert len(body.splitlines()) == 1
    await node.leave()


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/1.1", "GET /x HTTP/1.1", "OPTIONS * HTTP/1.1", "GET https://a.test/ HTTP/1.1"],
)
async def test_what_is_no_request_to_a_proxy_gets_400_and_reaches_no_node(
    common_hub: Hub, request_line
):
    hub = common_hub
    node = ScriptedNode(lambda target: None)
    await node.join(hub)
    await asyncio.to_thread(hub.wait_online)
    for listener in ("http", "socks5"):
        request = f"{request_line}\r\nHost: target.test\r\n\r\n"
        line, fields, _ = await asyncio.to_thread(say, hub, request, listener)
        assert line == b"HTTP/1.1 400 Bad Request"
        assert fields[b"proxy-status"].startswith(b"restunnel; error=http_request_error; ")
    assert node.asked == []
    await node.leave()


async def test_a_dial_that_fails_on_one_node_is_made_on_another(common_hub: Hub):
    hub = common_hub
    first = ScriptedNode(lambda target: ConnectFailReason.NETWORK_UNREACHABLE)
    second = ScriptedNode(lambda target: None)
    await first.join(hub, "--name", "first", "--group", "home")
    await second.join(hub, "--name", "second", "--group", "home")
    await asyncio.to_thread(hub.wait_online, 2)
    sock, code = await asyncio.to_thread(
        socks_connect, hub.address("socks5"), "target.test", 80, username="home"
    )
    assert code == 0
    await asyncio.to_thread(sock.sendall, b"hello")
    assert await asyncio.to_thread(read_exactly, sock, 5) == b"hello"
    sock.close()
    assert (first.asked, second.asked) == ([Target("target.test", 80)], [Target("target.test", 80)])
    first.answer = lambda target: ConnectFailReason.REFUSED
    sock, code = await asyncio.to_thread(
        socks_connect, hub.address("socks5"), "target.test", 81, username="home"
    )
    sock.close()
    assert code == 5
    assert second.asked == [Target("target.test", 80)]
    await first.leave()
    await second.leave()


async def test_a_tunnel_that_is_lost_during_a_dial_is_replaced_by_another(common_hub: Hub):
    hub = common_hub
    second = ScriptedNode(lambda target: None)

    class Leaving(ScriptedNode):
        def connect_requested(self, stream, target):
            self.asked.append(target)
            self.close()

    first = Leaving(lambda target: None)
    await first.join(hub, "--name", "leaving")
    await second.join(hub, "--name", "staying")
    await asyncio.to_thread(hub.wait_online, 2)
    sock, code = await asyncio.to_thread(socks_connect, hub.address("socks5"), "target.test", 80)
    sock.close()
    assert (code, len(first.asked), len(second.asked)) == (0, 1, 1)
    await first.leave()
    await second.leave()


async def test_an_exit_that_is_not_the_expected_one_is_never_used(common_hub: Hub):
    hub = common_hub
    node = ScriptedNode(lambda target: None)
    await node.join(hub)
    await asyncio.to_thread(hub.wait_online)

    def connect(username: str) -> int:
        sock, code = socks_connect(hub.address("socks5"), "target.test", 80, username=username)
        sock.close()
        return code

    assert await asyncio.to_thread(connect, "expect-ip=127.0.0.1") == 0
    assert await asyncio.to_thread(connect, "expect-ip=127.0.0.0/8") == 0
    asked = len(node.asked)
    for username in ("expect-ip=192.0.2.1", "expect-ip=::1", "expect-country=DE"):
        assert await asyncio.to_thread(connect, username) == 2
        explained = json.loads(await asyncio.to_thread(hub.call, "explain", "--json", username))
        assert explained["node"] is None
        assert explained["failure"] in ("exit_address", "exit_country")
    assert len(node.asked) == asked
    await node.leave()


def authorization(password: str) -> str:
    text = base64.b64encode(f":{password}".encode()).decode()
    return f"Proxy-Authorization: Basic {text}\r\n"


def test_where_passwords_are_required_only_their_holders_get_through(
    hub: Hub, node: Node, curl, origin_port
):
    hub.start("--require-auth")
    node.pair(hub, "--name", "phone")
    node.allow(f"127.0.0.1:{origin_port}")
    node.start()
    hub.wait_online()
    password = json.loads(hub.call("client", "add", "crawler", "--json"))["password"]
    socks, http = hub.listeners["socks5"], hub.listeners["http"]
    for proxy in (
        *(f"socks5h://phone:{password}@{socks}", f"http://phone:{password}@{http}"),
        *(f"socks5h://:{password}@{socks}", f"http://:{password}@{http}"),
    ):
        assert fetch(curl, "--proxy", proxy, port=origin_port).stdout == BLOCK[:SIZE]
    for proxy in (
        *(f"socks5h://{socks}", f"socks5h://phone:wrong@{socks}", f"socks4a://phone@{socks}"),
        *(f"http://{http}", f"http://phone:wrong@{http}"),
    ):
        assert fetch(curl, "--proxy", proxy, port=origin_port).returncode != 0
    for request in ("CONNECT a.test:443", "GET http://a.test/"):
        line, fields, _ = say(hub, f"{request} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert line == b"HTTP/1.1 407 Proxy Authentication Required"
        assert fields[b"proxy-authenticate"].startswith(b"Basic ")
    # One connection, the second request without the password: nothing rides along.
    with socket.create_connection(hub.address("http"), PATIENCE) as sock:
        request = f"GET http://127.0.0.1:{origin_port}/bytes/5 HTTP/1.1\r\nHost: x\r\n"
        sock.sendall(f"{request}{authorization(password)}\r\n{request}\r\n".encode())
        answer = read_to_end(sock)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"\r\n\r\n" + BLOCK[:5] + b"HTTP/1.1 407 " in answer
    hub.call("client", "remove", "crawler")
    assert fetch(curl, "--proxy", f"http://phone:{password}@{http}", port=origin_port).returncode
    raw = (hub.data_dir / "hub.sqlite3").read_bytes()
    assert password.encode() not in raw
    assert password not in hub.log


def test_an_exposed_proxy_needs_to_be_named_and_passwords(hub: Hub, node: Node, curl, origin_port):
    hub.start()
    password = json.loads(hub.call("client", "add", "crawler", "--json"))["password"]
    hub.stop()
    hub.start("--http=0.0.0.0:0", "--expose", "http")
    node.pair(hub)
    node.allow(f"127.0.0.1:{origin_port}")
    node.start()
    hub.wait_online()
    http = hub.listeners["http"].replace("0.0.0.0", "127.0.0.1")
    assert fetch(curl, "--proxy", f"http://:{password}@{http}", port=origin_port).returncode == 0
    assert fetch(curl, "--proxy", f"http://{http}", port=origin_port).returncode != 0
    # A configuration that speaks of another address is for the next start: passwords stay.
    hub.process.send_signal(1)
    wait_until(lambda: "settings loaded again" in hub.log, "the reload")
    assert fetch(curl, "--proxy", f"http://{http}", port=origin_port).returncode != 0


def test_what_is_kept_for_each_client_lasts(hub: Hub, node: Node, curl, origin_port):
    hub.start()
    password = json.loads(hub.call("client", "add", "crawler", "--json"))["password"]
    node.pair(hub)
    node.allow(f"127.0.0.1:{origin_port}")
    node.start()
    hub.wait_online()
    for scheme, listener in (("socks5h", "socks5"), ("http", "http")):
        proxy = f"{scheme}://:{password}@{hub.listeners[listener]}"
        assert fetch(curl, "--proxy", proxy, port=origin_port).returncode == 0
    assert (
        fetch(curl, "--proxy", f"http://{hub.listeners['http']}", port=origin_port).returncode == 0
    )
    for restarted in (False, True):
        if restarted:
            assert hub.stop() == 0
            hub.start()
        nobody, crawler = hub.ask("/clients")
        assert (nobody["name"], nobody["streams"]) == ("", 1)
        assert (crawler["name"], crawler["streams"]) == ("crawler", 2)
        assert 2 * SIZE < crawler["bytes_sent"] < 2 * SIZE + 2000
        assert 0 < crawler["bytes_received"] < 2000
    assert "crawler" in hub.call("client", "list")


def test_a_country_database_is_used_and_a_bad_one_refused(hub: Hub, node: Node, tmp_path: Path):
    database = tmp_path / "countries.mmdb"
    write_country_database(database, {"127.0.0.0/8": "DE"})
    hub.start("--geoip", str(database))
    node.pair(hub, "--name", "phone")
    node.start()
    hub.wait_online()
    assert hub.call("explain", "expect-country=DE").strip() == "phone"
    explained = json.loads(hub.call("explain", "--json", "expect-country=FR"))
    assert explained["failure"] == "exit_country"
    hub.stop()
    database.write_bytes(b"no database")
    done = run("restunnel-hub", "run", "--data-dir", hub.data_dir, "--geoip", database)
    assert done.returncode == 2
    assert "cannot use the country database" in done.stderr
