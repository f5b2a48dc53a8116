"""The Restunnel wire protocol, without I/O.

A node connects out to a hub over TCP, proves its key in the first message
(Noise_IK), and then serves TCP connections that the hub asks for, all in one
encrypted tunnel. `Initiator` and `Responder` do the handshake, `Connection` the
tunnel; neither knows of sockets. `restunnel_protocol.aio` does, for asyncio.
The normative text is docs/protocol.md.
"""

from ._version import __version__
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
