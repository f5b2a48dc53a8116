"""The Restunnel wire protocol, without I/O.

A node connects out to a hub over TCP, proves its key in the first message
(Noise_IK), and then serves TCP connections that the hub asks for, all in one
encrypted tunnel. `Initiator` and `Responder` do the handshake, `Connection` the
tunnel; neither knows of sockets. `restunnel_protocol.aio` does, for asyncio.
The normative text is docs/protocol.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .addresses import Target, parse_target
    from .connection import Connection, Role, Settings
    from .errors import (
        AddressError,
        CloseReason,
        ConnectFailReason,
        GoAwayReason,
        HandshakeError,
        LinkError,
        LocalError,
        RemoteError,
        RestunnelError,
    )
    from .events import (
        Connected,
        ConnectFailed,
        ConnectRequested,
        DataReceived,
        EofReceived,
        Established,
        Event,
        GoAwayReceived,
        RoundTripMeasured,
        StatusReceived,
        StreamClosed,
        StreamWritable,
        TunnelEnded,
    )
    from .exit_policy import ExitPolicy, Rule, Verdict
    from .keys import PrivateKey, PublicKey
    from .messages import Enroll, EnrollOk, Hello, Status
    from .noise import Initiator, Request, Responder, Session
    from .pairing import Endpoint, PairingLink
    from .records import Suite

__all__ = [
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

# Each name is imported when it is first used: a command line that only prints its
# help, or asks a running hub, does not load a cryptography library for that.
_HOMES = {
    "AddressError": "errors",
    "CloseReason": "errors",
    "ConnectFailReason": "errors",
    "ConnectFailed": "events",
    "ConnectRequested": "events",
    "Connected": "events",
    "Connection": "connection",
    "DataReceived": "events",
    "Endpoint": "pairing",
    "Enroll": "messages",
    "EnrollOk": "messages",
    "EofReceived": "events",
    "Established": "events",
    "Event": "events",
    "ExitPolicy": "exit_policy",
    "GoAwayReason": "errors",
    "GoAwayReceived": "events",
    "HandshakeError": "errors",
    "Hello": "messages",
    "Initiator": "noise",
    "LinkError": "errors",
    "LocalError": "errors",
    "PairingLink": "pairing",
    "PrivateKey": "keys",
    "PublicKey": "keys",
    "RemoteError": "errors",
    "Request": "noise",
    "Responder": "noise",
    "RestunnelError": "errors",
    "Role": "connection",
    "RoundTripMeasured": "events",
    "Rule": "exit_policy",
    "Session": "noise",
    "Settings": "connection",
    "Status": "messages",
    "StatusReceived": "events",
    "StreamClosed": "events",
    "StreamWritable": "events",
    "Suite": "records",
    "Target": "addresses",
    "TunnelEnded": "events",
    "Verdict": "exit_policy",
    "parse_target": "addresses",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
