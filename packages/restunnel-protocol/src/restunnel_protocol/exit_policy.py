"""Which targets a node may connect to: a pure function over frozen tables.

The node's owner is safe from the hub (promise 2): by default only addresses that
are globally reachable, and never port 25. The tables are written out here rather
than taken from `ipaddress.is_global`, whose answer differs between Python
versions and is wrong for several ranges.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries, IANA IPv6 Global
Unicast Assignments, as of 2026-10. AS112 and AMT anycast ranges are globally
reachable by those registries and therefore not listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Literal, TypeAlias

from .addresses import IPAddress, parse_host
from .errors import AddressError

IPNetwork: TypeAlias = IPv4Network | IPv6Network

SPECIAL_IPV4: Final = (
    (IPv4Network("0.0.0.0/8"), "this network (RFC 791)"),
    (IPv4Network("10.0.0.0/8"), "private use (RFC 1918)"),
    (IPv4Network("100.64.0.0/10"), "shared address space (RFC 6598)"),
    (IPv4Network("127.0.0.0/8"), "loopback (RFC 1122)"),
    (IPv4Network("169.254.0.0/16"), "link local (RFC 3927)"),
    (IPv4Network("172.16.0.0/12"), "private use (RFC 1918)"),
    (IPv4Network("192.0.0.0/24"), "IETF protocol assignments (RFC 6890)"),
    (IPv4Network("192.0.2.0/24"), "documentation (RFC 5737)"),
    (IPv4Network("192.88.99.0/24"), "6to4 relay anycast, deprecated (RFC 7526)"),
    (IPv4Network("192.168.0.0/16"), "private use (RFC 1918)"),
    (IPv4Network("198.18.0.0/15"), "benchmarking (RFC 2544)"),
    (IPv4Network("198.51.100.0/24"), "documentation (RFC 5737)"),
    (IPv4Network("203.0.113.0/24"), "documentation (RFC 5737)"),
    (IPv4Network("224.0.0.0/4"), "multicast (RFC 5771)"),
    (IPv4Network("240.0.0.0/4"), "reserved or broadcast (RFC 1112, RFC 919)"),
)

GLOBAL_UNICAST_IPV6: Final = IPv6Network("2000::/3")

SPECIAL_IPV6: Final = (
    (IPv6Network("2001::/23"), "IETF protocol assignments (RFC 2928)"),
    (IPv6Network("2001:db8::/32"), "documentation (RFC 3849)"),
    (IPv6Network("3fff::/20"), "documentation (RFC 9637)"),
)

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_ISATAP_IDENTIFIERS: Final = (0x00005EFE, 0x02005EFE)
"""Upper half of an ISATAP interface identifier (RFC 5214, section 6.1)."""

CLOSED_PORTS: Final = {25: "mail relays abuse it (port 25)"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a connection may be made, and why, in words for the owner."""

    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One word of the owner: allow or deny a network, a name, or every host, at a port.

    `host` is a network, a lower-case name (`*.lan` covers all below `lan`), or None
    for every host; `port` is None for every port.
    """

    action: Literal["allow", "deny"]
    host: IPNetwork | str | None
    port: int | None

    @classmethod
    def parse(cls, action: Literal["allow", "deny"], text: str) -> Rule:
        """`127.0.0.1:8000`, `[::1]:8000`, `10.0.0.0/8`, `nas.local:443`, `*:25`.

        Raises `AddressError`.
        """
        host, port = _split_rule(text)
        return cls(action, _parse_rule_host(host), port)

    def __str__(self) -> str:
        if self.host is None:
            host = "*"
        elif isinstance(self.host, str):
            host = self.host
        else:
            single = self.host.prefixlen == self.host.max_prefixlen
            host = str(self.host.network_address if single else self.host)
        if self.port is None:
            return host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def covers(self, address: IPAddress, name: str | None, port: int) -> bool:
        """Whether the rule speaks of a connection to `address`, asked for as `name`."""
        return self.port in (None, port) and self._covers_host(address, name)

    def covers_name(self, name: str, port: int) -> bool:
        """Whether the rule speaks of a name before it is resolved."""
        return (
            isinstance(self.host, str)
            and self.port in (None, port)
            and _name_matches(self.host, name)
        )

    def _covers_host(self, address: IPAddress, name: str | None) -> bool:
        if self.host is None:
            return True
        if isinstance(self.host, str):
            return name is not None and _name_matches(self.host, name)
        return address.version == self.host.version and address in self.host


@dataclass(frozen=True, slots=True)
class ExitPolicy:
    """The owner's rules over the built-in table. A deny always beats an allow."""

    rules: tuple[Rule, ...] = ()

    def judge_name(self, name: str, port: int) -> Verdict:
        """May `name` be resolved at all? Its addresses are judged afterwards."""
        plain = normalize_name(name)
        denied = next((r for r in self._denies() if r.covers_name(plain, port)), None)
        if denied is not None:
            return Verdict(False, f"denied by the owner's rule {denied}")
        if plain.endswith(".local") and not any(
            rule.covers_name(plain, port) for rule in self._allows()
        ):
            return Verdict(False, "a name of the local network (RFC 6762)")
        return Verdict(True, "the name may be resolved")

    def judge(self, address: IPAddress, port: int, name: str | None = None) -> Verdict:
        """May the node connect to exactly this address and port?

        `name` is what the hub asked for, if it was a name. An allow opens a special
        address only if it names it; `*:25` opens the port and nothing more.
        """
        plain = normalize_name(name) if name is not None else None
        denied = next((r for r in self._denies() if r.covers(address, plain, port)), None)
        if denied is not None:
            return Verdict(False, f"denied by the owner's rule {denied}")
        allows = [rule for rule in self._allows() if rule.covers(address, plain, port)]
        special = special_purpose(address)
        if special is not None and not any(rule.host is not None for rule in allows):
            return Verdict(False, f"{address} is {special}")
        closed = CLOSED_PORTS.get(port)
        if closed is not None and not any(rule.port == port for rule in allows):
            return Verdict(False, closed)
        if allows:
            return Verdict(True, f"allowed by the owner's rule {allows[0]}")
        return Verdict(True, f"{address} is globally reachable")

    def _denies(self) -> Iterable[Rule]:
        return (rule for rule in self.rules if rule.action == "deny")

    def _allows(self) -> Iterable[Rule]:
        return (rule for rule in self.rules if rule.action == "allow")


