"""Debian's Chromium under its driver."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from .services import wait_until


class WebDriver:
    """A real browser, by the W3C WebDriver protocol."""

    def __init__(self, port: int, *more: str) -> None:
        """`more`: flags of Chromium beside those that every test wants."""
        self.base = f"http://127.0.0.1:{port}/session"
        flags = ["headless", "no-sandbox", "disable-gpu", "no-first-run"]
        flags += [
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            *more,
        ]
        options = {"args": [f"--{flag}" for flag in flags]}
        wishes = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.base += "/" + self.call("POST", "", wishes)["sessionId"]

    def call(self, method: str, path: str, body: dict | None = None):
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        with urllib.request.urlopen(request) as response:
            return json.load(response)["value"]

    def find(self, selector: str) -> str:
        wishes = {"using": "css selector", "value": selector}
        found = wait_until(lambda: self.call("POST", "/elements", wishes), selector)
        return "/element/" + next(iter(found[0].values()))


@contextlib.contextmanager
def open_browser(*flags: str) -> Iterator[WebDriver]:
    """A browser of the test's own, started with these flags. Skips where there is none."""
    if not shutil.which("chromedriver"):
        pytest.skip("chromium-driver is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "started successfully" in line:
            break
    driver = WebDriver(port, *flags)
    try:
        yield driver
    finally:
        driver.call("DELETE", "")
        process.terminate()
        process.communicate()
