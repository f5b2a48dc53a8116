"""Which node serves: the user name's grammar, and the choice against a naive model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_hub.routing import (
    Route,
    RouteError,
    RouteFailure,
    parse_route,
    rank,
)
from restunnel_hub.session_clock import SessionClock


@dataclass(frozen=True)
class Candidate:
    id: str
    name: str
    group: str
    online: bool
    obstacle: RouteFailure | None = None
    suspect: bool = False
    load: int = 0
    address: str = "192.0.2.1"

    @property
    def unavailable(self) -> RouteFailure | None:
        return self.obstacle if self.online else RouteFailure.OFFLINE


PHONE = Candidate("1", "phone", "home", True)
LAPTOP = Candidate("2", "laptop", "home", True)
OFFICE = Candidate("3", "office", "", True)
ALL = [PHONE, LAPTOP, OFFICE]


def off(candidate: Candidate) -> Candidate:
    return replace(candidate, online=False)


def choose(route: Route, candidates, **options) -> Candidate:
    """The first of `rank`, which serves unless it fails."""
    return next(rank(route, candidates, **options))


def pick(username: str, candidates=ALL, **options) -> str:
    return choose(parse_route(username), candidates, **options).id


def failure(username: str, candidates=ALL, **options) -> RouteFailure:
    with pytest.raises(RouteError) as caught:
        pick(username, candidates, **options)
    return caught.value.failure


@pytest.mark.parametrize(
    ("username", "route"),
    [
        ("", Route()),
        ("phone", Route(name="phone")),
        ("node=phone", Route(node="phone")),
        ("group=home,session=abc", Route(group="home", session="abc")),
        ("session=a%2Cb%3D", Route(session="a,b=")),
        ("my%20phone,fallback=no", Route(name="my phone", fallback=False)),
        ("optimistic=yes", Route(optimistic=True)),
        ("phone,optimistic=no", Route(name="phone")),
        ("session=a,lifetime=10m", Route(session="a", lifetime=600.0)),
        ("session=a,lifetime=0", Route(session="a", lifetime=0.0)),
        ("expect-ip=192.0.2.7", Route(expect_ip=IPv4Network("192.0.2.7/32"))),
        ("expect-ip=2001:db8::/32", Route(expect_ip=IPv6Network("2001:db8::/32"))),
        ("phone,expect-country=de", Route(name="phone", expect_country="DE")),
    ],
)
def test_user_names_are_understood(username, route):
    assert parse_route(username) == route


@pytest.mark.parametrize(
    "username",
    [
        *["colour=red", "node=", ",", "a,", "node=a,node=b", "a,b", "node=a,group=b"],
        *["fallback=maybe", "a,group=b", "=x", "session=", "optimistic=", "optimistic=1"],
        *["lifetime=10m", "session=a,lifetime=soon", "session=a,lifetime=-1s", "lifetime="],
        *["expect-ip=home", "expect-ip=192.0.2.1/8", "expect-country=DEU", "expect-country=12"],
    ],
)
def test_other_user_names_fail(username):
    assert failure(username) is RouteFailure.BAD_NAME


def test_the_default_route_stays_with_one_node_while_it_is_up():
    assert pick("") == "1"
    assert pick("", [off(PHONE), LAPTOP, OFFICE]) == "2"
    assert failure("", [off(PHONE)]) is RouteFailure.NO_NODE
    assert failure("", []) is RouteFailure.NO_NODE


def test_a_name_is_that_node_or_group_and_never_another():
    assert pick("office") == "3"
    assert pick("home") == "1"
    assert pick("home", [off(PHONE), LAPTOP, OFFICE]) == "2"
    assert failure("office", [PHONE, off(OFFICE)]) is RouteFailure.OFFLINE
    assert failure("nobody") is RouteFailure.UNKNOWN
    assert failure("node=home") is RouteFailure.UNKNOWN
    assert failure("group=phone") is RouteFailure.UNKNOWN


def test_without_fallback_only_the_first_choice_serves():
    assert failure("group=home,fallback=no", [off(PHONE), LAPTOP]) is RouteFailure.OFFLINE
    assert pick("group=home,fallback=no") == "1"


nodes = st.lists(
    st.builds(
        Candidate,
        st.uuids().map(str),
        st.text("abc", min_size=1, max_size=4),
        st.sampled_from(["", "g"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda c: c.id,
)


@given(nodes, st.text("xyz", min_size=1))
def test_a_session_survives_others_joining_and_leaving(candidates, session):
    route = Route(session=session)
    online = [c for c in candidates if c.online]
    if not online:
        with pytest.raises(RouteError):
            choose(route, candidates)
        return
    chosen = choose(route, candidates).id
    assert chosen in {c.id for c in online}
    for other in candidates:
        if other.id != chosen:
            assert choose(route, [c for c in candidates if c is not other]).id == chosen
            assert choose(route, [off(c) if c is other else c for c in candidates]).id == chosen


def test_sessions_spread_over_a_group():
    chosen = {pick(f"group=home,session={number}") for number in range(50)}
    assert chosen == {"1", "2"}


@given(st.text(max_size=30))
def test_any_user_name_is_a_route_or_a_route_error(username):
    try:
        parse_route(username)
    except RouteError as error:
        assert error.failure is RouteFailure.BAD_NAME


def test_what_keeps_a_node_from_serving_is_told():
    for obstacle in (RouteFailure.DRAINED, RouteFailure.FULL, RouteFailure.QUOTA):
        busy = replace(PHONE, obstacle=obstacle)
        assert pick("", [busy, LAPTOP]) == "2"
        assert failure("phone", [busy, LAPTOP]) is obstacle
        assert failure("", [busy, off(LAPTOP)]) is obstacle
        assert failure("home,fallback=no", [busy, LAPTOP]) is obstacle


def test_a_node_that_failed_lately_comes_last_but_is_never_given_up():
    suspect = replace(PHONE, suspect=True)
    assert pick("", [suspect, LAPTOP]) == "2"
    assert pick("phone", [suspect, LAPTOP]) == "1"
    assert pick("", [suspect, off(LAPTOP)]) == "1"
    assert [c.id for c in rank(Route(), [suspect, LAPTOP, OFFICE])] == ["2", "3", "1"]


def test_spread_takes_the_least_loaded_and_sessions_stay():
    loaded = [replace(PHONE, load=5), replace(LAPTOP, load=3), replace(OFFICE, load=4)]
    assert pick("", loaded, spread=True) == "2"
    assert pick("home", loaded, spread=True) == "2"
    assert pick("phone", loaded, spread=True) == "1"
    assert pick("session=a", loaded, spread=True) == pick("session=a", ALL)


def test_another_try_goes_to_another_node_of_the_same_route():
    assert [c.id for c in rank(parse_route("home"), ALL)] == ["1", "2"]
    assert [c.id for c in rank(parse_route("home,fallback=no"), ALL)] == ["1"]
    assert [c.id for c in rank(parse_route("node=office"), ALL)] == ["3"]


@given(nodes, st.text("xyz", min_size=1), st.integers(0, 5))
def test_each_generation_of_a_session_ranks_all_nodes_its_own_way(candidates, session, number):
    online = [c for c in candidates if c.online]
    if online:
        ranked = list(rank(Route(session=session), candidates, generation=number))
        assert sorted(c.id for c in ranked) == sorted(c.id for c in online)
        assert ranked == list(rank(Route(session=session), candidates, generation=number))


def test_generations_differ():
    chosen = {pick("group=home,session=a", generation=number) for number in range(20)}
    assert chosen == {"1", "2"}


def test_an_expected_exit_fails_closed():
    here, there = PHONE, replace(LAPTOP, address="203.0.113.9")
    countries = {"192.0.2.1": "DE", "203.0.113.9": "FR"}
    assert pick("expect-ip=203.0.113.9", [here, there]) == "2"
    assert pick("expect-ip=203.0.113.0/24", [here, there]) == "2"
    assert failure("phone,expect-ip=203.0.113.9", [here, there]) is RouteFailure.EXIT_ADDRESS
    assert failure("expect-ip=::1", [here, there]) is RouteFailure.EXIT_ADDRESS
    assert failure("expect-ip=192.0.2.1", [replace(PHONE, address="")]) is RouteFailure.EXIT_ADDRESS
    assert pick("expect-country=fr", [here, there], country_of=countries.get) == "2"
    nowhere = [replace(PHONE, address="198.51.100.1")]
    assert failure("expect-country=DE", nowhere, country_of=countries.get) is (
        RouteFailure.EXIT_COUNTRY
    )
    assert failure("expect-country=DE", [here]) is RouteFailure.EXIT_COUNTRY


def test_a_sessions_generation_lasts_its_lifetime_from_its_first_use():
    now = 100.0
    clock = SessionClock(lambda: now)
    assert clock.generation("home", "a", 60.0) == 0
    now = 159.0
    assert clock.generation("home", "a", 60.0) == 0
    now = 160.0
    assert clock.generation("home", "a", 60.0, use=False) == 1
    now = 200.0
    assert clock.generation("home", "a", 60.0) == 1
    now = 259.0
    assert clock.generation("home", "a", 60.0) == 1
    assert clock.generation("office", "a", 60.0) == 0
    assert clock.generation("home", "a", 0.0) == 0
