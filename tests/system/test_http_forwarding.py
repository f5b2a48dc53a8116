"""Plain HTTP through the proxy, as RFC 9110 and RFC 9112 want it."""

from __future__ import annotations

import socket
import threading

import pytest

from support.services import (
    PATIENCE,
    Hub,
    Node,
    raw_server,
    read_exactly,
    read_to_end,
    reset,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("http forwarding")  # they share a hub and a node

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def read_head(sock: socket.socket) -> bytes:
    """Up to and with the empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece:
            break
        head += piece
    return head


def client(hub: Hub) -> socket.socket:
    return socket.create_connection(hub.address("http"), PATIENCE)


def get(host: str, port: int, path: str = "/", more: str = "") -> bytes:
    return f"GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{more}\r\n".encode()


@pytest.fixture
def pair(shared_tunnel: tuple[Hub, Node]) -> tuple[Hub, Node]:
    return shared_tunnel


def test_requests_to_one_target_share_a_connection(pair):
    hub, node = pair
    heads = []

    def serve(sock: socket.socket) -> None:
        for _ in range(3):
            heads.append(read_head(sock))
            sock.sendall(OK)

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        for number in range(3):
            sock.sendall(get(host, port, f"/{number}", "Proxy-Connection: keep-alive\r\n"))
            assert read_head(sock).startswith(b"HTTP/1.1 200 OK")
            assert read_exactly(sock, 2) == b"ok"
    assert heads == [
        f"GET /{number} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode() for number in range(3)
    ]


def test_pipelined_requests_are_answered_in_order(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        for _ in range(2):
            path = read_head(sock).split()[1]
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + path)

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(get(host, port, "/1") + get(host, port, "/2", "Connection: close\r\n"))
        answer = read_to_end(sock)
    assert answer.index(b"/1") < answer.index(b"/2")


def test_requests_to_two_targets_use_two_connections(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK)
        assert sock.recv(1) == b""  # let go when the client turns elsewhere

    with raw_server(node, serve) as first, raw_server(node, serve) as second, client(hub) as sock:
        for host, port in (first, second):
            sock.sendall(get(host, port))
            assert read_head(sock).startswith(b"HTTP/1.1 200")
            assert read_exactly(sock, 2) == b"ok"


def test_a_kept_connection_that_died_is_replaced_unseen(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK)

    with raw_server(node, serve, connections=3) as (host, port), client(hub) as sock:
        for _ in range(3):
            sock.sendall(get(host, port))
            assert read_head(sock).startswith(b"HTTP/1.1 200")
            assert read_exactly(sock, 2) == b"ok"


def test_chunked_bodies_and_trailers_pass_in_both_directions(pair):
    hub, node = pair
    received = []

    def serve(sock: socket.socket) -> None:
        received.append(read_head(sock))
        body = b""
        while not body.endswith(b"\r\n\r\n"):
            body += sock.recv(100)
        received.append(body)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        sock.sendall(b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(
            f"POST http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            "Connection: close\r\n\r\n4\r\nwiki\r\n0\r\nX-End: 1\r\n\r\n".encode()
        )
        answer = read_to_end(sock)
    assert b"transfer-encoding: chunked" in received[0].lower()
    assert b"wiki" in received[1]
    assert b"x-end: 1" in received[1].lower()
    assert b"3\r\nabc\r\n" in answer
    assert b"x-sum: 5" in answer.lower()


def test_expect_100_continue_is_between_client_and_target(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        assert b"100-continue" in read_head(sock)
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert read_exactly(sock, 4) == b"body"
        sock.sendall(OK)

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(
            f"PUT http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            "Content-Length: 4\r\n\r\n".encode()
        )
        assert read_head(sock).startswith(b"HTTP/1.1 100")
        sock.sendall(b"body")
        assert read_head(sock).startswith(b"HTTP/1.1 200")


def test_an_upgrade_turns_the_connection_into_bytes(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        head = read_head(sock).lower()
        assert b"upgrade: echo" in head
        assert b"connection: upgrade" in head
        sock.sendall(
            b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nwelcome"
        )
        sock.sendall(read_to_end(sock))

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(get(host, port, "/", "Connection: Upgrade\r\nUpgrade: echo\r\n"))
        head = read_head(sock).lower()
        assert head.startswith(b"http/1.1 101")
        assert b"upgrade: echo" in head
        assert read_exactly(sock, 7) == b"welcome"
        sock.sendall(b"\x00\x01anything")
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == b"\x00\x01anything"


def test_a_body_that_ends_with_the_connection_arrives_whole(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000)

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(get(host, port))
        assert b"chunked" in read_head(sock).lower()
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += sock.recv(65536)
        assert body.count(b"x") == 100_000


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_body_that_is_cut_short_is_a_reset(pair, framing):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n32\r\n")

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(get(host, port))
        with pytest.raises(ConnectionResetError):
            read_to_end(sock)


def test_a_target_that_says_nothing_is_a_bad_gateway(pair):
    hub, node = pair
    with raw_server(node, read_head) as (host, port), client(hub) as sock:
        sock.sendall(get(host, port))
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert answer.count(b"\n") == answer.count(b"\r\n") + 1  # a body of one line


def test_a_target_that_talks_nonsense_is_a_bad_gateway(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"\xff\xfe\x00\r\n\r\n")

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(get(host, port))
        assert read_to_end(sock).startswith(b"HTTP/1.1 502 ")


def test_an_answer_that_does_not_wait_for_the_body_reaches_the_client(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(
            f"POST http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n".encode()
        )
        sock.sendall(bytes(50_000))
        answer = read_exactly(sock, 15)
        assert answer == b"HTTP/1.1 413 To"
        assert b"no!" in read_to_end(sock)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_answers_without_a_body_keep_the_connection(pair, method):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        for _ in range(2):
            read_head(sock)
            status = b"200 OK" if method == "HEAD" else b"304 Not Modified"
            sock.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 500\r\n\r\n")

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        for _ in range(2):
            sock.sendall(get(host, port).replace(b"GET", method.encode(), 1))
            assert b"content-length: 500" in read_head(sock).lower()


def test_a_request_in_origin_form_gets_400(pair):
    hub, _ = pair
    with client(hub) as sock:
        sock.sendall(b"GET /secret HTTP/1.1\r\nHost: 127.0.0.1:1081\r\n\r\n")
        assert read_to_end(sock).startswith(b"HTTP/1.1 400 ")


def test_an_old_client_gets_an_old_answer(pair):
    hub, node = pair

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sock.sendall(f"GET http://{host}:{port}/ HTTP/1.0\r\n\r\n".encode())
        answer = read_to_end(sock)
    assert answer.endswith(b"\r\n\r\nabc")


def test_a_client_that_vanishes_from_a_stalled_upload_is_noticed(pair):
    hub, node = pair
    noticed = []

    def serve(sock: socket.socket) -> None:
        head = read_head(sock)
        wait_until(lambda: stalled, "the upload to stall")
        try:
            while sock.recv(1 << 20):
                pass
        except ConnectionResetError:
            noticed.append(head)

    stalled: list[bool] = []
    with raw_server(node, serve) as (host, port):
        sock = client(hub)
        sock.sendall(
            f"PUT http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n".encode()
        )
        sock.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:
                sock.send(bytes(1 << 20))
        reset(sock)
        wait_until(lambda: hub.status()["clients"] == 0, "the client's end")
        stalled.append(True)
    assert len(noticed) == 1


def test_requests_ahead_of_their_turn_are_kept_within_bounds_and_answered(pair):
    hub, node = pair
    count = 400
    more = "X-Padding: " + "x" * 1000 + "\r\n"

    def serve(sock: socket.socket) -> None:
        for _ in range(count):
            read_head(sock)
            sock.sendall(OK)

    with raw_server(node, serve) as (host, port), client(hub) as sock:
        sender = threading.Thread(
            target=lambda: [sock.sendall(get(host, port, "/", more)) for _ in range(count)]
        )
        sender.start()
        for _ in range(count):
            assert read_head(sock).startswith(b"HTTP/1.1 200")
            assert read_exactly(sock, 2) == b"ok"
        sender.join()
