"""The public names of the protocol package, which third parties import."""

from __future__ import annotations

import ast
from pathlib import Path

import restunnel_protocol
from restunnel_protocol import aio

NAMES = [
    "AddressError",
    "CloseReason",
    "ConnectFailReason",
    "ConnectFailed",
    "ConnectRequested",
    "Connected",
    "Connection",
    "DataReceived",
    "Endpoint",
    "Enroll",
    "EnrollOk",
    "EofReceived",
    "Established",
    "Event",
    "ExitPolicy",
    "GoAwayReason",
    "GoAwayReceived",
    "HandshakeError",
    "Hello",
    "Initiator",
    "LinkError",
    "LocalError",
    "PairingLink",
    "PrivateKey",
    "PublicKey",
    "RemoteError",
    "Request",
    "Responder",
    "RestunnelError",
    "Role",
    "RoundTripMeasured",
    "Rule",
    "Session",
    "Settings",
    "Status",
    "StatusReceived",
    "StreamClosed",
    "StreamWritable",
    "Suite",
    "Target",
    "TunnelEnded",
    "Verdict",
    "__version__",
    "parse_target",
]

AIO_NAMES = [
    "Dialled",
    "HubSilentError",
    "Link",
    "LinkOwner",
    "Relay",
    "StreamHandler",
    "TunnelStream",
    "dial_hub",
]


def test_the_exported_names_are_these():
    assert sorted(restunnel_protocol.__all__) == sorted(NAMES)
    assert sorted(aio.__all__) == sorted(AIO_NAMES)
    assert dir(restunnel_protocol) == sorted(NAMES)


def test_every_exported_name_exists_where_type_checkers_find_it():
    source = Path(restunnel_protocol.__file__).read_text()
    checked = {}
    for block in ast.parse(source).body:
        if isinstance(block, ast.If):
            for statement in block.body:
                checked.update({alias.name: statement.module for alias in statement.names})
    assert checked == restunnel_protocol._HOMES
    assert set(checked) | {"__version__"} == set(NAMES)
    for name in NAMES:
        assert getattr(restunnel_protocol, name) is not None


def test_every_exported_name_is_documented():
    for name in NAMES:
        value = getattr(restunnel_protocol, name)
        assert name in ("__version__", "Event") or value.__doc__, name
    for name in AIO_NAMES:
        assert getattr(aio, name).__doc__, name
