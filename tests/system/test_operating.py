"""What an operator does with nodes, and looks up later: limits, counters, events, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from restunnel_hub.client import request
from restunnel_protocol import PairingLink
from support.origin import BLOCK
from support.scripted import ScriptedNode
from support.services import (
    BIN,
    PATIENCE,
    Hub,
    Node,
    raw_server,
    read_exactly,
    read_to_end,
    run,
    socks_connect,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("operating")  # many share a hub


def explained(hub: Hub, username: str = "") -> str:
    """The failure that `explain` tells; empty if somebody serves."""
    failure: str = hub.ask(f"/explain?username={quote(username)}")["failure"]
    return failure


def named(hub: Hub, name: str = "phone") -> dict[str, object]:
    """One node."""
    shown: dict[str, object] = hub.ask(f"/nodes/{name}")
    return shown


async def scripted(hub: Hub, name: str = "phone") -> ScriptedNode:
    """A node of the test's own that echoes, online."""
    node = ScriptedNode(lambda target: None)
    await node.join(hub, "--name", name)
    await asyncio.to_thread(wait_until, lambda: named(hub, name)["online"], "the node")
    return node


async def connect(hub: Hub, username: str = "") -> tuple[socket.socket, int]:
    """A stream to a made-up target."""
    return await asyncio.to_thread(
        socks_connect, hub.address("socks5"), "target.test", 80, username=username
    )


async def reply(hub: Hub, username: str = "") -> int:
    """The reply to a request whose stream is not wanted any more."""
    sock, code = await connect(hub, username)
    sock.close()
    return code


async def call(hub: Hub, *arguments: str) -> str:
    """A command, while this loop serves the scripted node."""
    return await asyncio.to_thread(hub.call, *arguments)


async def test_no_more_streams_than_the_limit(common_hub: Hub):
    hub, name = common_hub, "limited"
    node = await scripted(hub, name)
    await call(hub, "node", "limit", name, "--streams", "2")
    streams = [await connect(hub, name) for _ in range(3)]
    assert [code for _, code in streams] == [0, 0, 1]
    assert await asyncio.to_thread(explained, hub, name) == "full"
    streams[0][0].close()
    await asyncio.to_thread(
        wait_until, lambda: explained(hub, name) == "", "room for another stream"
    )
    sock, code = await connect(hub, name)
    assert code == 0
    await call(hub, "node", "limit", name, "--streams", "none")
    other, code = await connect(hub, name)
    assert code == 0
    for each in (sock, other, *(stream for stream, _ in streams)):
        each.close()
    await node.leave()


async def test_a_drained_node_finishes_what_it_has_and_gets_nothing_new(hub: Hub):
    hub.start()
    node = await scripted(hub)
    running, code = await connect(hub)
    await call(hub, "node", "drain", "phone")
    for restarted in (False, True):
        assert await asyncio.to_thread(explained, hub) == "drained"
        if not restarted:
            running.sendall(b"still here")
            assert await asyncio.to_thread(read_exactly, running, 10) == b"still here"
            assert await reply(hub) == 1
            running.close()
            link = PairingLink.parse(await asyncio.to_thread(hub.link))
            await asyncio.to_thread(hub.stop)
            await asyncio.to_thread(hub.start, f"--tunnel=127.0.0.1:{link.endpoints[0].port}")
            await node.come_again(link)
            await asyncio.to_thread(wait_until, lambda: named(hub)["online"], "the node")
    assert (await asyncio.to_thread(named, hub))["state"] == "drained"
    await call(hub, "node", "drain", "phone", "--off")
    sock, code = await connect(hub)
    assert code == 0
    sock.close()
    await node.leave()


async def test_bytes_of_a_day_end_the_streams_and_take_no_new_ones(hub: Hub):
    hub.start()
    node = await scripted(hub)
    await call(hub, "node", "limit", "phone", "--per-day", "300kB", "--per-month", "1GB")
    sock, code = await connect(hub)
    assert code == 0

    def use_up() -> bytes:
        sock.sendall(bytes(200_000))
        received = 0
        try:
            while piece := sock.recv(65536):
                received += len(piece)
        except ConnectionResetError:
            return b"reset"
        return b"ended"

    with sock:
        assert await asyncio.to_thread(use_up) == b"reset"
    assert await asyncio.to_thread(explained, hub) == "quota"
    assert await reply(hub) == 1
    shown = await asyncio.to_thread(named, hub)
    assert 400_000 < shown["bytes_today"] < 450_000
    assert shown["online"]
    assert "quota" in await call(hub, "events", "--kind", "quota")
    await asyncio.to_thread(hub.stop)
    await node.leave()
    await asyncio.to_thread(hub.start)
    shown = await asyncio.to_thread(named, hub)
    assert 400_000 < shown["bytes_this_month"] < 450_000
    await call(hub, "node", "limit", "phone", "--per-day", "none")


