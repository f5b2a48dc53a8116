"""A pairing link from a picture of its QR code: a screenshot, or a photo of the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from restunnel_protocol.program.errors import ProgramError, describe_os_error

MAX_PIXELS: Final = 50_000_000
"""More than a phone's camera takes."""

PREFIX: Final = "restunnel:"


def read_link(path: Path) -> str:
    """The link in a PNG, JPEG or other picture. Raises `ProgramError` if there is not just one."""
    try:
        import zxingcpp
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:  # they are left out where nobody builds them
        raise ProgramError(
            "pictures cannot be read on this system", hint="give the link itself, or - for stdin"
        ) from error
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ProgramError(f"{path} is too large a picture")
            grey = image.convert("L")
    except UnidentifiedImageError as error:
        raise ProgramError(
            f"{path} is no picture", hint="give the link, a picture of its QR code, or -"
        ) from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else str(error)
        raise ProgramError(f"cannot read {path}: {reason}") from error
    pixels = memoryview(grey.tobytes()).cast("B", (grey.height, grey.width))
    links = {code.text for code in zxingcpp.read_barcodes(pixels) if code.text.startswith(PREFIX)}
    if len(links) != 1:
        found = "no pairing link" if not links else "more than one pairing link"
        raise ProgramError(
            f"{found} in {path}", hint="the whole QR code must be seen, sharp and with its margin"
        )
    return links.pop()
