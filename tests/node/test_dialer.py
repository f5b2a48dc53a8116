"""Dialling: judged addresses only, the right reason for each failure, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from restunnel_node.dialer import Dialer, DialError
from restunnel_node.resolver import Resolver
from restunnel_protocol import ConnectFailReason, ExitPolicy, Rule, Target


class Names(Resolver):
    """Answers from a table, and counts what it is asked."""

    def __init__(self, **names) -> None:
        super().__init__()
        self.names = names
        self.asked: list[str] = []

    async def resolve(self, name, port, timeout):
        self.asked.append(name)
        answer = self.names[name.partition(".")[0]]
        if isinstance(answer, Exception):
            raise answer
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in answer
        ]


def dialer(*allow: str, resolver: Resolver | None = None, **options) -> Dialer:
    policy = ExitPolicy(tuple(Rule.parse("allow", text) for text in allow))
    return Dialer(lambda: policy, resolver or Names(), **options)


async def failure(dialer: Dialer, host: str, port: int = 80) -> ConnectFailReason:
    with pytest.raises(DialError) as caught:
        await dialer.dial(Target(host, port))
    return caught.value.reason


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


async def test_a_name_is_dialled_at_the_address_that_was_judged(listener):
    port = listener.getsockname()[1]
    names = Names(web=["10.0.0.1", "127.0.0.1"])  # only the second is allowed
    sock, address = await dialer(f"127.0.0.1:{port}", resolver=names).dial(Target("web", port))
    with sock:
        assert address == Target("127.0.0.1", port)
        assert sock.getpeername() == listener.getsockname()
        assert not sock.getblocking()


async def test_a_name_that_leads_home_is_refused_without_a_connection(listener):
    port = listener.getsockname()[1]
    names = Names(rebound=["127.0.0.1"], both=["127.0.0.1", "192.168.1.1", "::1"])
    for name in ("rebound.example", "both.example"):
        reason = await failure(dialer(resolver=names), name, port)
        assert reason is ConnectFailReason.NOT_ALLOWED
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_local_names_are_not_looked_up():
    names = Names()
    assert await failure(dialer(resolver=names), "nas.local") is ConnectFailReason.NOT_ALLOWED
    assert names.asked == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), ConnectFailReason.NAME_NOT_FOUND),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), ConnectFailReason.NAME_UNRESOLVED),
        (TimeoutError(), ConnectFailReason.NAME_UNRESOLVED),
        (UnicodeError("label too long"), ConnectFailReason.NAME_UNRESOLVED),
        ([], ConnectFailReason.NAME_NOT_FOUND),
    ],
)
async def test_failures_of_the_resolver_have_their_reason(answer, reason):
    assert await failure(dialer(resolver=Names(web=answer)), "web") is reason


async def test_a_refused_connection_is_told_as_such(listener):
    port = listener.getsockname()[1]
    listener.close()
    for host, names in (("127.0.0.1", Names()), ("web", Names(web=["127.0.0.1", "127.0.0.2"]))):
        reason = await failure(dialer("127.0.0.0/8", resolver=names), host, port)
        assert reason is ConnectFailReason.REFUSED


async def test_an_unreachable_network_is_told_as_such():
    reason = await failure(dialer("240.0.0.0/4"), "255.255.255.255")
    assert reason in (ConnectFailReason.NETWORK_UNREACHABLE, ConnectFailReason.GENERAL)


async def test_a_target_that_does_not_answer_is_given_up_and_leaves_no_socket(full_listener):
    port = full_listener.getsockname()[1]
    before = len(os.listdir("/proc/self/fd"))
    slow = dialer("127.0.0.1", connect_timeout=0.2)
    assert await failure(slow, "127.0.0.1", port) is ConnectFailReason.TIMEOUT
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_cancelled_dial_leaves_no_socket(full_listener):
    port = full_listener.getsockname()[1]
    before = len(os.listdir("/proc/self/fd"))
    task = asyncio.ensure_future(dialer("127.0.0.1").dial(Target("127.0.0.1", port)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def full_listener():
    """A listener whose queue is full: further connections get no answer."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        held = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
            held.append(client)
        yield sock
        for client in held:
            client.close()


async def test_no_more_than_the_limit_is_dialled_at_once(full_listener):
    port = full_listener.getsockname()[1]
    limited = dialer("127.0.0.0/8", connect_timeout=0.3, max_dials=2)
    before = len(os.listdir("/proc/self/fd"))
    tasks = [asyncio.ensure_future(limited.dial(Target("127.0.0.1", port))) for _ in range(6)]
    await asyncio.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_resolver_answers_and_gives_up_by_itself(monkeypatch):
    resolver = Resolver(threads=2)
    infos = await resolver.resolve("localhost", 80, 5)
    assert any(info[4][0] == "127.0.0.1" for info in infos)
    with pytest.raises(socket.gaierror):
        await resolver.resolve("does-not-exist.invalid", 80, 10)

    import threading

    stuck = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: stuck.wait(20) and [])
    results = await asyncio.gather(
        *(resolver.resolve("dead.example", 80, 0.2) for _ in range(5)), return_exceptions=True
    )
    assert [type(result) for result in results] == [TimeoutError] * 5
    stuck.set()
