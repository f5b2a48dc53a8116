"""Every number of the wire protocol, with its unit and where it comes from.

Normative values (a peer may rely on them) come first; the tuning of this
implementation, which may change without a new protocol version, follows.
"""

from __future__ import annotations

from typing import Final

# --- normative: docs/protocol.md -------------------------------------------------

PROTOCOL_NAME: Final = b"restunnel"
"""Bound into the Noise prologue together with the major version."""

PROTOCOL_MAJOR: Final = 1
"""A different major version has a different prologue, so it meets silence."""

PROTOCOL_MINOR: Final = 0
"""Announced in HELLO; the tunnel speaks the smaller of both ends' minors."""

LENGTH_SIZE: Final = 2
"""Bytes of the length (u16) before each handshake message and record."""

MAC1_SIZE: Final = 16
"""Bytes of mac1, a keyed BLAKE2s-128 (WireGuard paper, section 5.4.4)."""

DH_SIZE: Final = 32
"""Bytes of an X25519 public or private key (RFC 7748, section 5)."""

TAG_SIZE: Final = 16
"""Bytes of an AEAD tag; the same for AES-256-GCM and ChaCha20-Poly1305."""

NOISE_IK_OVERHEAD_1: Final = DH_SIZE + DH_SIZE + TAG_SIZE + TAG_SIZE
"""Noise_IK message 1 without its payload: e, encrypted s, payload tag."""

NOISE_IK_OVERHEAD_2: Final = DH_SIZE + TAG_SIZE
"""Noise_IK message 2 without its payload: e, payload tag."""

MIN_MESSAGE_1: Final = MAC1_SIZE + NOISE_IK_OVERHEAD_1
"""Smallest value of message 1's length field, in bytes."""

MAX_MESSAGE_1: Final = 1024
"""Largest value of message 1's length field: all a hub ever holds of a stranger."""

MIN_MESSAGE_2: Final = NOISE_IK_OVERHEAD_2
MAX_MESSAGE_2: Final = 1024
"""Bounds of message 2's length field, in bytes."""

MAX_RECORD: Final = 65_535
"""Largest ciphertext of a record: what a u16 can say, and Noise's own limit."""

MAX_PLAINTEXT: Final = MAX_RECORD - TAG_SIZE
"""Largest plaintext of a record: 65,519 bytes."""

FRAME_HEADER_SIZE: Final = 9
"""type u8, id u32, length u32."""

MAX_PAYLOAD: Final = MAX_PLAINTEXT - FRAME_HEADER_SIZE
"""Largest payload of a frame: 65,510 bytes, so that each frame fits one record."""

REKEY_AFTER_RECORDS: Final = 1 << 16
"""Each direction calls Noise Rekey() after this many records (at most 4 GiB a key)."""

MAX_STREAM_ID: Final = (1 << 32) - 1
MAX_WINDOW: Final = (1 << 31) - 1
"""Largest credit a sender may ever hold for a stream, in bytes (as in HTTP/2)."""

TOKEN_SIZE: Final = 32
"""Bytes of an enrolment token: 256 bits."""

MAX_NAME: Final = 255
"""Largest host name, in bytes: what a u8 can say."""

MAX_NODE_NAME: Final = 64
"""Largest name of a node, id of a node, or agent, in bytes of UTF-8."""

MAX_STATUS: Final = 8192
"""Largest STATUS document, in bytes of JSON."""

MAX_DETAIL: Final = 255
"""Largest explanation in CONNECT_FAIL, CLOSE and GOAWAY, in bytes of UTF-8."""

MAX_LINK: Final = 1024
"""Largest pairing link, in characters."""

MAX_LINK_ADDRESSES: Final = 8
"""Most hub addresses in one pairing link."""

TOKEN_LIFETIME: Final = 15 * 60.0
"""Seconds for which an enrolment token is good (architecture, Pairing)."""

PING_INTERVAL: Final = 30.0
"""Seconds without a byte from the peer before a PING (architecture)."""

PING_TIMEOUT: Final = 10.0
"""Seconds without a byte after that PING before the tunnel is dead (architecture)."""

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds that a node waits for message 2 before it calls the hub silent."""

# --- tuning: this implementation's own -------------------------------------------

FIRST_WINDOW: Final = 16 * 1024
"""Bytes of credit announced in HELLO: what each of thousands of streams may cost for sure."""

START_WINDOW: Final = 256 * 1024
"""Bytes that a window begins with while there is room: one page load without waiting."""

START_SHARE: Final = 64
"""A new stream may take this part (one in ...) of the room that the budget has left."""

GROWTH_SHARE: Final = 2
"""The same for a window that doubles."""

WINDOW_IDLE: Final = 10.0
"""Seconds without data, at least, after which a sender returns credit."""

MAX_RECEIVE_WINDOW: Final = 32 * 1024 * 1024
"""Bytes that one stream's window may grow to: 150 MB/s at 100 ms round trip, with a margin."""

TUNNEL_WINDOW_BUDGET: Final = 64 * 1024 * 1024
"""Bytes that all windows of a tunnel promise together; first windows alone may exceed it."""

PROCESS_WINDOW_BUDGET: Final = 256 * 1024 * 1024
"""The same for all tunnels of a process."""

MAX_STREAMS: Final = 16_384
"""Streams open at once that a node accepts in one tunnel."""

OUTPUT_TARGET: Final = 2 * MAX_RECORD
"""Bytes of sealed records held ready; beyond that data waits unsealed, by stream."""

OUTPUT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of sealed records after which a peer that does not read is given up."""

PENDING_HIGH: Final = 128 * 1024
PENDING_LOW: Final = 32 * 1024
"""Bytes queued on a stream at which its source should stop and may go on."""

PENDING_SMALL: Final = 16 * 1024
"""Bytes that a source reads at once, and queues, where credit or memory is short."""

PENDING_TOTAL: Final = 16 * 1024 * 1024
"""Bytes queued on all streams of a tunnel from which on memory is short."""

MAX_OUTSTANDING_PINGS: Final = 4
"""PINGs of ours whose PONG we still remember."""

PADDING_SPREAD: Final = 128
"""Handshake messages carry 0 to this many random bytes of PADDING."""
