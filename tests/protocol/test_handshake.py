"""The Noise_IK handshake: two messages, and what is met with silence."""

from __future__ import annotations

import os
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from restunnel_protocol import (
    Enroll,
    EnrollOk,
    HandshakeError,
    Hello,
    Initiator,
    LocalError,
    PrivateKey,
    PublicKey,
    Responder,
    Suite,
)
from restunnel_protocol.frames import FrameType, encode_frame
from restunnel_protocol.limits import MAX_MESSAGE_1, MIN_MESSAGE_1
from restunnel_protocol.noise import message_1_length

HUB, NODE = PrivateKey.generate(), PrivateKey.generate()
suites = pytest.mark.parametrize("suite", Suite)

LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
]
"""X25519 points of small order (cr.yp.to/ecdh.html)."""


def initiator(suite: Suite = Suite.AESGCM_SHA256, **options) -> Initiator:
    return Initiator(NODE, HUB.public, Hello(7, 1000, agent="node"), suite=suite, **options)


def read(message: bytes):
    """What a hub makes of message 1."""
    responder = Responder(HUB)
    suite = responder.recognise(message)
    assert suite is not None
    return responder.read_message_1(message, suite)


@suites
def test_both_ends_agree_on_keys_and_know_each_other(suite):
    node = initiator(suite, enroll=Enroll(bytes(32), "phone"))
    request = read(node.write_message_1())
    assert request.node == NODE.public
    assert (request.hello.timestamp, request.hello.window, request.hello.agent) == (7, 1000, "node")
    assert request.enroll == Enroll(bytes(32), "phone")
    answer, hub_session = request.write_message_2(Hello(9), EnrollOk("id", "phone"))
    session, enroll_ok, leftover = node.receive_data(answer + b"next")
    assert (session.remote.timestamp, enroll_ok, leftover) == (9, EnrollOk("id", "phone"), b"next")
    for sealer, opener in (
        (session.sealer, hub_session.opener),
        (hub_session.sealer, session.opener),
    ):
        assert opener.open(sealer.seal(b"hello")[2:]) == b"hello"


def test_message_2_may_come_byte_by_byte():
    node = initiator()
    answer, _ = read(node.write_message_1()).write_message_2(Hello(9))
    results = [node.receive_data(bytes((byte,))) for byte in answer]
    assert results[:-1] == [None] * (len(answer) - 1)
    assert results[-1] is not None


@suites
def test_every_wrong_bit_of_message_1_is_met_with_silence(suite):
    message = initiator(suite).write_message_1()
    responder = Responder(HUB)
    for number in range(len(message) * 8):
        altered = bytearray(message)
        altered[number // 8] ^= 1 << number % 8
        assert responder.recognise(altered) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from(Suite))
def test_even_with_a_right_mac1_a_forged_message_does_not_authenticate(seed, suite):
    from restunnel_protocol.noise import compute_mac1, mac1_key

    message = bytearray(initiator(suite, padding=b"").write_message_1())
    position = 18 + seed % (len(message) - 18)
    message[position] ^= 1 + seed % 255
    message[2:18] = compute_mac1(mac1_key(HUB.public, suite), bytes(message[:2]), message[18:])
    with pytest.raises(HandshakeError):
        read(bytes(message))


@pytest.mark.parametrize("point", LOW_ORDER)
def test_points_of_small_order_do_not_authenticate(point):
    from restunnel_protocol.noise import compute_mac1, mac1_key

    message = bytearray(initiator().write_message_1())
    message[18:50] = bytes.fromhex(point)
    message[2:18] = compute_mac1(
        mac1_key(HUB.public, Suite.AESGCM_SHA256), bytes(message[:2]), message[18:]
    )
    with pytest.raises(HandshakeError):
        read(bytes(message))
    with pytest.raises(HandshakeError):
        Initiator(NODE, PublicKey(bytes.fromhex(point)), Hello(1)).write_message_1()


def test_lengths_that_no_message_1_has_are_known_at_once():
    assert message_1_length((MIN_MESSAGE_1 - 1).to_bytes(2, "big")) is None
    assert message_1_length(MIN_MESSAGE_1.to_bytes(2, "big")) == MIN_MESSAGE_1
    assert message_1_length(MAX_MESSAGE_1.to_bytes(2, "big")) == MAX_MESSAGE_1
    assert message_1_length((MAX_MESSAGE_1 + 1).to_bytes(2, "big")) is None


