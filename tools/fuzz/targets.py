"""What is fuzzed: functions that take any bytes and must not fail, whatever they are.

Each raises only if the package breaks a promise: an exception that is not in its
documentation, a value that does not survive its own encoding, an account that
does not add up. `tools/fuzz/run.py` drives them, and a test replays the corpus.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, Final

from restunnel_protocol import (
    Connection,
    Enroll,
    EnrollOk,
    HandshakeError,
    Hello,
    Initiator,
    LinkError,
    PairingLink,
    PrivateKey,
    RemoteError,
    Responder,
    Role,
    Session,
    Settings,
    Status,
    Suite,
    Target,
)
from restunnel_protocol.errors import ConnectFailReason
from restunnel_protocol.events import ConnectRequested, DataReceived, TunnelEnded
from restunnel_protocol.frames import FrameType, parse_frames
from restunnel_protocol.limits import MAX_PLAINTEXT
from restunnel_protocol.messages import Close, Connect, ConnectFail, ConnectOk, GoAway, Window
from restunnel_protocol.noise import PROLOGUE, compute_mac1, mac1_key, message_1_length
from restunnel_protocol.records import RecordOpener, RecordSealer, RecordSplitter
from restunnel_protocol.windows import WindowBudget

HUB: Final = PrivateKey(b"h" * 32)
NODE: Final = PrivateKey(b"n" * 32)

PAYLOADS: Final[dict[int, Any]] = {
    FrameType.ENROLL: Enroll,
    FrameType.ENROLL_OK: EnrollOk,
    FrameType.HELLO: Hello,
    FrameType.GOAWAY: GoAway,
    FrameType.CONNECT: Connect,
    FrameType.CONNECT_OK: ConnectOk,
    FrameType.CONNECT_FAIL: ConnectFail,
    FrameType.CLOSE: Close,
    FrameType.WINDOW: Window,
    FrameType.RETURN: Window,
    FrameType.STATUS: Status,
}

MAY_GROW: Final = {FrameType.HELLO, FrameType.ENROLL_OK}
"""Payloads with fields of later versions at their end, which do not come back."""


def records(data: bytes) -> None:
    """Bytes of a tunnel: the same records whatever the pieces, and none authenticates."""
    step = data[0] + 1 if data else 1
    whole = [bytes(record) for record in RecordSplitter().feed(data)]
    splitter, pieces = RecordSplitter(), []
    for start in range(0, len(data), step):
        pieces += [bytes(record) for record in splitter.feed(data[start : start + step])]
    assert pieces == whole
    for suite in Suite:
        opener = RecordOpener(suite, bytes(32))
        for record in whole[:4]:
            with contextlib.suppress(RemoteError):
                opener.open(record)
                raise AssertionError("a record out of nowhere authenticates")


def frames(data: bytes) -> None:
    """The plaintext of a record: whole frames, and payloads that are what they encode."""
    try:
        found = parse_frames(data)
    except RemoteError:
        return
    assert sum(9 + len(payload) for _, _, payload in found) == len(data)
    for kind, _, payload in found:
        if kind not in PAYLOADS:
            continue
        try:
            value = PAYLOADS[kind].decode(payload)
        except RemoteError:
            continue
        again = value.encode()
        assert PAYLOADS[kind].decode(again) == value
        if kind in MAY_GROW:
            assert bytes(payload[: len(again)]) == again


def links(data: bytes) -> None:
    """The text of a pairing link: refused with a reason, or the same when written again."""
    try:
        link = PairingLink.parse(data.decode("utf-8", "surrogateescape"))
    except LinkError as error:
        assert str(error)
        return
    assert PairingLink.parse(str(link)) == link


def handshake(data: bytes) -> None:
    """A first message as it comes from a stranger, and payloads from somebody with the key."""
    responder = Responder(HUB)
    message_1_length(data)
    if len(data) >= 2:
        assert responder.recognise(data) is None
    if len(data) > 800:
        return
    for suite in Suite:
        with contextlib.suppress(HandshakeError):
            responder.read_message_1(_message_1(suite, data), suite)
        initiator = Initiator(NODE, HUB.public, Hello(1), suite=suite)
        request = responder.read_message_1(initiator.write_message_1(), suite)
        message = bytes(request._noise.write_message(data))  # noqa: SLF001
        with contextlib.suppress(HandshakeError):
            initiator.receive_data(len(message).to_bytes(2, "big") + message)


def _message_1(suite: Suite, payload: bytes) -> bytes:
    from noise.connection import Keypair, NoiseConnection

    noise = NoiseConnection.from_name(suite.value)
    noise.set_as_initiator()
    noise.set_prologue(PROLOGUE)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, NODE.raw)
    noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, HUB.public.raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        noise.start_handshake()
    message = bytes(noise.write_message(payload))
    length = (16 + len(message)).to_bytes(2, "big")
    return length + compute_mac1(mac1_key(HUB.public, suite), length, message) + message


def conversation(data: bytes) -> None:
    """Frames from a peer that holds the keys: events or one end, and accounts that add up.

    The first byte chooses the role and what the reader does with data.
    """
    if not data:
        return
    role = Role.HUB if data[0] & 1 else Role.NODE
    budget = WindowBudget(1 << 20)
    settings = Settings(start_window=1 << 16, budget=budget, max_streams=8)
    suite, key = Suite.AESGCM_SHA256, bytes(32)
    hello = Hello(1)
    session = Session(RecordSealer(suite, key), RecordOpener(suite, key), suite, hello, hello)
    peer = RecordSealer(suite, key)
    connection = Connection(role, session, 0.0, settings)
    if role is Role.HUB:
        for _ in range(2):
            connection.connect(Target("example.com", 80), 0.0)
    now = 0.0
    for part in data[1:].split(b"\xff\xfe"):
        now += 1.0
        for event in connection.receive_data(bytes(peer.seal(part[:MAX_PLAINTEXT])), now):
            _react(connection, event, data[0], now)
        connection.data_to_send()
        _check_accounts(connection, budget)
        if connection.ended:
            break
    connection.handle_timeout(now + 15.0)
    connection.data_to_send()
    connection.receive_eof()
    assert connection.ended
    assert budget.used == 0


def _react(connection: Connection, event: object, choice: int, now: float) -> None:
    if isinstance(event, TunnelEnded):
        assert connection.ended
    if connection.ended:
        return
    if isinstance(event, ConnectRequested) and event.stream_id in connection._streams:  # noqa: SLF001
        if choice & 2:
            connection.accept(event.stream_id, Target("192.0.2.1", 80))
            connection.send_data(event.stream_id, bytes(100_000))
        elif choice & 4:
            connection.refuse(event.stream_id, ConnectFailReason.BUSY)
    elif isinstance(event, DataReceived) and choice & 8:
        connection.consume(event.stream_id, len(event.data), now)


def _check_accounts(connection: Connection, budget: WindowBudget) -> None:
    streams = connection._streams.values()  # noqa: SLF001
    assert budget.used == sum(stream.receive_window.size for stream in streams)
    for stream in streams:
        assert stream.send_window.credit >= 0
        assert 0 <= stream.receive_window.credit <= stream.receive_window.size


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "records": records,
    "frames": frames,
    "links": links,
    "handshake": handshake,
    "conversation": conversation,
}
