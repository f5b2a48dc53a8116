"""QR codes by `qrcode`: for terminals as text, for pages as SVG."""

from __future__ import annotations

import io
from typing import Any

import qrcode
from qrcode.constants import ERROR_CORRECT_L


def _code(text: str) -> Any:
    code = qrcode.QRCode(error_correction=ERROR_CORRECT_L, border=2)
    code.add_data(text)
    code.make(fit=True)
    return code


def terminal_qr(text: str) -> str:
    """Two modules a character, in half blocks; readable on dark and light terminals."""
    output = io.StringIO()
    # Inverted, because most terminals are dark and scanners want dark modules on light.
    _code(text).print_ascii(out=output, invert=True)
    lines = (line.rstrip("\n") for line in output.getvalue().splitlines())
    return "\n".join(line for line in lines if line)


def svg_qr(text: str) -> str:
    """An SVG element for an HTML page."""
    from qrcode.image.svg import SvgPathImage

    image = _code(text).make_image(image_factory=SvgPathImage)
    svg: str = image.to_string(encoding="unicode")
    return svg