async def test_a_bandwidth_is_kept_in_both_directions_also_by_running_streams(common_hub: Hub):
    hub, name = common_hub, "slow"
    node = await scripted(hub, name)
    sock, _ = await connect(hub, name)
    await call(hub, "node", "limit", name, "--bandwidth", "1MB")
    size = 1_500_000
    begun = time.monotonic()

    def exchange() -> None:
        sender = threading.Thread(target=sock.sendall, args=(BLOCK + bytes(size - len(BLOCK)),))
        sender.start()
        read_exactly(sock, size)
        sender.join()

    await asyncio.to_thread(exchange)
    assert time.monotonic() - begun > 1.0
    done = await asyncio.to_thread(
        run, "restunnel-hub", "--data-dir", hub.data_dir, "node", "limit", name, "--bandwidth=1k"
    )
    assert done.returncode == 2
    assert "at least" in done.stderr
    sock.close()
    await node.leave()


async def test_a_note_and_who_a_node_is(common_hub: Hub):
    hub, name = common_hub, "noted"
    node = await scripted(hub, name)
    await call(hub, "node", "note", name, "Anna's old one, in the kitchen")
    shown = await asyncio.to_thread(named, hub, name)
    assert shown["note"] == "Anna's old one, in the kitchen"
    assert shown["key"] == str(node.key.public)
    assert shown["address"] == "127.0.0.1"
    text = await call(hub, "node", "show", name)
    assert "max streams: no limit" in text
    await node.leave()


def test_counters_survive_a_restart_and_can_be_exported(own_tunnel: tuple[Hub, Node]):
    hub, node = own_tunnel
    with raw_server(node, lambda sock: sock.sendall(read_to_end(sock))) as (host, port):
        sock, _ = socks_connect(hub.address("socks5"), host, port)
        with sock:
            sock.sendall(BLOCK)
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == BLOCK
    before = hub.nodes()[0]
    assert before["bytes_received"] > len(BLOCK) < before["bytes_sent"]
    assert hub.stop() == 0
    hub.start()
    after = hub.nodes()[0]
    assert after["total_streams"] == 1
    assert after["bytes_sent"] >= before["bytes_sent"]
    header, *days = hub.call("node", "traffic", before["name"]).split()
    assert header == "day,bytes_received,bytes_sent,streams"
    assert sum(int(day.split(",")[2]) for day in days) >= before["bytes_sent"]
    document = json.loads(hub.call("node", "traffic", before["name"], "--json"))
    assert [day["streams"] for day in document["days"]] == [1]


def test_the_audit_log_tells_what_happened_and_no_targets(own_tunnel: tuple[Hub, Node]):
    hub, node = own_tunnel
    name = hub.nodes()[0]["name"]
    for _ in range(3):
        sock, code = socks_connect(hub.address("socks5"), "192.168.77.1", 80)
        sock.close()
        assert code == 2
    hub.call("node", "group", name, "home")
    node.send(signal.SIGKILL)
    wait_until(lambda: not hub.nodes()[0]["online"], "the loss")
    hub.call("node", "revoke", name)
    assert hub.stop() == 0
    hub.start()
    told = json.loads(hub.call("events", "--json"))
    kinds = [event["kind"] for event in told]
    # The first tunnel is that of `restunnel-node pair`, which ends once it has enrolled.
    pairing = ["started", "enrolled", "connected", "lost"]
    expected = [*pairing, "connected", "changed", "lost", "revoked", "stopped", "started"]
    assert [kind for kind in kinds if kind in expected] == expected
    refused = next(event for event in told if event["kind"] == "refused")
    assert (refused["count"], refused["node"], refused["detail"]) == (3, name, "")
    assert next(event for event in told if event["kind"] == "lost")["detail"]
    lines = hub.call("events", "--kind", "connected", "-n", "1").splitlines()
    assert len(lines) == 1
    assert re.search(rf"connected  {re.escape(name)}  from 127\.0\.0\.1$", lines[0])
    assert "192.168.77.1" not in hub.log
    assert b"192.168.77.1" not in (hub.data_dir / "hub.sqlite3").read_bytes()


def test_targets_are_logged_where_asked_for_and_json_is_one_object_per_line(hub: Hub, node: Node):
    hub.start("--log-targets", "--log-format", "json")
    node.pair(hub, "--name", "phone")
    node.start()
    hub.wait_online()
    sock, _ = socks_connect(hub.address("socks5"), "192.168.77.1", 80)
    sock.close()
    hub.stop()
    entries = [json.loads(line) for line in hub.log.splitlines() if line.startswith("{")]
    assert len(entries) == len([line for line in hub.log.splitlines() if "listening" not in line])
    by_event = {entry["event"]: entry for entry in entries}
    assert by_event["refused"]["node"] == "phone"
    assert by_event["refused"]["detail"] == "192.168.77.1:80"
    assert by_event["connected"]["level"] == "info"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", by_event["connected"]["timestamp"])


