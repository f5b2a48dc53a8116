"""The test vectors, replayed by the book: Noise, BLAKE2s and the AEADs used directly."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from noise.connection import Keypair, NoiseConnection

from restunnel_protocol import ExitPolicy, LinkError, PairingLink, Rule
from restunnel_protocol.frames import parse_frames

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "packages" / "restunnel-protocol" / "vectors"
SUITES = ["aesgcm-sha256", "chachapoly-blake2s"]


def load(name: str) -> dict:
    return json.loads((VECTORS / f"{name}.json").read_text())


def raw(vector: dict, name: str) -> bytes:
    return bytes.fromhex(vector[name])


def test_the_generator_writes_what_is_checked_in(tmp_path: Path):
    subprocess.run([sys.executable, str(ROOT / "tools" / "vectors.py"), str(tmp_path)], check=True)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in VECTORS.glob("*.json")}
    assert written == kept


@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set")
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("kind", ["enrolment", "reconnection"])
def test_handshakes_are_noises_with_a_length_and_mac1_before_them(kind, suite):
    vector = load(f"{kind}-{suite}")
    noise = NoiseConnection.from_name(vector["suite"].encode())
    noise.set_as_initiator()
    noise.set_prologue(b"restunnel/1")
    noise.set_keypair_from_private_bytes(Keypair.STATIC, raw(vector, "node_static_private"))
    noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, raw(vector, "node_ephemeral_private"))
    noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, raw(vector, "hub_static_public"))
    noise.start_handshake()
    inner = bytes(noise.write_message(raw(vector, "payload_1")))
    length = (16 + len(inner)).to_bytes(2, "big")
    label = f"restunnel/1 mac1 {vector['suite']}".encode()
    mac1_key = hashlib.blake2s(label + raw(vector, "hub_static_public")).digest()
    assert mac1_key == raw(vector, "mac1_key")
    mac1 = hashlib.blake2s(length + inner, key=mac1_key, digest_size=16).digest()
    assert length + mac1 + inner == raw(vector, "message_1")

    message_2 = raw(vector, "message_2")
    assert int.from_bytes(message_2[:2], "big") == len(message_2) - 2
    assert bytes(noise.read_message(message_2[2:])) == raw(vector, "payload_2")
    plaintext = raw(vector, "first_record_plaintext")
    sealed = bytes(noise.encrypt(plaintext))
    assert len(sealed).to_bytes(2, "big") + sealed == raw(vector, "first_record_node_to_hub")
    assert bytes(noise.decrypt(raw(vector, "first_record_hub_to_node")[2:])) == plaintext


@pytest.mark.parametrize("suite", SUITES)
def test_records_count_and_rekey_as_the_specification_says(suite):
    vector = load(f"records-{suite}")
    aead, order = (AESGCM, "big") if "AESGCM" in vector["suite"] else (ChaCha20Poly1305, "little")
    first = raw(vector, "key")
    last_nonce = bytes(4) + (2**64 - 1).to_bytes(8, order)
    second = aead(first).encrypt(last_nonce, bytes(32), None)[:32]
    assert second == raw(vector, "key_after_rekey")
    assert [entry["number"] for entry in vector["records"]] == [0, 1, 2, 65535, 65536, 65537]
    for entry in vector["records"]:
        key = first if entry["number"] < 65536 else second
        nonce = bytes(4) + entry["number"].to_bytes(8, order)
        ciphertext = aead(key).encrypt(nonce, raw(entry, "plaintext"), None)
        assert len(ciphertext).to_bytes(2, "big") + ciphertext == raw(entry, "record")


def test_frames_have_their_documented_form():
    vectors = load("frames")["frames"]
    for vector in vectors:
        payload = raw(vector, "payload")
        header = vector["type"].to_bytes(1, "big") + vector["id"].to_bytes(4, "big")
        assert raw(vector, "frame") == header + len(payload).to_bytes(4, "big") + payload
        assert parse_frames(raw(vector, "frame")) == [(vector["type"], vector["id"], payload)]
    by_name = {vector["name"]: raw(vector, "payload") for vector in vectors}
    assert by_name["CONNECT name"] == b"\x03\x0bexample.com\x01\xbb"
    assert by_name["GOAWAY"] == b"\0\0\0\0\0\x1estopping"
    assert by_name["HELLO"] == bytes(6) + b"\0\0\0\x02" + b"\0\0\0\0\0\0\0\x01" + b"\x01a"


def test_links_say_what_the_vectors_say():
    vectors = load("pairing-links")
    for vector in vectors["good"]:
        link = PairingLink.parse(vector["link"])
        assert [str(endpoint) for endpoint in link.endpoints] == vector["endpoints"]
        assert (link.hub.raw, link.token) == (raw(vector, "hub"), raw(vector, "token"))
        assert link.expires_at == vector["expires_at"]
    for vector in vectors["bad"]:
        with pytest.raises(LinkError):
            PairingLink.parse(vector["link"])


def test_verdicts_are_those_of_the_vectors():
    vectors = load("exit-policy")
    for vector in vectors["default"]:
        verdict = ExitPolicy().judge(ip_address(vector["address"]), vector["port"])
        assert verdict.allowed == vector["allowed"], vector
    rules = tuple(Rule.parse(*rule.split(" ")) for rule in vectors["rules"])
    for vector in vectors["with_rules"]:
        verdict = ExitPolicy(rules).judge(
            ip_address(vector["address"]), vector["port"], vector["name"]
        )
        assert verdict.allowed == vector["allowed"], vector
    allowed = {vector["address"] for vector in vectors["default"] if vector["allowed"]}
    assert "10.0.0.0" not in allowed
    assert "8.8.8.8" in allowed
