"""SOCKS4 and 4a, byte by byte and hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_hub.access import Access
from restunnel_hub.proxy_request import Failure, ProxyRequest
from restunnel_hub.socks4 import Socks4
from restunnel_protocol import ConnectFailReason, Target

REJECTED = b"\x00\x5b" + bytes(6)

REQUESTS = [
    (b"\x04\x01\x00\x50\xc0\x00\x02\x01phone\x00", Target("192.0.2.1", 80), "phone"),
    (b"\x04\x01\x01\xbb\x00\x00\x00\x07\x00example.com\x00", Target("example.com", 443), ""),
    (
        b"\x04\x01\x01\xbb\x00\x00\x00\x01session=a\x00x.test\x00",
        Target("x.test", 443),
        "session=a",
    ),
]


@pytest.mark.parametrize(("data", "target", "username"), REQUESTS)
@pytest.mark.parametrize("step", [1, 5, 100])
def test_a_request_is_read_however_it_is_cut(data, target, username, step):
    parser = Socks4(Access())
    data += b"early data"
    for start in range(0, len(data), step):
        assert parser.receive_data(data[start : start + step]) == b""
    assert parser.request == ProxyRequest(target, username)
    assert parser.leftover == b"early data"
    assert parser.success() == b"\x00\x5a" + bytes(6)
    assert parser.failure(Failure("", ConnectFailReason.REFUSED)) == REJECTED


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\x02\x00\x50\xc0\x00\x02\x01\x00",
        b"\x04\x09",
        b"\x04\x01\x00\x00\xc0\x00\x02\x01\x00",
        b"\x04\x01\x00\x50\xc0\x00\x02\x01" + b"u" * 256,
        b"\x04\x01\x00\x50\xc0\x00\x02\x01\xff\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00" + b"n" * 300,
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a b\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00",
    ],
)
def test_what_is_not_understood_is_rejected(data):
    parser = Socks4(Access())
    assert parser.receive_data(data) == REJECTED
    assert parser.failed
    assert parser.request is None


def test_where_a_password_is_needed_socks4_is_rejected():
    parser = Socks4(Access(lambda: True))
    assert parser.receive_data(REQUESTS[0][0]) == REJECTED
    assert parser.failed


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_a_request_a_failure_or_not_enough(pieces):
    parser = Socks4(Access())
    for piece in pieces:
        parser.receive_data(piece)
    assert not (parser.request and parser.failed)