def test_events_are_followed_as_they_happen(hub: Hub, node: Node):
    hub.start()
    command = [BIN / "restunnel-hub", "--data-dir", hub.data_dir, "events", "--follow", "--json"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as following:
        assert json.loads(following.stdout.readline())["kind"] == "started"
        node.pair(hub)
        assert json.loads(following.stdout.readline())["kind"] == "enrolled"
        following.terminate()


def get(hub: Hub, path: str, **headers: str) -> tuple[int, str]:
    """A page of the dashboard's port."""
    connection = http.client.HTTPConnection(*hub.address("dashboard"), timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


async def test_metrics_count_nodes_streams_and_every_reason(hub: Hub):
    hub.start()
    node = await scripted(hub)
    sock, _ = await connect(hub)
    await reply(hub, "nobody")
    await reply(hub, "expect-ip=192.0.2.1")
    await reply(hub, "optimistic=yes")
    status, text = await asyncio.to_thread(get, hub, "/metrics")
    assert status == 200
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["restunnel_nodes_online",] == 1
    assert samples["restunnel_requests_total", "connected"] == 1
    assert samples["restunnel_requests_total", "optimistic"] == 1
    assert samples["restunnel_requests_total", "unknown"] == 1
    assert samples["restunnel_requests_total", "refused"] == 0  # there before it has happened
    assert samples["restunnel_requests_total", "exit_address"] == 1
    assert samples["restunnel_node_streams_opened_total", "phone"] == 2
    assert samples["restunnel_events_total", "connected"] == 1
    assert samples["process_open_fds",] > 10
    assert await asyncio.to_thread(get, hub, "/healthz") == (200, "ok\n")
    assert (await asyncio.to_thread(get, hub, "/metrics", Host="evil.test"))[0] == 421
    sock.close()
    await node.leave()


def test_an_exposed_dashboard_asks_for_the_password_everywhere(hub: Hub):
    hub.start()
    hub.call("password", stdin="correct horse battery\n")
    hub.stop()
    hub.start("--dashboard=0.0.0.0:0", "--expose", "dashboard")
    hub.listeners["dashboard"] = hub.listeners["dashboard"].replace("0.0.0.0", "127.0.0.1")
    assert get(hub, "/", Host="hub.example.org")[0] == 401
    assert get(hub, "/metrics")[0] == 401
    assert get(hub, "/metrics", Authorization="Basic eDp3cm9uZw==")[0] == 401
    right = "Basic eDpjb3JyZWN0IGhvcnNlIGJhdHRlcnk="  # x:correct horse battery
    assert get(hub, "/metrics", Authorization=right)[0] == 200

    def log_in(password: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*hub.address("dashboard"), timeout=PATIENCE)
        host = f"{connection.host}:{connection.port}"
        headers = {
            "Origin": f"http://{host}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        with contextlib.closing(connection):
            connection.request("POST", "/login", f"password={password}", headers)
            response = connection.getresponse()
            return response.status, response.headers.get("Set-Cookie", "").partition(";")[0]

    assert log_in("wrong")[0] == 403
    code, cookie = log_in("correct+horse+battery")
    assert code == 303
    status, page = get(hub, "/", Cookie=cookie)
    assert status == 200
    assert "Log in" not in page
    kinds = [event["kind"] for event in json.loads(hub.call("events", "--json"))]
    assert kinds.count("login-failed") == 1
    assert kinds.count("login") == 1
    assert b"correct horse" not in (hub.data_dir / "hub.sqlite3").read_bytes()
    hub.call("password", "--remove")
    assert log_in("correct+horse+battery")[0] == 403


async def test_a_revocation_ends_every_stream_within_a_tenth_of_a_second(common_hub: Hub):
    hub = common_hub
    times = []
    for number in range(5):
        node = await scripted(hub, f"phone{number}")
        sock, code = await connect(hub, f"phone{number}")
        assert code == 0

        def revoke(sock=sock, number=number) -> float:
            ended = []

            def watch() -> None:
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
                ended.append(time.monotonic())

            watching = threading.Thread(target=watch)
            watching.start()
            request(hub.data_dir / "hub.sock", "DELETE", f"/nodes/phone{number}")
            committed = time.monotonic()
            watching.join(PATIENCE)
            return ended[0] - committed

        times.append(await asyncio.to_thread(revoke))
        await asyncio.wait_for(asyncio.shield(node.ended), 1)
        sock.close()
    assert max(times) < 0.1


@pytest.mark.parametrize("delay", [pytest.param(0.0, marks=pytest.mark.slow), 0.003])
def test_a_revocation_that_was_acknowledged_holds_after_kill_9(hub: Hub, node: Node, delay: float):
    """Killed at any point: what was acknowledged holds, and what was not is whole."""
    hub.start()
    node.pair(hub, "--name", "phone")
    acknowledged = []

    def revoke() -> None:
        with contextlib.suppress(Exception):
            request(hub.data_dir / "hub.sock", "DELETE", "/nodes/phone")
            acknowledged.append(True)

    revoking = threading.Thread(target=revoke)
    revoking.start()
    time.sleep(delay)  # not to wait for anything: to kill at different points
    hub.destroy()
    revoking.join(PATIENCE)
    hub.start()
    names = [found["name"] for found in hub.nodes()]
    assert names == [] if acknowledged else names in ([], ["phone"])
    with contextlib.closing(sqlite3.connect(hub.data_dir / "hub.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
