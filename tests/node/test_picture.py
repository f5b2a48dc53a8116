"""Pairing links from pictures."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import qrcode
from PIL import Image

from restunnel_node import picture
from restunnel_node.picture import read_link
from restunnel_protocol import Endpoint, PairingLink, PrivateKey
from restunnel_protocol.program.errors import ProgramError


def link(number: int = 0) -> str:
    endpoints = (Endpoint("hub.example.org", 9000), Endpoint("2001:db8::1", 9000))
    key = PrivateKey.generate().public
    return str(PairingLink(endpoints, key, bytes((number,)) * 32, int(time.time())))


def code(text: str) -> Image.Image:
    return qrcode.make(text, box_size=6).get_image().convert("RGB")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
def test_a_screenshot_gives_its_link(tmp_path: Path, suffix: str):
    text, path = link(), tmp_path / f"code.{suffix}"
    code(text).save(path)
    assert read_link(path) == text


def test_a_tilted_noisy_photo_in_light_on_dark_gives_its_link(tmp_path: Path):
    text = link()
    screen = Image.new("RGB", (1200, 900), (40, 40, 60))
    screen.paste(code(text), (200, 100))
    photo = screen.rotate(7, expand=True, fillcolor=(90, 80, 70)).convert("L")
    noise = random.Random(1)
    grey = bytes(min(255, max(0, value + noise.randint(-30, 30))) for value in photo.tobytes())
    path = tmp_path / "photo.png"
    Image.frombytes("L", photo.size, grey).save(path)
    assert read_link(path) == text


def test_pictures_without_just_one_link_are_refused(tmp_path: Path, monkeypatch):
    path = tmp_path / "picture.png"
    Image.new("L", (100, 100), 255).save(path)
    with pytest.raises(ProgramError, match="no pairing link in"):
        read_link(path)
    code("https://example.org/").save(path)
    with pytest.raises(ProgramError, match="no pairing link in"):
        read_link(path)
    both = Image.new("RGB", (1600, 800), "white")
    both.paste(code(link(1)), (0, 0))
    both.paste(code(link(2)), (800, 0))
    both.save(path)
    with pytest.raises(ProgramError, match="more than one pairing link"):
        read_link(path)
    monkeypatch.setattr(picture, "MAX_PIXELS", 100)
    with pytest.raises(ProgramError, match="too large a picture"):
        read_link(path)


def test_what_is_no_picture_is_refused(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("not a picture")
    with pytest.raises(ProgramError, match="is no picture"):
        read_link(path)
    with pytest.raises(ProgramError, match="cannot read"):
        read_link(tmp_path)
    cut = tmp_path / "cut.png"
    code(link()).save(cut)
    cut.write_bytes(cut.read_bytes()[:300])
    with pytest.raises(ProgramError, match="cannot read"):
        read_link(cut)
