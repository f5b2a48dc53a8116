"""SOCKS5 negotiation, byte by byte and hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_hub.access import Access
from restunnel_hub.proxy_request import Failure, ProxyRequest
from restunnel_hub.socks5 import REPLIES, Socks5
from restunnel_protocol import ConnectFailReason, Target

GREETING = b"\x05\x01\x00"
LOGIN = b"\x05\x02\x00\x02" + b"\x01\x05phone\x01x"
NAME = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"

REQUESTS = [
    (NAME, Target("example.com", 443)),
    (b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50", Target("192.0.2.1", 80)),
    (b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x00\x50", Target("::1", 80)),
]


@pytest.mark.parametrize(("request_bytes", "target"), REQUESTS)
@pytest.mark.parametrize(("login", "username"), [(GREETING, ""), (LOGIN, "phone")])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_request_is_read_however_it_is_cut(request_bytes, target, login, username, step):
    parser, answer = Socks5(Access()), b""
    data = login + request_bytes + b"early data"
    for start in range(0, len(data), step):
        answer += parser.receive_data(data[start : start + step])
    assert parser.request == ProxyRequest(target, username)
    assert answer == (b"\x05\x02\x01\x00" if username else b"\x05\x00")
    assert parser.leftover == b"early data"
    assert not parser.failed


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_a_request_a_failure_or_not_enough(pieces):
    parser = Socks5(Access())
    for piece in pieces:
        parser.receive_data(piece)
    assert not (parser.request and parser.failed)


@given(st.binary(max_size=60))
def test_any_request_after_a_good_greeting_is_handled(request_bytes):
    parser = Socks5(Access())
    parser.receive_data(GREETING + request_bytes)
    assert not (parser.request and parser.failed)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x04\x01\x00\x50\x01\x02\x03\x04\x00", b""),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"\x05\x01\x01", b"\x05\xff"),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x05\x01\x02\x05", b"\x05\x02"),
        (b"\x05\x01\x02\x01\x01\xff\x01x", b"\x05\x02\x01\x01"),
        (GREETING + b"\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50", b"\x05\x00\x05\x07"),
        (GREETING + b"\x05\x03\x00\x01\x01\x02\x03\x04\x00\x50", b"\x05\x00\x05\x07"),
        (GREETING + b"\x05\x01\x00\x02\x01", b"\x05\x00\x05\x08"),
        (GREETING + b"\x05\x01\x00\x03\x02a\x00\x00\x50", b"\x05\x00\x05\x01"),
        (GREETING + b"\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00\x05\x01"),
        (GREETING + b"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x00", b"\x05\x00\x05\x01"),
        (GREETING + b"\x04\x01\x00\x01", b"\x05\x00"),
    ],
)
def test_what_is_not_understood_fails_with_the_right_code(data, answer):
    parser = Socks5(Access())
    assert parser.receive_data(data).startswith(answer)
    assert parser.failed
    assert parser.request is None


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (ConnectFailReason.GENERAL, 1),
        (ConnectFailReason.NOT_ALLOWED, 2),
        (ConnectFailReason.NETWORK_UNREACHABLE, 3),
        (ConnectFailReason.HOST_UNREACHABLE, 4),
        (ConnectFailReason.NAME_NOT_FOUND, 4),
        (ConnectFailReason.REFUSED, 5),
        (ConnectFailReason.TIMEOUT, 6),
    ],
)
def test_replies_tell_the_nodes_reason(reason, code):
    parser = Socks5(Access())
    assert parser.failure(Failure("", reason)) == bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0))
    assert parser.success() == b"\x05\x00\x00\x01\0\0\0\0\0\0"
    assert set(REPLIES) == set(ConnectFailReason)
