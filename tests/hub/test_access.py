"""Clients' passwords, in every protocol that has a place for one."""

from __future__ import annotations

import base64

import pytest

from restunnel_hub.access import ANONYMOUS, Access, AccessDeniedError, hash_password, new_password
from restunnel_hub.http_proxy import HttpProxy
from restunnel_hub.socks5 import Socks5

PASSWORD = new_password()


def access(*, required: bool) -> Access:
    known = Access(lambda: required)
    known.replace([(hash_password(PASSWORD), "crawler")])
    return known


def test_a_password_is_long_and_new_each_time():
    assert len(bytes.fromhex(PASSWORD)) == 20
    assert new_password() != PASSWORD


def test_without_need_a_known_password_only_names_the_account():
    assert access(required=False).admit(PASSWORD) == "crawler"
    for other in (None, "", "x", PASSWORD.upper()):
        assert access(required=False).admit(other) == ANONYMOUS


def test_with_need_nothing_else_will_do():
    assert access(required=True).admit(PASSWORD) == "crawler"
    for other in (None, "", "x", PASSWORD[:-1], PASSWORD + "0", "\udcff"):
        with pytest.raises(AccessDeniedError):
            access(required=True).admit(other)


def login(password: str) -> bytes:
    return b"\x01\x05phone" + bytes((len(password),)) + password.encode()


REQUEST = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"


def test_socks5_takes_the_password_and_keeps_the_user_name_for_the_route():
    parser = Socks5(access(required=True))
    assert (
        parser.receive_data(b"\x05\x02\x00\x02" + login(PASSWORD) + REQUEST) == b"\x05\x02\x01\x00"
    )
    assert (parser.request.username, parser.request.account) == ("phone", "crawler")


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x05\x01\x00", b"\x05\xff"),
        (b"\x05\x01\x02" + login("wrong"), b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02\x01\x00\x01\xff", b"\x05\x02\x01\x01"),
    ],
)
def test_socks5_without_it_fails_as_rfc_1928_and_1929_say(data, answer):
    parser = Socks5(access(required=True))
    assert parser.receive_data(data) == answer
    assert parser.failed


@pytest.mark.parametrize("start", ["CONNECT a.example:443", "GET http://a.example/"])
def test_http_takes_the_password_or_asks_for_it(start):
    head = f"{start} HTTP/1.1\r\nHost: a.example\r\n"
    credentials = base64.b64encode(f"phone:{PASSWORD}".encode()).decode()
    parser = HttpProxy(access(required=True))
    parser.receive_data(f"{head}Proxy-Authorization: Basic {credentials}\r\n\r\n".encode())
    assert (parser.request.username, parser.request.account) == ("phone", "crawler")
    for wrong in ("", "Proxy-Authorization: Basic cGhvbmU6d3Jvbmc=\r\n"):
        parser = HttpProxy(access(required=True))
        answer = parser.receive_data(f"{head}{wrong}\r\n".encode())
        assert parser.failed
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert b"\r\nProxy-Authenticate: Basic " in answer
