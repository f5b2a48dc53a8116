"""The doorkeeper: bounded memory, bounded descriptors, and it lets the right ones in."""

from __future__ import annotations

import asyncio
import socket

import pytest

from restunnel_hub.doorkeeper import Doorkeeper
from restunnel_protocol import Hello, Initiator, PrivateKey, Responder

HUB = PrivateKey.generate()


@pytest.fixture
def door():
    """Makes doorkeepers; what they admitted is in `admitted`."""
    made = []

    def make(max_held: int = 100):
        sock = socket.create_server(("127.0.0.1", 0))
        keeper = Doorkeeper(Responder(HUB), lambda *args: keeper.admitted.append(args), max_held)
        keeper.admitted = []
        keeper.address = sock.getsockname()
        keeper.listen(sock)
        made.append(keeper)
        return keeper

    yield make
    for keeper in made:
        keeper.close()
        for sock, *_ in keeper.admitted:
            sock.close()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def message_1() -> bytes:
    return Initiator(PrivateKey.generate(), HUB.public, Hello(1)).write_message_1()


async def test_a_whole_message_1_is_admitted_in_pieces_too(door):
    keeper = door()
    message = message_1()
    with socket.create_connection(keeper.address) as sock:
        for byte in message:
            sock.sendall(bytes((byte,)))
            await asyncio.sleep(0)
        await until(lambda: keeper.admitted)
    assert keeper.admitted[0][1] == message
    assert keeper.admitted[0][3] == "127.0.0.1"
    assert keeper.held == 0


async def test_who_is_turned_away_is_held_like_any_other(door):
    keeper = door()
    with socket.create_connection(keeper.address) as sock:
        sock.sendall(message_1())
        await until(lambda: keeper.admitted)
        keeper.turn_away(keeper.admitted.pop()[0])
        sock.sendall(b"still there?")
        await asyncio.sleep(0.1)
        assert keeper.held == 1
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)


async def test_half_closed_strangers_give_way_to_newer_ones(door):
    keeper = door(max_held=40)
    sockets = [socket.create_connection(keeper.address) for _ in range(30)]
    for sock in sockets:
        sock.shutdown(socket.SHUT_WR)
    await until(lambda: keeper.held == 10)
    for sock in sockets:
        sock.close()


async def test_accepting_pauses_at_the_limit_and_goes_on_below_it(door):
    keeper = door(max_held=5)
    sockets = [socket.create_connection(keeper.address) for _ in range(9)]
    await until(lambda: keeper.held == 5)
    await asyncio.sleep(0.3)
    assert keeper.held == 5
    from support.services import reset

    for sock in sockets[:5]:
        reset(sock)
    await until(lambda: keeper.held == 4)
    for sock in sockets[5:]:
        reset(sock)
    await until(lambda: keeper.held == 0)


async def test_a_strangers_megabyte_is_not_kept(door):
    keeper = door()
    with socket.create_connection(keeper.address) as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(sock, b"\x02\x00" + bytes(1 << 20))
        await until(lambda: keeper.held == 1)
        visitor = next(iter(keeper._visitors.values()))
        await until(lambda: visitor.received is None)
