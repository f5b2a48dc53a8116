"""QR codes that scanners can read."""

from __future__ import annotations

import time

import zxingcpp

from restunnel_hub.qr import svg_qr, terminal_qr
from restunnel_protocol import Endpoint, PairingLink, PrivateKey

LINK = str(
    PairingLink(
        (Endpoint("hub.example.org", 9000), Endpoint("2001:db8::1", 9000)),
        PrivateKey.generate().public,
        bytes(range(32)),
        int(time.time()),
    )
)
SCALE = 4
"""Pixels of a module."""


def test_the_terminals_code_is_read_back_by_a_scanner():
    lines = terminal_qr(LINK).splitlines()
    rows = []
    for line in lines:
        rows.append([char in "█▀" for char in line])
        rows.append([char in "█▄" for char in line])
    width = len(rows[0])
    assert all(len(row) == width for row in rows)
    assert width <= 80
    pixels = b"".join(
        bytes(255 * light for light in row for _ in range(SCALE)) * SCALE for row in rows
    )
    image = memoryview(pixels).cast("B", (len(rows) * SCALE, width * SCALE))
    (code,) = zxingcpp.read_barcodes(image)
    assert code.text == LINK


def test_the_pages_code_is_one_svg_element():
    svg = svg_qr(LINK)
    assert svg.count("<svg") == 1
    assert "<script" not in svg
