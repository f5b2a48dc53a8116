"""Writes a MaxMind DB (format 2.0), for tests of what reads one."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"


def write_country_database(path: Path, countries: Mapping[str, str]) -> None:
    """IPv4 networks and their countries, as GeoLite2-Country has them."""
    tree: list[list[Any]] = [[None, None]]
    codes = sorted(set(countries.values()))
    entries, data = {}, b""
    for code in codes:
        entries[code] = len(data)
        data += _encode({"country": {"iso_code": code}})
    for text, code in countries.items():
        network = ip_network(text)
        bits = f"{int(network.network_address):032b}"[: network.prefixlen]
        node = 0
        for bit in bits[:-1]:
            following = tree[node][int(bit)]
            if following is None:
                tree.append([None, None])
                following = tree[node][int(bit)] = len(tree) - 1
            node = following
        tree[node][int(bits[-1])] = ("data", code)
    count = len(tree)

    def record(value: Any) -> bytes:
        if value is None:
            number = count
        elif isinstance(value, tuple):
            number = count + 16 + entries[value[1]]
        else:
            number = value
        return number.to_bytes(4, "big")

    metadata = {
        "binary_format_major_version": ("u16", 2),
        "binary_format_minor_version": ("u16", 0),
        "build_epoch": ("u64", 1_700_000_000),
        "database_type": "Test-Country",
        "description": {"en": "Countries of a test"},
        "languages": ["en"],
        "ip_version": ("u16", 4),
        "node_count": ("u32", count),
        "record_size": ("u16", 32),
    }
    nodes = b"".join(record(left) + record(right) for left, right in tree)
    path.write_bytes(nodes + bytes(16) + data + MARKER + _encode(metadata))


def _encode(value: Any) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_encode(key) + _encode(item) for key, item in value.items())
        return bytes(((7 << 5) | len(value),)) + items
    if isinstance(value, list):  # an extended type: its number follows, less 7
        return bytes((len(value), 11 - 7)) + b"".join(_encode(item) for item in value)
    if isinstance(value, str):
        raw = value.encode()
        if len(raw) < 29:
            return bytes(((2 << 5) | len(raw),)) + raw
        return bytes(((2 << 5) | 29, len(raw) - 29)) + raw
    kind, number = value
    raw = number.to_bytes(8, "big").lstrip(b"\0")
    if kind == "u64":  # extended, too
        return bytes((len(raw), 9 - 7)) + raw
    return bytes((({"u16": 5, "u32": 6}[kind] << 5) | len(raw),)) + raw
