"""The Noise_IK handshake: two messages, and nothing said to strangers.

Message 1 (node to hub): `length u16 | mac1 16 B | Noise message 1`.
Message 2 (hub to node): `length u16 | Noise message 2`.
A length counts the bytes after it. Both Noise payloads are sequences of frames:
HELLO always; ENROLL in message 1 and ENROLL_OK in message 2 when pairing; PADDING.

mac1 is WireGuard's (paper, section 5.4.4): keyed BLAKE2s-128 over everything else
in message 1, under BLAKE2s(label | hub's public key). The label also says the
suite. Whoever does not know the hub's key is recognised before any Diffie-Hellman.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseHandshakeError, NoiseInvalidMessage, NoiseValueError

from .codec import Buffer
from .errors import HandshakeError, LocalError, RemoteError
from .frames import FIRST_IGNORABLE_TYPE, FrameType, encode_frame, parse_frames
from .keys import PrivateKey, PublicKey
from .limits import (
    LENGTH_SIZE,
    MAC1_SIZE,
    MAX_MESSAGE_1,
    MAX_MESSAGE_2,
    MIN_MESSAGE_1,
    MIN_MESSAGE_2,
    PADDING_SPREAD,
    PROTOCOL_MAJOR,
    PROTOCOL_NAME,
)
from .messages import Enroll, EnrollOk, Hello
from .records import RecordOpener, RecordSealer, Suite

PROLOGUE: Final = PROTOCOL_NAME + b"/" + str(PROTOCOL_MAJOR).encode()
"""`restunnel/1`"""

MAC1_LABELS: Final = {suite: PROLOGUE + b" mac1 " + suite.value for suite in Suite}

_NOISE_FAILURES: Final = (
    InvalidTag,
    ValueError,  # cryptography: a low-order point gives an all-zero secret
    NoiseHandshakeError,
    NoiseInvalidMessage,
    NoiseValueError,
)


@dataclass(frozen=True, slots=True)
class Session:
    """What a finished handshake leaves: ciphers, the peer's HELLO, and ours."""

    sealer: RecordSealer
    opener: RecordOpener
    suite: Suite
    local: Hello
    remote: Hello


def mac1_key(hub: PublicKey, suite: Suite) -> bytes:
    """The 32-byte key of mac1 for one hub and suite."""
    return blake2s(MAC1_LABELS[suite] + hub.raw).digest()


def compute_mac1(key: bytes, length: bytes, noise_message: Buffer) -> bytes:
    """16 bytes over the length field and the Noise message."""
    mac = blake2s(length, digest_size=MAC1_SIZE, key=key)
    mac.update(noise_message)
    return mac.digest()


def random_padding() -> bytes:
    """A PADDING frame of random size: a handshake message has no length to know it by."""
    return encode_frame(FrameType.PADDING, 0, bytes(secrets.randbelow(PADDING_SPREAD + 1)))


def message_1_length(prefix: Buffer) -> int | None:
    """Bytes of message 1 after its length field; None if no message 1 begins so.

    `prefix` has at least 2 bytes. This is all a hub decides on before it has mac1.
    """
    length = int.from_bytes(prefix[:LENGTH_SIZE], "big")
    return length if MIN_MESSAGE_1 <= length <= MAX_MESSAGE_1 else None


class Initiator:
    """The node's side: `write_message_1`, feed bytes, then `session`.

    `ephemeral` is for test vectors only; the key is random otherwise.
    """

    def __init__(
        self,
        key: PrivateKey,
        hub: PublicKey,
        hello: Hello,
        *,
        enroll: Enroll | None = None,
        suite: Suite = Suite.AESGCM_SHA256,
        ephemeral: PrivateKey | None = None,
        padding: bytes | None = None,
    ) -> None:
        self._noise = _start(suite, key, initiator=True, remote=hub, ephemeral=ephemeral)
        self._suite = suite
        self._hub = hub
        self._hello = hello
        self._enroll = enroll
        self._padding = random_padding() if padding is None else padding
        self._received = bytearray()

    def write_message_1(self) -> bytes:
        """The bytes to send, once. Raises `HandshakeError` for a hub key that is no key."""
        payload = encode_frame(FrameType.HELLO, 0, self._hello.encode())
        if self._enroll is not None:
            payload += encode_frame(FrameType.ENROLL, 0, self._enroll.encode())
        try:
            message = bytes(self._noise.write_message(payload + self._padding))
        except _NOISE_FAILURES as error:
            raise HandshakeError("the hub's public key is not usable") from error
        length = (MAC1_SIZE + len(message)).to_bytes(LENGTH_SIZE, "big")
        mac1 = compute_mac1(mac1_key(self._hub, self._suite), length, message)
        return length + mac1 + message

    def receive_data(self, data: Buffer) -> tuple[Session, EnrollOk | None, bytes] | None:
        """Take bytes from the hub; None while message 2 is not complete.

        Otherwise the session, the hub's ENROLL_OK if it sent one, and the bytes
        that followed message 2. Raises `HandshakeError` if this is not the hub.
        """
        self._received += data
        if len(self._received) < LENGTH_SIZE:
            return None
        length = int.from_bytes(self._received[:LENGTH_SIZE], "big")
        if not MIN_MESSAGE_2 <= length <= MAX_MESSAGE_2:
            raise HandshakeError("the answer is not a hub's")
        end = LENGTH_SIZE + length
        if len(self._received) < end:
            return None
        try:
            payload = bytes(self._noise.read_message(bytes(self._received[LENGTH_SIZE:end])))
        except _NOISE_FAILURES as error:
            raise HandshakeError("the answer is not from the hub that the link names") from error
        found = _read_payload(payload, {FrameType.HELLO, FrameType.ENROLL_OK})
        try:
            hello = Hello.decode(found[FrameType.HELLO])
            answer = found.get(FrameType.ENROLL_OK)
            enroll_ok = EnrollOk.decode(answer) if answer is not None else None
        except RemoteError as error:
            raise HandshakeError(str(error)) from error
        session = _session(self._noise, self._suite, self._hello, hello)
        return session, enroll_ok, bytes(self._received[end:])


