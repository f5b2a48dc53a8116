"""Requests to the HTTP proxy: what is one, what is none, what the target gets."""

from __future__ import annotations

import base64

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_hub.access import Access
from restunnel_hub.http_forward import outgoing_request
from restunnel_hub.http_proxy import STATUSES, HttpProxy, failure_response, failure_status
from restunnel_hub.proxy_request import Failure, ProxyRequest
from restunnel_hub.routing import RouteError, RouteFailure
from restunnel_protocol import ConnectFailReason, Target


def feed(data: bytes) -> tuple[HttpProxy, bytes]:
    parser = HttpProxy(Access())
    return parser, parser.receive_data(data)


def credentials(text: str) -> str:
    return f"Proxy-Authorization: Basic {base64.b64encode(text.encode()).decode()}\r\n"


def test_connect_names_its_target_and_leaves_the_rest():
    parser, answer = feed(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\nhello")
    assert (parser.request, answer) == (ProxyRequest(Target("example.com", 443), ""), b"")
    assert parser.head is None
    parser.receive_data(b" again")
    assert parser.leftover == b"hello again"


@pytest.mark.parametrize("target", ["[2001:db8::1]:443", "192.0.2.1:443"])
def test_connect_takes_addresses(target):
    parser, _ = feed(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert str(parser.request.target) == target


def test_the_user_name_comes_from_the_proxys_own_credentials():
    head = f"CONNECT a.example:1 HTTP/1.1\r\nHost: a\r\n{credentials('group=home:secret')}\r\n"
    assert feed(head.encode())[0].request.username == "group=home"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.com/path?x=1", Target("example.com", 80)),
        ("http://user:pw@example.com:8080/", Target("example.com", 8080)),
        ("http://[::1]:81/", Target("::1", 81)),
        ("HTTP://EXAMPLE.com", Target("EXAMPLE.com", 80)),
    ],
)
def test_a_plain_request_names_its_target_in_absolute_form(url, target):
    parser, answer = feed(f"GET {url} HTTP/1.1\r\nHost: wrong\r\n\r\n".encode())
    assert (parser.request.target, answer) == (target, b"")
    assert parser.head is not None


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: localhost:1081\r\n\r\n",
        "GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET ftp://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "CONNECT example.com HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "CONNECT example.com:0 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "CONNECT example.com:99999 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "CONNECT /path HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET http:///path HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET http://a b/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "GET http://[::1/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Bearer x\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic !\r\n\r\n",
        "\x05\x01\x00" * 30 + "\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nX: " + "y" * 70_000,
    ],
)
def test_what_is_no_request_to_a_proxy_gets_400(head):
    parser, answer = feed(head.encode())
    assert parser.failed
    assert parser.request is None
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in answer


@given(st.binary(max_size=100))
def test_any_bytes_are_a_request_a_failure_or_not_enough(data):
    parser, _ = feed(data)
    assert not (parser.request and parser.failed)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (ConnectFailReason.NOT_ALLOWED, 403),
        (ConnectFailReason.REFUSED, 502),
        (ConnectFailReason.TIMEOUT, 504),
        (ConnectFailReason.BUSY, 503),
    ],
)
def test_failures_of_the_node_have_their_status(reason, status):
    assert failure_status(Failure("x", reason)) == status
    assert set(STATUSES) == set(ConnectFailReason)


def test_failures_of_routing_have_their_status():
    for failure, status in (
        (RouteFailure.UNKNOWN, 407),
        (RouteFailure.BAD_NAME, 407),
        (RouteFailure.NO_NODE, 503),
        (RouteFailure.OFFLINE, 503),
    ):
        response = failure_response(Failure("no", route=RouteError(failure)))
        assert response.startswith(f"HTTP/1.1 {status} ".encode())
        assert response.endswith(b"\r\n\r\nrestunnel: no\n")


def outgoing(url: str, *headers: tuple[str, str], method: str = "GET") -> h11.Request:
    request = h11.Request(method=method, target=url, headers=[("Host", "wrong.example"), *headers])
    return outgoing_request(request)


def test_the_target_gets_origin_form_and_its_own_host():
    request = outgoing("http://user@example.com:8080/a?b=c")
    assert request.target == b"/a?b=c"
    assert list(request.headers) == [(b"host", b"example.com:8080")]
    assert outgoing("http://example.com").target == b"/"
    assert outgoing("http://example.com?q").target == b"/?q"
    assert outgoing("http://example.com", method="OPTIONS").target == b"*"


def test_the_target_gets_no_word_about_the_proxy():
    request = outgoing(
        "http://example.com/",
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Connection", "keep-alive"),
        ("Connection", "close, X-Hop"),
        ("Keep-Alive", "5"),
        ("X-Hop", "1"),
        ("TE", "trailers"),
        ("Accept", "*/*"),
    )
    assert [name for name, _ in request.headers] == [b"host", b"accept"]


def test_naming_framing_fields_in_connection_does_not_remove_them():
    request = outgoing(
        "http://example.com/",
        ("Connection", "Content-Length, Host"),
        ("Content-Length", "5"),
        method="POST",
    )
    assert (b"content-length", b"5") in list(request.headers)


def test_a_request_with_two_framings_leaves_with_one():
    request = outgoing(
        "http://example.com/",
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        method="POST",
    )
    names = [name for name, _ in request.headers]
    assert b"transfer-encoding" in names
    assert b"content-length" not in names


def test_an_upgrade_concerns_both_hops():
    request = outgoing("http://example.com/", ("Connection", "Upgrade"), ("Upgrade", "websocket"))
    assert (b"upgrade", b"websocket") in list(request.headers)
    assert (b"connection", b"upgrade") in list(request.headers)