def special_purpose(address: IPAddress) -> str | None:
    """Why an address is not globally reachable, or None if it is.

    An IPv6 address that carries an IPv4 address is judged as that one.
    """
    if isinstance(address, IPv4Address):
        return _lookup(SPECIAL_IPV4, address)
    embedded = embedded_ipv4(address)
    for carried in embedded:
        reason = _lookup(SPECIAL_IPV4, carried)
        if reason is not None:
            return f"a way to {carried}: {reason}"
    if embedded and not _is_isatap(address):
        return None
    if address not in GLOBAL_UNICAST_IPV6:
        return "outside of global unicast (RFC 4291)"
    return _lookup(SPECIAL_IPV6, address)


def embedded_ipv4(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses to which a packet for this IPv6 address may go."""
    raw = int(address)
    carried: list[int] = []
    if address in _MAPPED or address in _COMPATIBLE or address in _NAT64 or _is_isatap(address):
        carried.append(raw)
    if address in _SIX_TO_FOUR:
        carried.append(raw >> 80)
    if address in _TEREDO:  # RFC 4380, section 4: server, and client with its bits inverted
        carried += [raw >> 64, ~raw]
    return tuple(IPv4Address(bits & 0xFFFFFFFF) for bits in carried)


def normalize_name(name: str) -> str:
    """Lower case, without the dot of the root."""
    return name.lower().removesuffix(".")


def _is_isatap(address: IPv6Address) -> bool:
    return int(address) >> 32 & 0xFFFFFFFF in _ISATAP_IDENTIFIERS


def _lookup(table: Iterable[tuple[IPNetwork, str]], address: IPAddress) -> str | None:
    return next((reason for network, reason in table if address in network), None)


def _name_matches(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name == pattern


def _split_rule(text: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?", text)
    if bracketed:
        host, digits = bracketed[1], bracketed[2]
    elif text.count(":") > 1:
        host, digits = text, None  # a bare IPv6 address or network
    else:
        match = re.fullmatch(r"([^:]+)(?::(\d{1,5}))?", text)
        if match is None:
            raise AddressError(f"not a rule: {text[:80]!r}")
        host, digits = match[1], match[2]
    port = int(digits) if digits is not None else None
    if port is not None and not 0 < port <= 0xFFFF:
        raise AddressError(f"port {port} is not between 1 and 65535")
    return host, port


def _parse_rule_host(host: str) -> IPNetwork | str | None:
    if host == "*":
        return None
    if "/" in host:
        try:
            return ip_network(host)
        except ValueError as error:
            raise AddressError(f"not a network: {error}") from error
    wildcard = host.startswith("*.")
    parsed = parse_host(host[2:] if wildcard else host)
    if isinstance(parsed, str):
        return ("*." if wildcard else "") + normalize_name(parsed)
    if wildcard:
        raise AddressError(f"not a name: {host[:80]!r}")
    return ip_network(parsed)