def test_the_largest_message_1_fits_the_limit():
    enroll = Enroll(bytes(32), "x" * 64)
    padding = encode_frame(FrameType.PADDING, 0, bytes(128))
    hello = Hello(2**63 - 1, agent="y" * 64)
    message = Initiator(NODE, HUB.public, hello, enroll=enroll, padding=padding).write_message_1()
    assert len(message) - 2 < MAX_MESSAGE_1 // 2


@pytest.mark.parametrize(
    "frames",
    [
        b"\x05\0\0\0\0\0\0\0\x20abc",
        encode_frame(FrameType.HELLO, 0, Hello(1).encode()) * 2,
        encode_frame(FrameType.DATA, 1, b"x"),
        encode_frame(FrameType.HELLO, 1, Hello(1).encode()),
        encode_frame(FrameType.ENROLL, 0, bytes(32)),
        encode_frame(FrameType.ENROLL_OK, 0, bytes(2)),
        encode_frame(0x7F, 0, b""),
    ],
)
def test_frames_out_of_place_in_message_1_are_met_with_silence(frames):
    with pytest.raises(HandshakeError):
        read(initiator(padding=frames).write_message_1())


def raw_message_1(payload: bytes) -> bytes:
    """Message 1 with any payload, good in all else."""
    from restunnel_protocol.noise import _start, compute_mac1, mac1_key

    suite = Suite.AESGCM_SHA256
    fixed = PrivateKey.generate()
    with pytest.warns(UserWarning, match="ephemeral"):
        noise = _start(suite, NODE, initiator=True, remote=HUB.public, ephemeral=fixed)
    message = bytes(noise.write_message(payload))
    assert message.startswith(fixed.public.raw)
    length = (16 + len(message)).to_bytes(2, "big")
    return length + compute_mac1(mac1_key(HUB.public, suite), length, message) + message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x05",
        encode_frame(FrameType.PADDING, 0, b"x"),
        encode_frame(FrameType.ENROLL, 0, bytes(33)) + encode_frame(FrameType.HELLO, 0, bytes(19)),
        encode_frame(FrameType.HELLO, 0, bytes(5)),
        encode_frame(FrameType.HELLO, 0, bytes(19)) + encode_frame(FrameType.ENROLL, 0, bytes(5)),
    ],
)
def test_payloads_without_a_sound_hello_are_met_with_silence(payload):
    with pytest.raises(HandshakeError):
        read(raw_message_1(payload))


@pytest.mark.parametrize("payload", [b"\x05", encode_frame(FrameType.HELLO, 0, bytes(5))])
def test_an_answer_of_the_hub_that_makes_no_sense_is_refused(payload):
    node = initiator()
    request = read(node.write_message_1())
    message = bytes(request._noise.write_message(payload))
    with pytest.raises(HandshakeError):
        node.receive_data(len(message).to_bytes(2, "big") + message)


def test_ignorable_frames_in_message_1_are_ignored():
    padding = encode_frame(0x80, 0, b"later") + encode_frame(FrameType.PADDING, 0, bytes(9))
    assert read(initiator(padding=padding).write_message_1()).hello.timestamp == 7


def test_an_answer_that_is_not_the_hubs_is_refused():
    for answer in (b"HTTP/1.1 400 Bad Request\r\n" * 99, os.urandom(1200)):
        with pytest.raises(HandshakeError):
            node = initiator()
            node.write_message_1()
            node.receive_data(b"\x01\x00" + answer)
    impostor = Responder(PrivateKey.generate())
    assert impostor.recognise(initiator().write_message_1()) is None


def test_message_2_is_written_once():
    request = read(initiator().write_message_1())
    request.write_message_2(Hello(1))
    with pytest.raises(LocalError):
        request.write_message_2(Hello(1))


def test_a_stranger_costs_the_hub_no_diffie_hellman():
    responder, message = Responder(HUB), os.urandom(300)
    key, peer = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()

    def fastest(work) -> float:
        times = []
        for _ in range(300):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return min(times)

    assert fastest(lambda: responder.recognise(message)) < fastest(lambda: key.exchange(peer)) / 2


def test_keys_do_not_show_their_secret():
    assert str(NODE.public) in repr(NODE)
    assert NODE.raw.hex() not in repr(NODE)
    assert repr(Enroll(b"s" * 32)).count("s" * 8) == 0
    assert PublicKey.parse(str(NODE.public)) == NODE.public
    for text in ("", "short", str(NODE.public) + "A", str(NODE.public)[:-1] + "!"):
        with pytest.raises(ValueError):
            PublicKey.parse(text)
