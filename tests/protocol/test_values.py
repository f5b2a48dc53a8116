"""Values of the protocol refuse to exist invalid."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from restunnel_protocol import (
    Endpoint,
    Enroll,
    GoAwayReason,
    LinkError,
    PairingLink,
    PrivateKey,
    PublicKey,
    RemoteError,
    Status,
    Target,
)
from restunnel_protocol.addresses import AddressError, parse_target, split_host_port
from restunnel_protocol.limits import MAX_OUTSTANDING_PINGS, MAX_STATUS
from restunnel_protocol.liveness import Liveness
from restunnel_protocol.messages import GoAway
from restunnel_protocol.windows import ReceiveWindow, WindowBudget

HUB = PrivateKey.generate().public


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Target("example.com", 0), "between 1 and 65535"),
        (lambda: Target(IPv6Address("fe80::1%eth0"), 80), "zone"),
        (lambda: Target("fe80::1%eth0", 80), "zone"),
        (lambda: Target("-x", 80), "not a host name"),
        (lambda: split_host_port("a:b:c"), "not HOST:PORT"),
        (lambda: split_host_port("example.com"), "no port"),
        (lambda: split_host_port(":80"), "no host"),
        (lambda: split_host_port("a:65536"), "over 65535"),
        (lambda: PublicKey(bytes(31)), "32 bytes, not 31"),
        (lambda: PrivateKey(bytes(33)), "32 bytes, not 33"),
        (lambda: Enroll(bytes(31)), "32 bytes"),
        (lambda: Status({"x": "y" * MAX_STATUS}).encode(), "over 8192"),
        (lambda: PairingLink.parse("restunnel://pair?" + "x" * 1024), "at most 1024 characters"),
        (lambda: PairingLink((), HUB, bytes(32), 1), "1 to 8"),
        (lambda: PairingLink((Endpoint("h", 1),), HUB, bytes(31), 1), "32 bytes"),
    ],
)
def test_what_cannot_be_on_the_wire_cannot_be_made(make, words):
    with pytest.raises((AddressError, ValueError, LinkError), match=words):
        make()


def test_targets_are_written_as_they_are_read():
    assert str(parse_target("[2001:db8::1]:443")) == "[2001:db8::1]:443"
    assert split_host_port("[::1]", 80) == ("::1", 80)
    assert parse_target("example.com:80").is_name
    assert not parse_target("192.0.2.1:80").is_name


def test_keys_are_written_as_they_are_read_and_private_ones_are_not_shown():
    key = PrivateKey.generate()
    assert PublicKey.parse(str(key.public)) == key.public
    assert str(key.public) in repr(key)
    assert len(key.public.fingerprint) == 16
    assert key.raw.hex() not in repr(key)


def test_goodbyes_have_a_name_also_where_the_number_is_new():
    assert GoAway(GoAwayReason.PAUSED).reason_name == "paused"
    assert GoAway(0x7777).reason_name == "reason 0x7777"


def test_answers_to_old_or_unknown_pings_measure_nothing():
    liveness = Liveness(30, 10, 0.0)
    pings = [liveness.new_ping(float(n)) for n in range(MAX_OUTSTANDING_PINGS + 1)]
    assert liveness.answered(pings[0], 9.0) is None
    assert liveness.answered(b"whatever", 9.0) is None
    assert liveness.answered(pings[1], 3.0) == 2.0
    assert liveness.answered(pings[1], 3.0) is None
    assert liveness.round_trip == 2.0


@pytest.mark.parametrize("size", [1, 50, 101])
def test_credit_that_was_not_to_spare_cannot_be_returned(size):
    window = ReceiveWindow(100, 1000, WindowBudget(10_000), 0.0)
    with pytest.raises(RemoteError) as caught:
        window.take_back(size)
    assert caught.value.reason is GoAwayReason.FLOW_CONTROL
    assert window.credit == 100
