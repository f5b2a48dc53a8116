"""Frames and payloads: what is written is read back, what is malformed is named."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_protocol import (
    CloseReason,
    ConnectFailReason,
    Enroll,
    EnrollOk,
    GoAwayReason,
    Hello,
    RemoteError,
    Status,
    Target,
)
from restunnel_protocol.addresses import decode_target, encode_target
from restunnel_protocol.frames import describe_frame, encode_frame, parse_frames
from restunnel_protocol.limits import MAX_PAYLOAD, MAX_STATUS, MAX_WINDOW
from restunnel_protocol.messages import (
    Close,
    Connect,
    ConnectFail,
    ConnectOk,
    GoAway,
    Window,
    check_ping,
)

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20})?", fullmatch=True)
names = st.builds(
    lambda first, rest: ".".join([f"h{first}", *rest]), labels, st.lists(labels, max_size=3)
)
addresses = st.ip_addresses()
ports = st.integers(1, 65535)
targets = st.builds(Target, names | addresses, ports)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=16)
windows = st.integers(0, MAX_WINDOW)

messages = (
    st.builds(Hello, st.integers(0, 2**63 - 1), windows, st.integers(0, 2**32 - 1),
              st.integers(0, 65535), texts)
    | st.builds(Enroll, st.binary(min_size=32, max_size=32), texts)
    | st.builds(EnrollOk, texts, texts)
    | st.builds(Connect, targets)
    | st.builds(ConnectOk, st.builds(Target, addresses, ports))
    | st.builds(ConnectFail, st.sampled_from(ConnectFailReason), texts)
    | st.builds(Close, st.sampled_from(CloseReason).filter(lambda r: r < 0xFF), texts)
    | st.builds(Window, st.integers(1, MAX_WINDOW))
    | st.builds(GoAway, st.integers(0, 65535), st.integers(0, 2**32 - 1), texts)
    | st.builds(Status, st.dictionaries(texts, texts | st.integers() | st.booleans(), max_size=5))
)  # fmt: skip

PAYLOADS = [
    Hello, Enroll, EnrollOk, Connect, ConnectOk, ConnectFail, Close, Window, GoAway, Status,
]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=99))))
def test_frames_are_read_as_they_were_written(frames):
    data = b"".join(encode_frame(*frame) for frame in frames)
    assert [
        (kind, number, bytes(content)) for kind, number, content in parse_frames(data)
    ] == frames


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_bad_frame(data):
    try:
        frames = parse_frames(data)
    except RemoteError as error:
        assert error.reason is GoAwayReason.BAD_FRAME
    else:
        assert b"".join(encode_frame(*frame) for frame in frames) == data


@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 2**31, 2**32 - 1])
def test_a_length_over_the_limit_is_refused_whatever_follows(length):
    with pytest.raises(RemoteError, match="does not fit"):
        parse_frames(b"\x20\0\0\0\1" + length.to_bytes(4, "big") + bytes(100))
    with pytest.raises(ValueError, match="is over"):
        encode_frame(0x20, 1, bytes(MAX_PAYLOAD + 1))


def test_a_logged_frame_tells_nothing_of_its_payload():
    (frame,) = parse_frames(encode_frame(0x01, 0, b"secret token"))
    assert describe_frame(frame) == "ENROLL id=0 length=12"
    (frame,) = parse_frames(encode_frame(0x99, 7, b"secret"))
    assert describe_frame(frame) == "0x99 id=7 length=6"


@given(messages)
def test_payloads_are_read_as_they_were_written(message):
    assert type(message).decode(message.encode()) == message


@pytest.mark.parametrize("payload_type", PAYLOADS)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_payload_or_a_bad_payload(payload_type, data):
    try:
        message = payload_type.decode(data)
    except RemoteError as error:
        assert error.reason is GoAwayReason.BAD_PAYLOAD
    else:
        assert payload_type.decode(message.encode()) == message


@given(messages)
def test_a_payload_that_is_cut_off_is_not_taken_for_another(message):
    whole = message.encode()
    for end in range(len(whole)):
        try:
            shorter = type(message).decode(whole[:end])
        except RemoteError:
            continue
        assert shorter != message


@pytest.mark.parametrize(
    ("payload_type", "payload"),
    [
        (Enroll, bytes(33) + b"x"),
        (Window, bytes(4)),
        (Window, b"\x80\0\0\0"),
        (Window, bytes(5)),
        (Hello, bytes(2 + 4) + b"\xff" * 4 + bytes(8) + b"\0"),
        (Hello, bytes(2 + 4 + 4) + b"\xff" * 8 + b"\0"),
        (Hello, bytes(2 + 4 + 4 + 8) + b"\x02\xff\xff"),
        (Connect, b"\x02\x01\x02\x03\x04\x00\x50"),
        (Connect, b"\x01\x01\x02\x03\x04\x00\x00"),
        (Connect, b"\x03\x04a\x00bc\x00\x50"),
        (Connect, b"\x03\x00\x00\x50"),
        (Connect, b"\x03\x02\xc3\xa4\x00\x50"),
        (ConnectOk, b"\x03\x01a\x00\x50"),
        (ConnectFail, b""),
        (ConnectFail, b"\x01\x00"),
        (Close, b"\x00" + bytes(256)),
        (Status, b"[]"),
        (Status, b"{"),
        (Status, b"[" * MAX_STATUS),
        (Status, b'{"a":"' + b"x" * MAX_STATUS + b'"}'),
    ],
)
def test_malformed_payloads_are_refused(payload_type, payload):
    with pytest.raises(RemoteError) as caught:
        payload_type.decode(payload)
    assert caught.value.reason is GoAwayReason.BAD_PAYLOAD


def test_reasons_of_later_versions_still_mean_failure():
    assert ConnectFail.decode(b"\xee").reason is ConnectFailReason.GENERAL
    assert Close.decode(b"\xee").reason is CloseReason.INTERNAL
    assert Close.decode(b"\xff").reason is CloseReason.INTERNAL
    assert GoAway.decode(b"\x12\x34\0\0\0\0").reason_name == "reason 0x1234"


def test_later_versions_may_lengthen_hello_and_enroll_ok():
    hello, enroll_ok = Hello(5, agent="x"), EnrollOk("id", "name")
    assert Hello.decode(hello.encode() + b"more") == hello
    assert EnrollOk.decode(enroll_ok.encode() + b"more") == enroll_ok


def test_a_ping_has_eight_bytes():
    assert check_ping(bytes(range(8))) == bytes(range(8))
    for size in (0, 7, 9):
        with pytest.raises(RemoteError):
            check_ping(bytes(size))


@given(targets)
def test_targets_are_read_as_they_were_written(target):
    assert decode_target(encode_target(target)) == target


def test_a_name_that_reads_as_an_address_is_that_address():
    assert Target("127.0.0.1", 80).host == IPv4Address("127.0.0.1")
    assert decode_target(b"\x03\x03::1\x00\x50").host == IPv6Address("::1")


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "-a",
        "a b",
        "a\0b",
        "fe80::1%eth0",
        "a" * 64,
        "a." * 130,
        "ä.example",
        "a。b",
    ],
)
def test_malformed_hosts_do_not_become_targets(host):
    with pytest.raises(ValueError):
        Target(host, 80)


@pytest.mark.parametrize(
    "host", ["example.com", "example.com.", "_dmarc.example", "a-b.c", "0x7f.1"]
)
def test_names_as_they_occur_become_targets(host):
    assert str(Target(host, 80)) == f"{host}:80"


def test_long_details_are_cut_between_characters():
    detail = "ä" * 300
    decoded = ConnectFail.decode(ConnectFail(ConnectFailReason.GENERAL, detail).encode()).detail
    assert decoded == "ä" * 127
    assert ConnectFail(ConnectFailReason.GENERAL, "a\nb").encode() == b"\x01a b"
