"""Who may use the proxies: a client's password says who it is, its user name where it goes.

Passwords are made here, of 160 random bits, so a plain hash is enough to keep them;
looking one up costs a microsecond per connection.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from typing import Final

PASSWORD_BYTES: Final = 20
"""160 bits: nothing that guessing finds, and short enough for a configuration."""

ANONYMOUS: Final = ""
"""The account of clients without a password that is known."""


class AccessDeniedError(Exception):
    """A client that has to say who it is did not, or said it wrongly."""

    def __init__(self) -> None:
        super().__init__("a known password is needed (see `restunnel-hub client add`)")


class Access:
    """The accounts of the proxies' clients.

    `required` tells whether a client without one is turned away; without that, a known
    password only decides on whose account the traffic is counted.
    """

    def __init__(self, required: Callable[[], bool] = lambda: False) -> None:
        self._required = required
        self._accounts: dict[bytes, str] = {}

    @property
    def required(self) -> bool:
        """Whether a password is needed."""
        return self._required()

    def replace(self, accounts: Iterable[tuple[bytes, str]]) -> None:
        """All accounts there are: hash of the password, and name."""
        self._accounts = dict(accounts)

    def admit(self, password: str | None) -> str:
        """The account of a client. Raises `AccessDeniedError`."""
        account = self._accounts.get(hash_password(password)) if password else None
        if account is None and self.required:
            raise AccessDeniedError
        return account if account is not None else ANONYMOUS


def new_password() -> str:
    """A password for one client."""
    return secrets.token_hex(PASSWORD_BYTES)


def hash_password(password: str) -> bytes:
    """What is kept of it."""
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest()
