"""A node's way to a hub: which port answers, and how, decides what the node is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from restunnel_protocol import Endpoint, HandshakeError, Hello, PrivateKey, Responder
from restunnel_protocol.aio import HubSilentError, dial_hub

HUB, NODE = PrivateKey.generate(), PrivateKey.generate()


def answer_of(message_1: bytes) -> bytes:
    responder = Responder(HUB)
    request = responder.read_message_1(message_1, responder.recognise(message_1))
    return request.write_message_2(Hello(2, agent="hub"), None)[0]


@contextlib.asynccontextmanager
async def port(serve):
    """A server on a free port; `serve(reader, writer)` treats each connection."""

    async def treat(reader, writer) -> None:
        with contextlib.closing(writer):
            await serve(reader, writer)

    server = await asyncio.start_server(treat, "127.0.0.1", 0)
    async with asyncio.timeout(30), server:
        yield Endpoint(*server.sockets[0].getsockname())


async def dial(endpoint: Endpoint, timeout: float = 20.0):
    return await dial_hub(endpoint, NODE, HUB.public, Hello(1), timeout=timeout)


async def test_a_hub_that_answers_gives_a_session_and_what_came_after_it():
    async def serve(reader, writer) -> None:
        answer = answer_of(await reader.read(2000))
        writer.write(answer[:10])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(answer[10:] + b"first record")
        await reader.read()

    async with port(serve) as endpoint:
        dialled = await dial(endpoint)
        with dialled.sock as sock:
            assert dialled.session.remote.agent == "hub"
            assert dialled.enroll_ok is None
            rest = dialled.leftover
            while len(rest) < 12:
                rest += await asyncio.get_running_loop().sock_recv(sock, 100)
            assert rest == b"first record"


async def test_a_port_that_stays_silent_is_called_so():
    async def serve(reader, writer) -> None:
        await reader.read()

    async with port(serve) as endpoint:
        with pytest.raises(HubSilentError, match="no answer"):
            await dial(endpoint, timeout=0.1)


async def test_a_port_that_closes_is_no_hub():
    async def serve(reader, writer) -> None:
        await reader.read(1000)

    async with port(serve) as endpoint:
        with pytest.raises(HandshakeError, match="no hub does that"):
            await dial(endpoint)


async def test_another_programs_answer_is_no_hubs():
    async def serve(reader, writer) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await reader.read(1000)

    async with port(serve) as endpoint:
        with pytest.raises(HandshakeError, match="not a hub's"):
            await dial(endpoint)


async def test_a_port_that_nobody_listens_on_is_an_os_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(*listener.getsockname())
    with pytest.raises(ConnectionRefusedError):
        await dial(endpoint)


async def test_every_address_of_a_name_is_tried(monkeypatch):
    async def serve(reader, writer) -> None:
        writer.write(answer_of(await reader.read(2000)))
        await reader.read()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()
    async with port(serve) as endpoint:
        alive = (str(endpoint.host), endpoint.port)
        loop = asyncio.get_running_loop()

        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        names = {"two.example": [(*kind, dead), (*kind, alive)], "none.example": []}
        real = loop.getaddrinfo  # which uvloop asks about addresses, too

        async def getaddrinfo(host, *arguments, **options):
            if host in names:
                return names[host]
            return await real(host, *arguments, **options)

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        (await dial(Endpoint("two.example", 9000))).sock.close()
        with pytest.raises(OSError, match=r"no address for none\.example"):
            await dial(Endpoint("none.example", 9000))


async def test_a_cancelled_dial_leaves_no_socket_behind():
    accepted, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader, writer) -> None:
        accepted.set()
        await reader.read()
        gone.set()

    async with port(serve) as endpoint:
        task = asyncio.create_task(dial(endpoint))
        await accepted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
