"""A web server to fetch from, as a process of its own: `python origin.py HOST`.

GET /bytes/N gives N bytes of a known pattern; PUT or POST anywhere gives the
SHA-256 of what came. Prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK = hashlib.shake_256(b"restunnel").digest(1 << 20)
"""One mebibyte that repeats."""


def pattern_digest(size: int) -> str:
    """SHA-256 of what GET /bytes/size gives."""
    digest = hashlib.sha256()
    for start in range(0, size, len(BLOCK)):
        digest.update(BLOCK[: size - start])
    return digest.hexdigest()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await _exchange(reader, writer):
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # clients come and go
    finally:
        writer.close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    request = await reader.readline()
    if not request:
        return False
    method, path, _ = request.decode().split()
    headers = {}
    while (line := await reader.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect") == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if method in ("PUT", "POST"):
        body = (await _digest(reader, headers)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return True
    size = int(path.rpartition("/")[2])
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for start in range(0, size, len(BLOCK)):
        writer.write(BLOCK[: size - start])
        await writer.drain()
    return True


async def _digest(reader: asyncio.StreamReader, headers: dict[str, str]) -> str:
    digest = hashlib.sha256()
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            digest.update(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
        return digest.hexdigest()
    left = int(headers.get("content-length", "0"))
    while left:
        piece = await reader.read(min(left, 1 << 18))
        if not piece:
            raise ConnectionError
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


async def _main(host: str) -> None:
    server = await asyncio.start_server(_serve, host, 0, limit=1 << 20, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def origin(host: str = "127.0.0.1") -> Iterator[int]:
    """A running server; its port."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), host], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(sys.argv[1]))