class Responder:
    """The hub's side of one handshake. It has no way to say no.

    `recognise` is cheap and done first; `read_message_1` costs the Diffie-Hellman;
    then the hub asks its store about `node` and `enroll`, and either calls
    `write_message_2` or forgets this object and stays silent.
    """

    def __init__(
        self,
        key: PrivateKey,
        *,
        ephemeral: PrivateKey | None = None,
        padding: bytes | None = None,
    ) -> None:
        self._key = key
        hub = key.public
        self._mac1_keys = [(suite, mac1_key(hub, suite)) for suite in Suite]
        self._ephemeral = ephemeral
        self._padding = padding

    def recognise(self, message: Buffer) -> Suite | None:
        """The suite under which mac1 of a whole message 1 (with length) is right."""
        view = memoryview(message)
        length, mac1 = view[:LENGTH_SIZE], view[LENGTH_SIZE : LENGTH_SIZE + MAC1_SIZE]
        rest = view[LENGTH_SIZE + MAC1_SIZE :]
        found = None
        for suite, key in self._mac1_keys:
            # Both are always computed, so time does not tell which suite was tried.
            if hmac.compare_digest(compute_mac1(key, bytes(length), rest), bytes(mac1)):
                found = suite
        return found

    def read_message_1(self, message: Buffer, suite: Suite) -> Request:
        """Decrypt message 1. Raises `HandshakeError`: to be met with silence."""
        noise = _start(suite, self._key, initiator=False, ephemeral=self._ephemeral)
        try:
            payload = noise.read_message(bytes(memoryview(message)[LENGTH_SIZE + MAC1_SIZE :]))
        except _NOISE_FAILURES as error:
            raise HandshakeError("message 1 does not authenticate") from error
        node = PublicKey(noise.noise_protocol.handshake_state.rs.public_bytes)
        found = _read_payload(bytes(payload), {FrameType.HELLO, FrameType.ENROLL})
        try:
            hello = Hello.decode(found[FrameType.HELLO])
            raw = found.get(FrameType.ENROLL)
            enroll = Enroll.decode(raw) if raw is not None else None
        except RemoteError as error:
            raise HandshakeError(str(error)) from error
        return Request(noise, suite, node, hello, enroll, self._padding)


class Request:
    """A message 1 that authenticated: who asks, and with what."""

    def __init__(
        self,
        noise: NoiseConnection,
        suite: Suite,
        node: PublicKey,
        hello: Hello,
        enroll: Enroll | None,
        padding: bytes | None,
    ) -> None:
        self._noise = noise
        self._suite = suite
        self._padding = padding
        self.node = node
        self.hello = hello
        self.enroll = enroll

    def write_message_2(
        self, hello: Hello, enroll_ok: EnrollOk | None = None
    ) -> tuple[bytes, Session]:
        """The answer and the session. Raises `LocalError` on a second call."""
        if self._noise.handshake_finished:
            raise LocalError("message 2 is already written")
        payload = encode_frame(FrameType.HELLO, 0, hello.encode())
        if enroll_ok is not None:
            payload += encode_frame(FrameType.ENROLL_OK, 0, enroll_ok.encode())
        padding = random_padding() if self._padding is None else self._padding
        message = bytes(self._noise.write_message(payload + padding))
        answer = len(message).to_bytes(LENGTH_SIZE, "big") + message
        return answer, _session(self._noise, self._suite, hello, self.hello)


def _start(
    suite: Suite,
    key: PrivateKey,
    *,
    initiator: bool,
    remote: PublicKey | None = None,
    ephemeral: PrivateKey | None = None,
) -> NoiseConnection:
    noise = NoiseConnection.from_name(suite.value)
    if initiator:
        noise.set_as_initiator()
    else:
        noise.set_as_responder()
    noise.set_prologue(PROLOGUE)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, key.raw)
    if remote is not None:
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote.raw)
    if ephemeral is not None:
        noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral.raw)
    noise.start_handshake()
    return noise


def _session(noise: NoiseConnection, suite: Suite, local: Hello, remote: Hello) -> Session:
    protocol = noise.noise_protocol
    return Session(
        RecordSealer(suite, bytes(protocol.cipher_state_encrypt.k)),
        RecordOpener(suite, bytes(protocol.cipher_state_decrypt.k)),
        suite,
        local,
        remote,
    )


def _read_payload(payload: bytes, allowed: set[FrameType]) -> dict[int, memoryview]:
    """The frames of a handshake payload by type: each once, HELLO first."""
    try:
        frames = parse_frames(payload)
    except RemoteError as error:
        raise HandshakeError(str(error)) from error
    found: dict[int, memoryview] = {}
    for kind, stream_id, content in frames:
        if kind == FrameType.PADDING or kind >= FIRST_IGNORABLE_TYPE:
            continue
        if kind not in allowed or kind in found or stream_id != 0:
            raise HandshakeError(f"frame 0x{kind:02x} has no place in this handshake message")
        if not found and kind != FrameType.HELLO:
            raise HandshakeError("the handshake message does not begin with HELLO")
        found[kind] = content
    if not found:
        raise HandshakeError("the handshake message has no HELLO")
    return found
