"""Which node serves: the user name's grammar, and the choice against a naive model."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_hub.routing import (
    Route,
    RouteError,
    RouteFailure,
    choose,
    parse_route,
)


@dataclass(frozen=True)
class Candidate:
    id: str
    name: str
    group: str
    online: bool


PHONE = Candidate("1", "phone", "home", True)
LAPTOP = Candidate("2", "laptop", "home", True)
OFFICE = Candidate("3", "office", "", True)
ALL = [PHONE, LAPTOP, OFFICE]


def off(candidate: Candidate) -> Candidate:
    return Candidate(candidate.id, candidate.name, candidate.group, False)


def pick(username: str, candidates=ALL) -> str:
    return choose(parse_route(username), candidates).id


def failure(username: str, candidates=ALL) -> RouteFailure:
    with pytest.raises(RouteError) as caught:
        pick(username, candidates)
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
    ],
)
def test_user_names_are_understood(username, route):
    assert parse_route(username) == route


@pytest.mark.parametrize(
    "username",
    [
        *["colour=red", "node=", ",", "a,", "node=a,node=b", "a,b", "node=a,group=b"],
        *["fallback=maybe", "a,group=b", "=x", "session=", "optimistic=", "optimistic=1"],
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
