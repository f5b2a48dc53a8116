"""A website on 127.0.0.1: pages with many parts, a WebSocket that echoes, files; also by TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .origin import BLOCK

PARTS = 50
"""Subresources of the page."""

PAGE = """<!doctype html><title>loading</title><script>
let parts = 0;
const report = (text) => { document.title = text; };
window.part = () => { parts += 1; };
window.onload = () => {
  const socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = (event) => report(`${parts} parts, ${event.data}`);
  socket.onerror = () => report("the WebSocket failed");
};
</script>""" + "".join(f'<script src="/part/{n}.js"></script>' for n in range(PARTS))


@dataclass(frozen=True)
class Website:
    """Where it is; `ca` is the file that its certificate is checked with."""

    port: int
    tls_port: int
    ca: Path

    def url(self, path: str, *, tls: bool = False) -> str:
        return (
            f"https://127.0.0.1:{self.tls_port}{path}"
            if tls
            else f"http://127.0.0.1:{self.port}{path}"
        )


async def _bytes(request: web.Request) -> web.Response:
    return web.Response(body=BLOCK[: int(request.match_info["size"])])


async def _page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def _part(request: web.Request) -> web.Response:
    # Some padding, so that a part takes more than one packet.
    return web.Response(text="window.part();" + " " * 20_000, content_type="text/javascript")


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


@contextlib.contextmanager
def website(directory: Path, files: Path | None = None) -> Iterator[Website]:
    """Serve in a thread of its own; `files` are below /files/."""
    certificate, ca = _certificate(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    app = web.Application()
    app.add_routes(
        [
            web.get("/bytes/{size}", _bytes),
            web.get("/page", _page),
            web.get("/part/{name}", _part),
            web.get("/ws", _socket),
            *([web.static("/files", files)] if files is not None else []),
        ]
    )
    loop = asyncio.new_event_loop()
    ports: list[int] = []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app)
        await runner.setup()
        for ssl_context in (None, context):
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
            await site.start()
        ports.extend(address[1] for address in runner.addresses)
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Website(ports[0], ports[1], ca)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0.1))  # transports close a turn after they are told
        loop.close()


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1: with its key, and alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's website")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    alone = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with_key, ca = directory / "website.pem", directory / "ca.pem"
    with_key.write_bytes(private + alone)
    ca.write_bytes(alone)
    return with_key, ca
