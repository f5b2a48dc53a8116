"""`restunnel-node doctor` and the service, by the real command line."""

from __future__ import annotations

import json
from pathlib import Path

from support.services import Hub, Node, run, wait_until


def findings(node: Node) -> tuple[int, dict[str, dict[str, str]]]:
    done = run("restunnel-node", "--data-dir", node.data_dir, "doctor", "--json")
    return done.returncode, {found["name"]: found for found in json.loads(done.stdout)}


def test_each_state_of_a_node_is_found_with_its_remedy(hub: Hub, node: Node):
    code, found = findings(node)
    assert (code, found["hubs"]["detail"]) == (1, "paired with none")
    assert "restunnel-node pair LINK" in found["hubs"]["remedy"]
    hub.start()
    node.pair(hub)
    address = hub.listeners["tunnel"]
    code, found = findings(node)
    assert (code, found["node"]["state"], found[f"port {address}"]["state"]) == (0, "warning", "ok")
    node.start()
    hub.wait_online()
    code, found = findings(node)
    assert (code, found["node"]["detail"], found[f"hub {address}"]["detail"]) == (
        *(0, "running", "connected"),
    )
    hub.destroy()

    def told() -> bool:
        return "connection refused" in findings(node)[1][f"hub {address}"]["detail"]

    wait_until(told, "the node to notice")
    node.stop()
    (node.data_dir / "node_key.bin").chmod(0o644)
    (node.data_dir / "policy.toml").write_text("colour = 'red'")
    code, found = findings(node)
    assert code == 1
    assert found["node_key.bin"]["remedy"].startswith("chmod 600")
    assert found["configuration"]["state"] == "failure"
    assert found[f"port {address}"]["detail"] == "cannot be reached: connection refused"
    (node.data_dir / "hubs.toml").write_text("hub = 3")
    code, found = findings(node)
    assert (code, found["hubs"]["state"]) == (1, "failure")


def test_a_revoked_node_is_told_to_pair_again(own_tunnel: tuple[Hub, Node]):
    hub, node = own_tunnel
    hub.call("node", "revoke", hub.nodes()[0]["id"])
    wait_until(lambda: not hub.nodes(), "the revocation")
    address = hub.listeners["tunnel"]
    found = wait_until(
        lambda: (one := findings(node)[1][f"hub {address}"])["state"] == "failure" and one, "it"
    )
    assert "pair it again" in found["remedy"]


def test_the_nodes_unit_is_shown(tmp_path: Path):
    done = run("restunnel-node", "--data-dir", tmp_path, "service", "install", "--print")
    assert done.returncode == 0
    assert f"restunnel-node run --data-dir {tmp_path}\n" in done.stdout
