"""X25519 static keys (RFC 7748): what identifies a hub and a node."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from .limits import DH_SIZE


def to_base64(raw: bytes) -> str:
    """URL-safe base64 without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def from_base64(text: str, size: int) -> bytes:
    """Exactly `size` bytes from `to_base64`'s one spelling of them; `ValueError` otherwise."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url") from error
    if len(raw) != size or to_base64(raw) != text:
        raise ValueError(f"not {size} bytes of base64url")
    return raw


@dataclass(frozen=True, slots=True)
class PublicKey:
    """32 bytes of X25519 public key."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DH_SIZE:
            raise ValueError(f"a public key has {DH_SIZE} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """From `str(key)`; raises `ValueError`."""
        return cls(from_base64(text, DH_SIZE))

    def __str__(self) -> str:
        return to_base64(self.raw)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits for people and logs; never used to authenticate."""
        return hashlib.sha256(self.raw).hexdigest()[:16]


@dataclass(frozen=True, slots=True, repr=False)
class PrivateKey:
    """32 bytes of X25519 private key. Its `repr` shows the public half only."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DH_SIZE:
            raise ValueError(f"a private key has {DH_SIZE} bytes, not {len(self.raw)}")

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the operating system's random source."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return cls(X25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> PublicKey:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        key = X25519PrivateKey.from_private_bytes(self.raw)
        return PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public})"
