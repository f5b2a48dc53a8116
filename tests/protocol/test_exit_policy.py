"""The exit policy: tables at their edges, embedded addresses, the owner's rules."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restunnel_protocol import AddressError, ExitPolicy, Rule
from restunnel_protocol.exit_policy import (
    SPECIAL_IPV4,
    SPECIAL_IPV6,
    embedded_ipv4,
    special_purpose,
)

DEFAULT = ExitPolicy()


def allowed(address: str, port: int = 443, policy: ExitPolicy = DEFAULT, name=None) -> bool:
    return policy.judge(ip_address(address), port, name).allowed


def policy(*rules: str) -> ExitPolicy:
    return ExitPolicy(tuple(Rule.parse(*rule.split(" ")) for rule in rules))


@pytest.mark.parametrize(("network", "reason"), SPECIAL_IPV4 + SPECIAL_IPV6, ids=str)
def test_each_row_is_refused_from_its_first_to_its_last_address(network, reason):
    assert not DEFAULT.judge(network.network_address, 443).allowed
    assert DEFAULT.judge(network.broadcast_address, 443).reason.endswith(reason)


@pytest.mark.parametrize(
    "address",
    [
        *["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"],
        *["126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255"],
        *["172.32.0.0", "192.0.1.0", "192.0.3.0", "192.88.98.255", "192.88.100.0"],
        *["192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"],
        *["2000::", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2606:4700::1111"],
        *["3ffe:ffff::", "3fff:1000::"],
    ],
)
def test_the_neighbours_of_the_rows_are_reachable(address):
    assert allowed(address)


@pytest.mark.parametrize(
    "address",
    [
        *["::", "::1", "fe80::1", "fec0::1", "fc00::1", "fdff::1", "ff02::1", "100::1"],
        *["::ffff:10.0.0.1", "::ffff:127.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1"],
        *["64:ff9b:1::1", "2002:a00:1::1", "2002:7f00:1::", "5f00::1", "4000::1"],
        *["2001:0:4136:e378:8000:63bf:f5ff:fffe", "2a00::5efe:10.0.0.1", "2a00::200:5efe:7f00:1"],
        "2002:808:808::5efe:10.0.0.1",
    ],
)
def test_ipv6_addresses_that_lead_home_are_refused(address):
    assert not allowed(address)


@pytest.mark.parametrize("address", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"])
def test_ipv6_addresses_that_carry_a_public_ipv4_address_are_judged_as_that(address):
    assert allowed(address)


def naive_ipv4(address: IPv4Address) -> bool:
    """The same table, written as first octets; True if globally reachable."""
    a, b, c, _ = address.packed
    if a in (0, 10, 127) or a >= 224:
        return False
    blocked = {
        100: 64 <= b < 128,
        169: b == 254,
        172: 16 <= b < 32,
        192: b == 168 or (b, c) in ((0, 0), (0, 2), (88, 99)),
        198: b in (18, 19) or (b, c) == (51, 100),
        203: (b, c) == (0, 113),
    }
    return not blocked.get(a, False)


@given(st.ip_addresses(v=4))
def test_ipv4_agrees_with_a_naive_model(address):
    assert (special_purpose(address) is None) == naive_ipv4(address)


@given(st.ip_addresses(v=4))
def test_every_embedding_is_judged_as_the_address_that_it_carries(address):
    number = int(address)
    for value in (
        0xFFFF << 32 | number,
        number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80 | 1,
    ):
        carrier = IPv6Address(value)
        assert embedded_ipv4(carrier)[0] == address
        assert (special_purpose(carrier) is None) == naive_ipv4(address)


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_outside_of_global_unicast_is_reachable(address):
    if special_purpose(address) is None:
        assert address in ip_network_2000 or embedded_ipv4(address)


ip_network_2000 = __import__("ipaddress").ip_network("2000::/3")


def test_an_allow_opens_what_it_names_and_nothing_more():
    home = policy("allow 127.0.0.1:8000", "allow [::1]:8000", "allow 10.0.0.0/8")
    assert allowed("127.0.0.1", 8000, home)
    assert allowed("::1", 8000, home)
    assert allowed("10.9.8.7", 1, home)
    for address, port in (("127.0.0.1", 8001), ("127.0.0.2", 8000), ("192.168.1.1", 80)):
        assert not allowed(address, port, home)
    assert not allowed("10.9.8.7", 25, home)


def test_a_name_rule_opens_the_addresses_of_that_name_only():
    nas = policy("allow nas.local:443", "allow *.lan")
    assert allowed("192.168.1.5", 443, nas, "nas.local")
    assert allowed("192.168.1.5", 443, nas, "NAS.local.")
    assert allowed("192.168.1.5", 80, nas, "printer.lan")
    for port, name in ((80, "nas.local"), (443, "other.local"), (443, None), (80, "lan")):
        assert not allowed("192.168.1.5", port, nas, name)


def test_mail_is_closed_unless_the_port_is_named():
    assert not allowed("8.8.8.8", 25)
    assert allowed("8.8.8.8", 25, policy("allow *:25"))
    assert allowed("8.8.8.8", 25, policy("allow 8.8.8.8:25"))
    assert not allowed("8.8.8.8", 25, policy("allow 8.8.8.8"))
    assert not allowed("10.0.0.1", 25, policy("allow *:25"))
    assert not allowed("10.0.0.1", 80, policy("allow *"))


def test_a_deny_beats_every_allow():
    closed = policy("allow 8.8.8.8", "deny 8.8.0.0/16", "deny bad.example", "deny *:22")
    assert not allowed("8.8.8.8", 443, closed)
    assert not allowed("1.1.1.1", 443, closed, "bad.example")
    assert not allowed("1.1.1.1", 22, closed)
    assert not closed.judge_name("bad.example", 443).allowed
    assert closed.judge_name("good.example", 443).allowed


def test_names_of_the_local_network_are_not_even_looked_up():
    assert not DEFAULT.judge_name("printer.local", 80).allowed
    assert not DEFAULT.judge_name("Printer.LOCAL.", 80).allowed
    assert policy("allow printer.local:80").judge_name("printer.local", 80).allowed
    assert not policy("allow printer.local:80").judge_name("printer.local", 81).allowed


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:8000", "[::1]:8000", "10.0.0.0/8", "nas.local:443", "*:25", "*", "::1",
     "10.0.0.0/8:80", "fd00::/8", "[fd00::/8]:80", "*.lan", "example.com"],
)  # fmt: skip
def test_rules_are_read_as_they_are_written(text):
    rule = Rule.parse("allow", text)
    assert Rule.parse("allow", str(rule)) == rule
    assert str(rule) == text


@pytest.mark.parametrize(
    "text",
    ["", ":80", "a b", "10.0.0.1/8", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:x", "*.1.2.3.4",
     "[::1", "10.0.0.0/33", "*.*.lan"],
)  # fmt: skip
def test_malformed_rules_are_refused(text):
    with pytest.raises(AddressError):
        Rule.parse("allow", text)
