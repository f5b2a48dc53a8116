"""Pairing links: one line that holds all, read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_protocol import Endpoint, LinkError, PairingLink, PublicKey

endpoints = st.builds(
    Endpoint,
    st.sampled_from(["192.0.2.1", "2001:db8::1", "hub.example", "a-b.example."]),
    st.integers(1, 65535),
)
links = st.builds(
    PairingLink,
    st.lists(endpoints, min_size=1, max_size=8).map(tuple),
    st.binary(min_size=32, max_size=32).map(PublicKey),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 10**11),
)
GOOD = str(
    PairingLink((Endpoint("hub.example", 9000),), PublicKey(b"k" * 32), b"t" * 32, 1700000000)
)


@given(links)
def test_links_are_read_as_they_were_written(link):
    assert PairingLink.parse(str(link)) == link
    assert PairingLink.parse(f"  {link}\n") == link


@given(st.text(max_size=60) | st.text(max_size=60).map("restunnel://pair?".__add__))
def test_any_text_is_a_link_or_a_link_error(text):
    try:
        PairingLink.parse(text)
    except LinkError as error:
        assert str(error)


def test_a_link_has_the_documented_form():
    assert GOOD == (
        "restunnel://pair?v=1&h=hub.example:9000"
        "&k=a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s"
        "&t=dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ&e=1700000000"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("restunnel:", "https:"),
        ("pair?", "unpair?"),
        ("v=1", "v=2"),
        ("v=1&", ""),
        ("h=hub.example:9000", "h=hub.example:0"),
        ("h=hub.example:9000", "h=hub.example"),
        ("h=hub.example:9000", "h=hub example:9000"),
        ("h=hub.example:9000&", ""),
        ("h=hub.example:9000", "&".join(["h=hub.example:9000"] * 9)),
        ("k=a2", "k=a"),
        ("k=a2", "k=a2a2"),
        ("t=dH", "t=d"),
        ("t=dH", "t=+H"),
        ("e=1700000000", "e=soon"),
        ("e=1700000000", "e=-1"),
        ("e=1700000000", "e=1&e=2"),
        ("e=1700000000", "e=1#x"),
        ("dHQ&e", "dHR&e"),
    ],
)
def test_a_damaged_link_is_refused(old, new):
    assert old in GOOD
    with pytest.raises(LinkError):
        PairingLink.parse(GOOD.replace(old, new, 1))


def test_parameters_of_later_versions_are_ignored():
    assert PairingLink.parse(GOOD + "&n=phone") == PairingLink.parse(GOOD)


def test_a_logged_link_does_not_show_its_token():
    assert "dHR0" not in repr(PairingLink.parse(GOOD))
