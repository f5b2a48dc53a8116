#!/usr/bin/env python3
"""Writes packages/restunnel-protocol/vectors/ again, byte for byte the same.

    python3 tools/dev.py run python tools/vectors.py [DIRECTORY]

Keys, ephemerals, tokens and times are fixed. One scenario a file; all bytes are
hexadecimal. A test replays every file and compares this program's output with
what is checked in, so a change of the wire cannot go unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from restunnel_protocol import (
    CloseReason,
    ConnectFailReason,
    Endpoint,
    Enroll,
    EnrollOk,
    ExitPolicy,
    GoAwayReason,
    Hello,
    Initiator,
    LinkError,
    PairingLink,
    PrivateKey,
    RemoteError,
    Responder,
    Rule,
    Status,
    Suite,
    Target,
)
from restunnel_protocol.frames import FrameType, encode_frame, parse_frames
from restunnel_protocol.limits import MAX_WINDOW, REKEY_AFTER_RECORDS
from restunnel_protocol.messages import (
    Close,
    Connect,
    ConnectFail,
    ConnectOk,
    GoAway,
    Window,
)
from restunnel_protocol.noise import PROLOGUE, mac1_key
from restunnel_protocol.records import RecordSealer

DIRECTORY = Path(__file__).parent.parent / "packages" / "restunnel-protocol" / "vectors"


def key(name: str) -> PrivateKey:
    """A private key that everybody can make: SHA-256 of its name."""
    return PrivateKey(hashlib.sha256(b"restunnel vector " + name.encode()).digest())


HUB, NODE = key("hub static"), key("node static")
HUB_EPHEMERAL, NODE_EPHEMERAL = key("hub ephemeral"), key("node ephemeral")
TOKEN = hashlib.sha256(b"restunnel vector token").digest()
PADDING = encode_frame(FrameType.PADDING, 0, bytes(5))


def handshake(suite: Suite, enroll: Enroll | None) -> dict[str, Any]:
    """Both messages, what they carry, and the first record of each direction."""
    node_hello = Hello(1_700_000_000_000_000_000, 262_144, agent="vector-node/1")
    hub_hello = Hello(1_700_000_000_500_000_000, 524_288, agent="vector-hub/1")
    enroll_ok = EnrollOk("0123456789abcdef", "phone") if enroll else None
    initiator = Initiator(
        NODE,
        HUB.public,
        node_hello,
        enroll=enroll,
        suite=suite,
        ephemeral=NODE_EPHEMERAL,
        padding=PADDING,
    )
    message_1 = initiator.write_message_1()
    responder = Responder(HUB, ephemeral=HUB_EPHEMERAL, padding=PADDING)
    assert responder.recognise(message_1) is suite
    request = responder.read_message_1(message_1, suite)
    message_2, hub_session = request.write_message_2(hub_hello, enroll_ok)
    result = initiator.receive_data(message_2)
    assert result is not None
    ping = encode_frame(FrameType.PING, 0, bytes(range(8)))
    payload_1 = encode_frame(FrameType.HELLO, 0, node_hello.encode())
    if enroll:
        payload_1 += encode_frame(FrameType.ENROLL, 0, enroll.encode())
    payload_2 = encode_frame(FrameType.HELLO, 0, hub_hello.encode())
    if enroll_ok:
        payload_2 += encode_frame(FrameType.ENROLL_OK, 0, enroll_ok.encode())
    return {
        "suite": suite.value.decode(),
        "prologue": PROLOGUE.hex(),
        "hub_static_private": HUB.raw.hex(),
        "hub_static_public": HUB.public.raw.hex(),
        "node_static_private": NODE.raw.hex(),
        "node_static_public": NODE.public.raw.hex(),
        "hub_ephemeral_private": HUB_EPHEMERAL.raw.hex(),
        "node_ephemeral_private": NODE_EPHEMERAL.raw.hex(),
        "mac1_key": mac1_key(HUB.public, suite).hex(),
        "payload_1": (payload_1 + PADDING).hex(),
        "message_1": message_1.hex(),
        "payload_2": (payload_2 + PADDING).hex(),
        "message_2": message_2.hex(),
        "first_record_plaintext": ping.hex(),
        "first_record_node_to_hub": result[0].sealer.seal(ping).hex(),
        "first_record_hub_to_node": hub_session.sealer.seal(ping).hex(),
    }


def records(suite: Suite) -> dict[str, Any]:
    """Records at the beginning of a direction and around its first rekeying."""
    cipher_key = hashlib.sha256(b"restunnel vector cipher key").digest()
    sealer = RecordSealer(suite, cipher_key)
    wanted = {0, 1, 2, REKEY_AFTER_RECORDS - 1, REKEY_AFTER_RECORDS, REKEY_AFTER_RECORDS + 1}
    found = []
    for number in range(REKEY_AFTER_RECORDS + 2):
        plaintext = encode_frame(FrameType.DATA, 1, number.to_bytes(4, "big"))
        record = sealer.seal(plaintext)
        if number in wanted:
            found.append({"number": number, "plaintext": plaintext.hex(), "record": record.hex()})
    return {
        "suite": suite.value.decode(),
        "key": cipher_key.hex(),
        "key_after_rekey": suite.rekey(cipher_key).hex(),
        "records": found,
    }


FRAMES: dict[str, tuple[FrameType, int, bytes]] = {
    "ENROLL": (FrameType.ENROLL, 0, Enroll(TOKEN, "phone").encode()),
    "ENROLL_OK": (FrameType.ENROLL_OK, 0, EnrollOk("0123456789abcdef", "phone").encode()),
    "PING": (FrameType.PING, 0, bytes(range(8))),
    "PONG": (FrameType.PONG, 0, bytes(range(8))),
    "HELLO": (FrameType.HELLO, 0, Hello(1, 2, agent="a").encode()),
    "GOAWAY": (FrameType.GOAWAY, 0, GoAway(GoAwayReason.SHUTDOWN, 30, "stopping").encode()),
    "PADDING": (FrameType.PADDING, 0, bytes(3)),
    "CONNECT IPv4": (FrameType.CONNECT, 1, Connect(Target("192.0.2.1", 443)).encode()),
    "CONNECT IPv6": (FrameType.CONNECT, 1, Connect(Target("2001:db8::1", 443)).encode()),
    "CONNECT name": (FrameType.CONNECT, 1, Connect(Target("example.com", 443)).encode()),
    "CONNECT_OK": (FrameType.CONNECT_OK, 1, ConnectOk(Target("192.0.2.1", 443)).encode()),
    "CONNECT_FAIL": (
        FrameType.CONNECT_FAIL,
        1,
        ConnectFail(ConnectFailReason.REFUSED, "connection refused").encode(),
    ),
    "DATA": (FrameType.DATA, 1, b"hello"),
    "DATA empty": (FrameType.DATA, 1, b""),
    "CLOSE": (FrameType.CLOSE, 1, Close(CloseReason.RESET, "reset by target").encode()),
    "EOF": (FrameType.EOF, 1, b""),
    "WINDOW": (FrameType.WINDOW, 1, Window(MAX_WINDOW).encode()),
    "RETURN": (FrameType.RETURN, 1, Window(16_384).encode()),
    "STATUS": (FrameType.STATUS, 0, Status({"streams": 1, "version": "1"}).encode()),
}


def frames() -> dict[str, Any]:
    """A frame of each type."""
    return {
        "frames": [
            {
                "name": name,
                "type": int(kind),
                "id": stream_id,
                "payload": payload.hex(),
                "frame": encode_frame(kind, stream_id, payload).hex(),
            }
            for name, (kind, stream_id, payload) in FRAMES.items()
        ]
    }


PAYLOADS: dict[FrameType, Any] = {
    FrameType.CONNECT: Connect,
    FrameType.CONNECT_OK: ConnectOk,
    FrameType.CONNECT_FAIL: ConnectFail,
    FrameType.CLOSE: Close,
    FrameType.WINDOW: Window,
    FrameType.RETURN: Window,
    FrameType.GOAWAY: GoAway,
    FrameType.STATUS: Status,
    FrameType.HELLO: Hello,
    FrameType.ENROLL: Enroll,
}

MALFORMED = {
    "header cut off": "2000000001000000",
    "length over the record": "20000000010000000568656c6c",
    "length over the limit": "20000000010000ffe7",
    "CONNECT to port 0": "10000000010000000701c00002010000",
    "CONNECT with an unknown address type": "1000000001000000070200000000" + "01bb",
    "CONNECT with an empty name": "10000000010000000403000050",
    "CONNECT with NUL in the name": "10000000010000000703036100620050",
    "CONNECT with bytes left over": "10000000010000000801c000020101bb00",
    "CONNECT_OK with a name": "1100000001000000050301610050",
    "CONNECT_FAIL without a reason": "120000000100000000",
    "CLOSE with a control character": "21000000010000000201" + "0a",
    "WINDOW of 0": "23000000010000000400000000",
    "RETURN of 0": "a3000000010000000400000000",
    "RETURN cut off": "a30000000100000003000001",
    "WINDOW over the limit": "23000000010000000480000000",
    "WINDOW too short": "230000000100000003000001",
    "GOAWAY too short": "06000000000000000400000000",
    "STATUS that is no object": "3000000000000000025b5d",
    "STATUS that is no JSON": "3000000000000000017b",
    "HELLO with a window over the limit": "0500000000000000130000" + "00000000" + "80000000"
    + "0000000000000001" + "00",
    "ENROLL with a short token": "01000000000000000400000000",
}  # fmt: skip


BAD_FRAMES = {"header cut off", "length over the record", "length over the limit"}
"""Those that fail as frames; the others are well-framed with a payload that does not parse."""


def judge_frame(raw: bytes) -> str:
    """The name of the GOAWAY reason for a malformed frame."""
    try:
        for kind, _, payload in parse_frames(raw):
            PAYLOADS[FrameType(kind)].decode(payload)
    except RemoteError as error:
        return error.reason.name
    raise AssertionError("this frame is well-formed")


def malformed() -> dict[str, Any]:
    """Frames that end the tunnel (in a handshake message: that make it invalid)."""
    found = []
    for name, raw in MALFORMED.items():
        error = judge_frame(bytes.fromhex(raw))
        assert error == ("BAD_FRAME" if name in BAD_FRAMES else "BAD_PAYLOAD"), name
        found.append({"name": name, "frame": raw, "error": error})
    return {"frames": found}


def links() -> dict[str, Any]:
    """Pairing links, good and bad."""
    good = PairingLink(
        (Endpoint("hub.example.org", 9000), Endpoint("2001:db8::1", 9000)),
        HUB.public,
        TOKEN,
        1_700_000_900,
    )
    text = str(good)
    bad = {
        "another scheme": text.replace("restunnel:", "https:"),
        "a later version": text.replace("v=1", "v=2"),
        "no address": text.replace("h=", "x="),
        "port 0": text.replace("org:9000", "org:0"),
        "a short key": text.replace("k=", "k=x"),
        "two expiries": text + "&e=1",
        "a fragment": text + "#x",
    }
    for link in bad.values():
        try:
            PairingLink.parse(link)
        except LinkError:
            continue
        raise AssertionError(f"this link is good: {link}")
    return {
        "good": [
            {
                "link": text,
                "endpoints": [str(endpoint) for endpoint in good.endpoints],
                "hub": HUB.public.raw.hex(),
                "token": TOKEN.hex(),
                "expires_at": good.expires_at,
            }
        ],
        "bad": [{"name": name, "link": link} for name, link in bad.items()],
    }


ADDRESSES = [
    "8.8.8.8",
    "9.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "11.0.0.0",
    "0.0.0.0",
    "100.63.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "100.128.0.0",
    "127.0.0.1",
    "169.254.169.254",
    "172.15.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "172.32.0.0",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.20.0.0",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "2606:4700::1111",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "2001:db8::1",
    "3fff::1",
    "2001:2::1",
    "5f00::1",
    "4000::1",
    "::ffff:8.8.8.8",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "64:ff9b::8.8.8.8",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2002:808:808::1",
    "2002:a00:1::1",
    "2a00::5efe:10.0.0.1",
    "2a00::5efe:8.8.8.8",
]


def exit_policy() -> dict[str, Any]:
    """Verdicts without rules, and with some."""
    rules = ("127.0.0.1:8000", "10.0.0.0/8", "nas.local:443", "*:25")
    owner = ExitPolicy(tuple(Rule.parse("allow", rule) for rule in rules))
    asked = [
        ("127.0.0.1", 8000, None),
        ("127.0.0.1", 8001, None),
        ("10.1.2.3", 80, None),
        ("10.1.2.3", 25, None),
        ("8.8.8.8", 25, None),
        ("192.168.1.5", 443, "nas.local"),
        ("192.168.1.5", 443, "other.local"),
        ("192.168.1.5", 25, None),
    ]
    default = ExitPolicy()
    return {
        "default": [
            {"address": text, "port": 443, "allowed": default.judge(ip_address(text), 443).allowed}
            for text in ADDRESSES
        ]
        + [{"address": "8.8.8.8", "port": 25, "allowed": False}],
        "rules": [f"allow {rule}" for rule in rules],
        "with_rules": [
            {
                "address": address,
                "port": port,
                "name": name,
                "allowed": owner.judge(ip_address(address), port, name).allowed,
            }
            for address, port, name in asked
        ],
    }


def scenarios() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every file's name and content."""
    for suite in Suite:
        short = suite.name.lower().replace("_", "-")
        yield f"enrolment-{short}", handshake(suite, Enroll(TOKEN, "phone"))
        yield f"reconnection-{short}", handshake(suite, None)
        yield f"records-{short}", records(suite)
    yield "frames", frames()
    yield "malformed-frames", malformed()
    yield "pairing-links", links()
    yield "exit-policy", exit_policy()


def write(directory: Path) -> None:
    """All files."""
    # noiseprotocol warns of fixed ephemerals; here they are the point.
    warnings.filterwarnings("ignore", message="One of ephemeral keypairs is already set")
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in scenarios():
        (directory / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
