"""Pairing by a one-time link, and what follows from it."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import qrcode

from restunnel_protocol import PairingLink
from support.services import BIN, PATIENCE, Hub, Node, check, run, wait_until


def test_pair_json_has_all_that_a_script_needs(hub: Hub):
    hub.start()
    answer = json.loads(hub.call("pair", "--json", "--name", "phone", "--group", "home"))
    link = PairingLink.parse(answer["link"])
    assert len(link.token) == 32
    assert [str(endpoint) for endpoint in link.endpoints] == [hub.listeners["tunnel"]]
    assert 14 * 60 < answer["expires_at"] - time.time() <= 15 * 60
    assert link.expires_at == int(answer["expires_at"])
    assert "█" in answer["qr"]


def test_pair_shows_the_code_and_the_link_below_it(hub: Hub):
    hub.start("--advertise", "hub.example:443", "[2001:db8::1]:9000", "--advertise=third.example")
    lines = hub.call("pair").splitlines()
    assert len(lines) > 20
    assert "▄" in lines[5]
    link = PairingLink.parse(lines[-1])
    assert [str(endpoint) for endpoint in link.endpoints] == [
        "hub.example:443",
        "[2001:db8::1]:9000",
        "third.example:9000",
    ]
    assert hub.call("pair", "--no-qr").startswith("restunnel://pair?")


def test_a_node_pairs_once_and_reconnects_by_its_key_alone(hub: Hub, node: Node):
    hub.start()
    assert "paired with" in node.call("pair", hub.link("--name", "phone", "--group", "home"))
    before = hub.nodes()
    assert [(n["name"], n["group"], n["online"]) for n in before] == [("phone", "home", False)]
    for _ in range(2):
        node.start()
        hub.wait_online()
        assert node.stop() == 0
        hub.wait_online(0)
    after = hub.nodes()
    assert [n["id"] for n in after] == [n["id"] for n in before]
    assert {"id", "name", "group", "online", "address", "streams", "last_seen"} <= set(after[0])
    assert after[0]["address"] == "127.0.0.1"


def test_a_link_works_for_one_device_only(hub: Hub, node: Node, tmp_path: Path):
    hub.start()
    link = hub.link()
    node.call("pair", link)
    for data_dir in (tmp_path / "second", node.data_dir):
        done = run("restunnel-node", "--data-dir", data_dir, "pair", "--timeout=1s", link)
        assert done.returncode == 1
        first, second = done.stderr.splitlines()
        assert re.fullmatch(r"restunnel-node: the hub at \S+ does not answer this link", first)
        assert second.startswith("hint: the link was used already")
    assert len(hub.nodes()) == 1


def test_an_expired_link_is_refused_before_the_hub_is_dialled(hub: Hub, node: Node):
    hub.start()
    expired = re.sub(r"e=\d+", f"e={int(time.time()) - 180}", hub.link())
    started = time.monotonic()
    done = run("restunnel-node", "--data-dir", node.data_dir, "pair", expired)
    assert done.returncode == 1
    assert "the pairing link expired 3 minutes ago" in done.stderr
    assert time.monotonic() - started < 5
    assert not node.data_dir.exists()


def test_the_hub_does_not_take_an_expired_token_whatever_the_link_says(hub: Hub, node: Node):
    hub.start()
    answer = json.loads(hub.call("pair", "--json", "--ttl", "1s"))
    hopeful = re.sub(r"e=\d+", f"e={int(time.time()) + 900}", answer["link"])
    wait_until(lambda: time.time() > answer["expires_at"] + 0.1, "the token's end")
    done = run("restunnel-node", "--data-dir", node.data_dir, "pair", "--timeout=1s", hopeful)
    assert done.returncode == 1
    assert hub.nodes() == []


def test_a_damaged_link_is_told_from_a_dead_one(node: Node):
    for text in ("hello", "restunnel://pair?v=1", "https://example.com/pair?v=1"):
        done = run("restunnel-node", "--data-dir", node.data_dir, "pair", text)
        assert done.returncode == 1
        assert "pairing link" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_link_can_come_from_standard_input(hub: Hub, node: Node):
    hub.start()
    done = run("restunnel-node", "--data-dir", node.data_dir, "pair", "-", stdin=hub.link() + "\n")
    assert done.returncode == 0, done.stderr


def test_pair_wait_ends_when_the_device_is_paired(hub: Hub, node: Node):
    hub.start()
    waiting = subprocess.Popen(
        [str(BIN / "restunnel-hub"), "--data-dir", str(hub.data_dir), "pair", "--no-qr", "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    node.call("pair", waiting.stdout.readline().strip())
    _, errors = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0
    assert "paired: " in errors


def test_names_are_kept_apart(hub: Hub, tmp_path: Path):
    hub.start()
    hub.call("pair", "--json")
    for number in range(2):
        check("restunnel-node", "--data-dir", tmp_path / f"node{number}", "pair", hub.link())
    first, second = (node["name"] for node in hub.nodes())
    assert second == f"{first}-2"


def test_a_token_is_neither_in_the_database_nor_in_a_log(hub: Hub, node: Node):
    hub.start("--verbose")
    link = hub.link()
    node.call("pair", link)
    node.start("--verbose")
    hub.wait_online()
    token = PairingLink.parse(link).token
    text = re.search(r"[?&]t=([^&]+)", link)[1]
    assert token not in (hub.data_dir / "hub.sqlite3").read_bytes()
    assert text not in hub.log + node.log


@pytest.mark.patient
def test_a_revoked_node_is_cut_off_and_meets_silence(own_tunnel: tuple[Hub, Node]):
    hub, node = own_tunnel
    hub.call("node", "revoke", hub.nodes()[0]["id"])
    assert hub.nodes() == []
    wait_until(lambda: "this device's key was revoked" in node.log, "the node to hear of it")
    wait_until(lambda: "no answer within 10 s" in node.log, "silence")
    with sqlite3.connect(hub.data_dir / "hub.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM nodes").fetchone() == (0,)


def test_a_revoked_node_may_be_paired_again(own_tunnel: tuple[Hub, Node]):
    hub, node = own_tunnel
    hub.call("node", "revoke", hub.nodes()[0]["name"])
    node.pair(hub, "--name", "again")
    assert [n["name"] for n in hub.nodes()] == ["again"]


def test_a_node_serves_several_hubs_each_on_its_own_tunnel(
    own_tunnel: tuple[Hub, Node], tmp_path: Path
):
    hub, node = own_tunnel
    second = Hub(tmp_path / "second-hub")
    try:
        second.start()
        node.pair(second)  # the running node connects without a restart
        second.wait_online()
        assert [h["state"] for h in json.loads(node.call("status", "--json"))["hubs"]] == [
            "online",
            "online",
        ]
        second.destroy()
        wait_until(lambda: "tunnel ended" in node.log, "the end of one tunnel")
        assert hub.nodes()[0]["online"]
        node.call("forget", str(second.listeners["tunnel"]))
        assert len(json.loads(node.call("hubs", "--json"))) == 1
    finally:
        second.destroy()


def test_a_picture_of_the_code_pairs(hub: Hub, node: Node, tmp_path: Path):
    hub.start()
    picture = tmp_path / "code.png"
    qrcode.make(hub.link("--name", "tv")).save(picture)
    node.call("pair", picture)
    assert [n["name"] for n in hub.nodes()] == ["tv"]


def test_a_node_is_renamed_and_grouped_and_that_lasts(own_tunnel):
    hub, _node = own_tunnel
    hub.call("node", "rename", hub.nodes()[0]["name"], "laptop")
    hub.call("node", "group", "laptop", "home")
    for restarted in (False, True):
        if restarted:
            assert hub.stop() == 0
            hub.start()
        shown = hub.nodes()[0]
        assert (shown["name"], shown["group"]) == ("laptop", "home")
    assert json.loads(hub.call("explain", "--json", "home"))["failure"] in ("", "offline")
