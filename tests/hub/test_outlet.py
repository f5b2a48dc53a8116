"""Dialling: which failures are tried on another node, and what is remembered of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from restunnel_hub.outlet import MAX_DIALS, Outlet, RoutePolicy
from restunnel_hub.proxy_request import Failure, ProxyRequest
from restunnel_hub.routing import RouteError, RouteFailure
from restunnel_protocol import CloseReason, ConnectFailReason, LocalError, Target

TARGET = Target("example.com", 80)


@dataclass(eq=False)
class FakeStream:
    handler: object
    closed: CloseReason | None = None

    def close(self, reason: CloseReason) -> None:
        self.closed = reason


@dataclass(eq=False)
class FakeNode:
    """A node of the registry whose streams the test answers by hand."""

    name: str
    group: str = "home"
    unavailable: RouteFailure | None = None
    suspect: bool = False
    load: int = 0
    address: str = "192.0.2.1"
    leaving: bool = False
    streams: list[FakeStream] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.name

    def open_stream(self, target: Target, handler: object) -> FakeStream:
        if self.leaving:
            raise LocalError("draining")
        self.streams.append(FakeStream(handler))
        return self.streams[-1]

    def suspect_for_a_while(self) -> None:
        self.suspect = True


class FakeRegistry:
    def __init__(self, *names: str) -> None:
        self.nodes = [FakeNode(name) for name in names]

    def all(self) -> list[FakeNode]:
        return self.nodes


class Recorder:
    """Handler of a dial."""

    def __init__(self) -> None:
        self.stream: FakeStream | None = None
        self.failure: Failure | None = None

    def dialled(self, stream: FakeStream) -> None:
        assert self.stream is None
        assert self.failure is None
        self.stream = stream

    def dial_failed(self, failure: Failure) -> None:
        assert self.stream is None
        assert self.failure is None
        self.failure = failure


def dial(*names: str, username: str = "", refused=lambda node, target: None):
    registry, recorder = FakeRegistry(*names), Recorder()
    outlet = Outlet(registry, RoutePolicy, None, refused)
    return registry.nodes, outlet, recorder, outlet.dial(ProxyRequest(TARGET, username), recorder)


def fail(node: FakeNode, reason: ConnectFailReason) -> None:
    node.streams[-1].handler.stream_failed(reason, "")


def test_a_dial_that_succeeds_hands_over_its_stream():
    (node,), outlet, recorder, _ = dial("a")
    node.streams[0].handler.stream_connected(TARGET)
    assert recorder.stream is node.streams[0]
    assert outlet.outcomes == {"connected": 1}


@pytest.mark.parametrize(
    "reason",
    [
        ConnectFailReason.BUSY,
        ConnectFailReason.GOING_AWAY,
        ConnectFailReason.NAME_UNRESOLVED,
        ConnectFailReason.NETWORK_UNREACHABLE,
    ],
)
def test_a_failure_of_the_node_is_tried_on_the_next(reason):
    (a, b), outlet, recorder, _ = dial("a", "b")
    fail(a, reason)
    b.streams[0].handler.stream_connected(TARGET)
    assert recorder.stream is b.streams[0]
    assert recorder.failure is None
    assert outlet.outcomes == {reason.name.lower(): 1, "connected": 1}


@pytest.mark.parametrize(
    "reason",
    [
        ConnectFailReason.REFUSED,
        ConnectFailReason.NOT_ALLOWED,
        ConnectFailReason.NAME_NOT_FOUND,
        ConnectFailReason.TIMEOUT,
        ConnectFailReason.HOST_UNREACHABLE,
        ConnectFailReason.GENERAL,
    ],
)
def test_a_failure_of_the_target_is_told_at_once(reason):
    (a, b), _, recorder, _ = dial("a", "b")
    fail(a, reason)
    assert recorder.failure.reason is reason
    assert b.streams == []


def test_a_lost_tunnel_is_tried_elsewhere_and_others_are_preferred_then():
    (a, b), outlet, recorder, _ = dial("a", "b")
    a.streams[0].handler.stream_closed(None, "tunnel lost")
    b.streams[0].handler.stream_connected(TARGET)
    assert recorder.stream is b.streams[0]
    assert (a.suspect, b.suspect) == (True, False)
    assert next(outlet.rank("")) is b


def test_without_a_node_that_did_better_nobody_is_suspected():
    (a, b), outlet, recorder, _ = dial("a", "b")
    fail(a, ConnectFailReason.NAME_UNRESOLVED)
    fail(b, ConnectFailReason.NAME_UNRESOLVED)
    assert recorder.failure.reason is ConnectFailReason.NAME_UNRESOLVED
    assert not a.suspect
    assert next(outlet.rank("")) is a


def test_a_route_to_one_node_is_not_tried_on_others():
    for username in ("node=a", "a", "fallback=no"):
        (a, b), _, recorder, _ = dial("a", "b", username=username)
        fail(a, ConnectFailReason.BUSY)
        assert recorder.failure.reason is ConnectFailReason.BUSY
        assert b.streams == []


def test_only_a_few_nodes_are_tried():
    nodes, _, recorder, _ = dial(*"abcdef")
    for node in nodes[:MAX_DIALS]:
        fail(node, ConnectFailReason.BUSY)
    assert recorder.failure is not None
    assert nodes[MAX_DIALS].streams == []


def test_a_cancelled_dial_closes_its_stream_and_says_nothing():
    (a,), _, recorder, running = dial("a")
    running.cancel()
    assert a.streams[0].closed is CloseReason.CANCELLED
    assert recorder.failure is None


def test_a_node_that_leaves_just_now_is_passed_over():
    registry, recorder = FakeRegistry("a", "b"), Recorder()
    registry.nodes[0].leaving = True
    outlet = Outlet(registry)
    outlet.dial(ProxyRequest(TARGET, ""), recorder)
    assert len(registry.nodes[1].streams) == 1
    assert outlet.open(ProxyRequest(TARGET, "optimistic=yes")) is registry.nodes[1].streams[1]
    registry.nodes[1].leaving = True
    for attempt in (outlet.open, lambda request: outlet.dial(request, recorder)):
        with pytest.raises(RouteError) as caught:
            attempt(ProxyRequest(TARGET, ""))
        assert caught.value.failure is RouteFailure.OFFLINE


def test_reasons_are_counted():
    told = []
    (a,), outlet, _, _ = dial("a", refused=lambda node, target: told.append((node, target)))
    fail(a, ConnectFailReason.NOT_ALLOWED)
    assert told == [(a, TARGET)]
    for username, _failure in (("x", "unknown"), ("=", "bad_name")):
        with pytest.raises(RouteError):
            outlet.dial(ProxyRequest(TARGET, username), Recorder())
    outlet.close()
    with pytest.raises(RouteError):
        outlet.dial(ProxyRequest(TARGET, ""), Recorder())
    assert outlet.outcomes == {"not_allowed": 1, "unknown": 1, "bad_name": 1, "stopping": 1}


@pytest.mark.parametrize(
    ("username", "words"),
    [
        ("", "the first of all nodes that is available"),
        ("a,fallback=no", "no other instead"),
        ("session=x,lifetime=10m", "for 10m from its first use"),
    ],
)
def test_a_decision_is_explained(username, words):
    assert words in Outlet(FakeRegistry("a")).why(username)


def test_spread_is_explained():
    outlet = Outlet(FakeRegistry("a"), lambda: RoutePolicy(spread=True))
    assert outlet.why("") == "the least loaded of all nodes"


def test_a_session_moves_on_when_its_lifetime_is_over(monkeypatch):
    now = 0.0
    outlet = Outlet(FakeRegistry(*"abcdefgh"), lambda: RoutePolicy(session_lifetime=100.0))
    monkeypatch.setattr(outlet._sessions, "_monotonic", lambda: now)

    def chosen(username: str) -> str:
        return next(outlet.rank(username)).name

    first, brief, forever = "session=x", "session=z,lifetime=10s", "session=y,lifetime=0"
    before = {username: chosen(username) for username in (first, forever)}
    now = 50.0
    assert chosen(first) == before[first]
    moved = set()
    for step in range(1, 20):
        now = step * 100.0
        moved.add(chosen(first))
        assert chosen(first) == chosen(first)
        assert chosen(forever) == before[forever]
    assert len(moved) > 3
    assert len({chosen(brief) for _ in range(3)}) == 1
