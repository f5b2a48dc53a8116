"""Transport records: `length u16 | ciphertext`, one AEAD call each.

The keys come from the Noise handshake; the AEAD is `cryptography`'s own, because
noiseprotocol's per-message path costs more than the encryption (decision 0002).
The nonce is Noise's: a 64-bit counter per direction, never reset. Every
`REKEY_AFTER_RECORDS` records the key becomes Noise's REKEY(k) (section 4.2 of
the Noise specification, revision 34).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import Enum
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from .codec import Buffer
from .errors import GoAwayReason, LocalError, RemoteError
from .limits import (
    DH_SIZE,
    LENGTH_SIZE,
    MAX_PLAINTEXT,
    REKEY_AFTER_RECORDS,
    TAG_SIZE,
)

_LENGTH: Final = Struct(">H")
_MAX_NONCE: Final = (1 << 64) - 1
"""Reserved for REKEY; a counter never gets there."""


class Suite(Enum):
    """A Noise cipher suite; the value is the Noise protocol name."""

    AESGCM_SHA256 = b"Noise_IK_25519_AESGCM_SHA256"
    CHACHAPOLY_BLAKE2S = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"

    @property
    def nonce(self) -> Struct:
        """How Noise section 12 writes the counter n: `pack(0, n)` gives 12 bytes."""
        return _NONCES[self]

    def aead(self, key: bytes) -> AESGCM | ChaCha20Poly1305:
        return AESGCM(key) if self is Suite.AESGCM_SHA256 else ChaCha20Poly1305(key)

    def rekey(self, key: bytes) -> bytes:
        """Noise REKEY(k): the first 32 bytes of ENCRYPT(k, 2^64-1, "", zeros)."""
        zeros = bytes(DH_SIZE)
        return self.aead(key).encrypt(self.nonce.pack(0, _MAX_NONCE), zeros, None)[:DH_SIZE]


_NONCES: Final = {
    Suite.AESGCM_SHA256: Struct(">IQ"),
    Suite.CHACHAPOLY_BLAKE2S: Struct("<IQ"),
}


def fastest_suite() -> Suite:
    """The suite that this CPU seals a full record faster with; takes about a millisecond."""

    def seconds(suite: Suite) -> float:
        aead, nonce, plaintext = suite.aead(bytes(DH_SIZE)), bytes(12), bytes(MAX_PLAINTEXT)
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            aead.encrypt(nonce, plaintext, None)
            best = min(best, time.perf_counter() - start)
        return best

    return min(Suite, key=seconds)


class RecordSplitter:
    """Cuts a stream of bytes into records, whatever the pieces it comes in."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: Buffer) -> Iterator[memoryview]:
        """The ciphertexts that are whole with these bytes; what is not whole is kept.

        They are views into `data` where that is possible. Run it to its end, or use
        the splitter no more.
        """
        view = memoryview(data)
        position, size = 0, len(view)
        if self._partial:
            position = self._complete(view)
            if len(self._partial) < LENGTH_SIZE or self._missing:
                return
            whole, self._partial = self._partial, bytearray()
            yield memoryview(whole)[LENGTH_SIZE:]
        while (start := position + LENGTH_SIZE) <= size:
            end = start + (view[position] << 8 | view[position + 1])
            if end > size:
                break
            yield view[start:end]
            position = end
        self._partial += view[position:]

    @property
    def _missing(self) -> int:
        """Bytes that the partial record, its length known, still lacks."""
        return LENGTH_SIZE + (self._partial[0] << 8 | self._partial[1]) - len(self._partial)

    def _complete(self, view: memoryview) -> int:
        """Add to the partial record what belongs to it; how many bytes that was."""
        used = min(max(0, LENGTH_SIZE - len(self._partial)), len(view))
        self._partial += view[:used]
        if len(self._partial) < LENGTH_SIZE:
            return used
        piece = view[used : used + self._missing]
        self._partial += piece
        return used + len(piece)


class _Direction:
    """Key, counter and rekeying of one direction."""

    __slots__ = ("_aead", "_counter", "_key", "_pack", "_suite")

    def __init__(self, suite: Suite, key: bytes) -> None:
        self._suite = suite
        self._key = key
        self._aead = suite.aead(key)
        self._pack = suite.nonce.pack
        self._counter = 0

    def _advance(self) -> None:
        self._counter += 1
        if self._counter % REKEY_AFTER_RECORDS == 0:
            self._key = self._suite.rekey(self._key)
            self._aead = self._suite.aead(self._key)


class RecordSealer(_Direction):
    """Encrypts the records of one direction."""

    __slots__ = ()

    def seal(self, plaintext: Buffer) -> bytearray:
        """A whole record, length included, in a buffer that nothing will change.

        `plaintext` has at most `MAX_PLAINTEXT` bytes (`LocalError` otherwise).
        """
        size = len(plaintext)
        if size > MAX_PLAINTEXT:
            raise LocalError(f"a record of {size} bytes is over {MAX_PLAINTEXT}")
        record = bytearray(LENGTH_SIZE + size + TAG_SIZE)
        _LENGTH.pack_into(record, 0, size + TAG_SIZE)
        self._aead.encrypt_into(
            self._pack(0, self._counter), plaintext, None, memoryview(record)[LENGTH_SIZE:]
        )
        self._advance()
        return record


class RecordOpener(_Direction):
    """Decrypts the records of the other direction."""

    __slots__ = ()

    def open(self, ciphertext: Buffer) -> bytes:
        """The plaintext of one record, given without its length.

        Raises `RemoteError` (BAD_RECORD) if it is too short or does not
        authenticate: altered, replayed, reordered or missing a predecessor.
        """
        if len(ciphertext) < TAG_SIZE:
            raise RemoteError(
                GoAwayReason.BAD_RECORD, f"a record of {len(ciphertext)} bytes is no record"
            )
        try:
            plaintext = self._aead.decrypt(self._pack(0, self._counter), ciphertext, None)
        except InvalidTag:
            raise RemoteError(
                GoAwayReason.BAD_RECORD, f"record {self._counter} does not authenticate"
            ) from None
        self._advance()
        return plaintext
