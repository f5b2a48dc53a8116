"""Countries of addresses, from a database that the operator provides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import maxminddb

from restunnel_protocol.program.errors import ExitCode, ProgramError


class Countries:
    """A MaxMind DB file with `country.iso_code`, or with `country_code` as some have it."""

    def __init__(self, path: Path) -> None:
        """Raises `ProgramError` (usage) if the file cannot be used."""
        try:
            self._reader = maxminddb.open_database(path)
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise ProgramError(
                f"cannot use the country database {path}: {error}",
                hint="geoip takes an MMDB file, as GeoLite2-Country.mmdb",
                code=ExitCode.USAGE,
            ) from error

    def of(self, address: str) -> str | None:
        """Two letters; None if the address is not in the database, or is none."""
        try:
            found: Any = self._reader.get(address)
        except ValueError:
            return None
        if not isinstance(found, dict):
            return None
        country = found.get("country", found.get("country_code"))
        code = country.get("iso_code") if isinstance(country, dict) else country
        return code.upper() if isinstance(code, str) else None

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
