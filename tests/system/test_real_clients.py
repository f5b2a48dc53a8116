"""The software that people point at a proxy, through both of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
import websockets
from aiohttp_socks import ProxyConnector

from support.browser import open_browser
from support.origin import BLOCK
from support.services import PATIENCE, Hub, Node, wait_until
from support.website import PARTS, Website, website

pytestmark = pytest.mark.xdist_group("real clients")  # what they need is built once

CLIENTS = Path(__file__).parent / "clients"
SIZE = 300_000
DIGEST = hashlib.sha256(BLOCK[:SIZE]).hexdigest()

both_proxies = pytest.mark.parametrize("kind", ["socks5h", "http"])
with_and_without_tls = pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])


@pytest.fixture(scope="module")
def site(
    shared_tunnel: tuple[Hub, Node], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Website]:
    """A website that the node may reach, with a repository to clone."""
    directory = tmp_path_factory.mktemp("site")
    make_repository(directory)
    with website(directory, directory / "files") as site:
        for port in (site.port, site.tls_port):
            shared_tunnel[1].allow(f"127.0.0.1:{port}")
        yield site


def make_repository(directory: Path) -> None:
    """A bare repository that can be cloned from a server of plain files."""

    def git(*arguments: str, where: Path) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=where, check=True, capture_output=True)

    source = directory / "source"
    source.mkdir()
    git("init", "--initial-branch=main", where=source)
    for number in range(20):
        (source / f"{number}.bin").write_bytes(BLOCK[: 10_000 * number + 1])
        git("add", ".", where=source)
        git("commit", "--message", f"number {number}", where=source)
    git("clone", "--bare", str(source), "files/repository.git", where=directory)
    git("update-server-info", where=directory / "files" / "repository.git")


def proxy(hub: Hub, kind: str) -> str:
    """The proxy's URL, with a user name and a password as many clients insist on."""
    return f"{kind}://session=real:x@{hub.listeners['http' if kind == 'http' else 'socks5']}"


@both_proxies
@with_and_without_tls
def test_requests(shared_tunnel, site, kind, tls):
    url = proxy(shared_tunnel[0], kind)
    with requests.Session() as session:
        session.trust_env = False
        session.proxies = {"http": url, "https": url}
        session.verify = str(site.ca)
        for _ in range(5):
            answer = session.get(site.url(f"/bytes/{SIZE}", tls=tls), timeout=PATIENCE)
            assert hashlib.sha256(answer.content).hexdigest() == DIGEST


@both_proxies
@with_and_without_tls
def test_httpx(shared_tunnel, site, kind, tls):
    context = ssl.create_default_context(cafile=str(site.ca))
    url = proxy(shared_tunnel[0], kind)
    with httpx.Client(proxy=url, verify=context, trust_env=False, timeout=PATIENCE) as client:
        for _ in range(5):
            answer = client.get(site.url(f"/bytes/{SIZE}", tls=tls))
            assert hashlib.sha256(answer.content).hexdigest() == DIGEST


@both_proxies
@with_and_without_tls
async def test_aiohttp_twenty_at_once(shared_tunnel, site, kind, tls):
    context = ssl.create_default_context(cafile=str(site.ca))
    url = proxy(shared_tunnel[0], kind)
    connector = ProxyConnector.from_url(url.replace("socks5h", "socks5"), rdns=True)
    options = {"connector": connector} if kind == "socks5h" else {}
    more = {"proxy": url} if kind == "http" else {}
    async with aiohttp.ClientSession(**options) as session:

        async def fetch() -> str:
            page = site.url(f"/bytes/{SIZE}", tls=tls)
            async with session.get(page, ssl=context, **more) as answer:
                return hashlib.sha256(await answer.read()).hexdigest()

        assert await asyncio.gather(*(fetch() for _ in range(20))) == [DIGEST] * 20


@both_proxies
async def test_a_websocket_of_python(shared_tunnel, site, kind):
    url = proxy(shared_tunnel[0], kind)
    address = site.url("/ws").replace("http://", "ws://")
    async with websockets.connect(address, proxy=url) as socket:
        for size in (0, 1, 70_000):
            await socket.send(BLOCK[:size])
            assert await socket.recv() == BLOCK[:size]
        await socket.send("hello")
        assert await socket.recv() == "hello"


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built client."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    path = tmp_path_factory.mktemp("go") / "fetch"
    subprocess.run(
        ["go", "build", "-o", str(path), "."],
        cwd=CLIENTS / "go",
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"},
        check=True,
        timeout=120,
    )
    return path


@both_proxies
def test_go(shared_tunnel, site, go_client, kind):
    urls = [site.url(f"/bytes/{SIZE}", tls=tls) for tls in (False, True)]
    url = proxy(shared_tunnel[0], kind).replace("socks5h", "socks5")  # Go's resolves at the proxy
    command = [go_client, site.ca, url, *urls]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"200 {DIGEST}"] * 20


@pytest.fixture(scope="module")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client with what it needs from npm."""
    if shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "fetch.mjs"):
        shutil.copy(CLIENTS / name, directory)
    quietly = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    try:
        done = subprocess.run(
            ["npm", "install", *quietly], cwd=directory, capture_output=True, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm's packages do not arrive")
    if any(code in done.stderr for code in ("ENOTFOUND", "ECONNREFUSED", "EAI_AGAIN", "ETIMEDOUT")):
        pytest.skip("npm's registry cannot be reached")
    assert done.returncode == 0, done.stderr
    return directory / "fetch.mjs"


@both_proxies
def test_undici(shared_tunnel, site, node_client, kind):
    url = proxy(shared_tunnel[0], kind)
    done = subprocess.run(
        ["node", str(node_client), url, site.url(f"/bytes/{SIZE}")],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"200 {DIGEST}"] * 10


@both_proxies
def test_git_clones(shared_tunnel, site, kind, tmp_path):
    url = proxy(shared_tunnel[0], kind)
    repository = site.url("/files/repository.git")
    done = subprocess.run(
        ["git", "-c", f"http.proxy={url}", "clone", "--quiet", repository, tmp_path / "clone"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clone" / "19.bin").read_bytes() == BLOCK[:190_001]


@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_a_browser_loads_a_page_of_many_parts_and_talks_by_websocket(shared_tunnel, site, kind):
    hub, _ = shared_tunnel
    before = hub.nodes()[0]["total_streams"]
    address = hub.listeners[kind]
    # Browsers take localhost past the proxy unless told otherwise.
    with open_browser(
        f"proxy-server={kind}://{address}", "proxy-bypass-list=<-loopback>"
    ) as chromium:
        chromium.call("POST", "/url", {"url": site.url("/page")})
        expected = f"{PARTS} parts, hello"
        wait_until(lambda: chromium.call("GET", "/title") == expected, expected)
    assert hub.nodes()[0]["total_streams"] > before
