"""The address management driver ``default``: private IPv4 pools in Docker's order, unique local IPv6 ones."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from dockp.spi.errors import Conflict, InvalidArgument
from dockp.spi.network import IpamDriver

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_OVERLAP = "Pool overlaps with other one on this address space"
_EXHAUSTED = (
    "could not find an available, non-overlapping {family} address pool among the defaults to assign to the network"
)
_IPV6_ATTEMPTS = 64


class DefaultIpam(IpamDriver):
    """Pools 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and on; IPv6 below a random fd00::/8 prefix
    (RFC 4193). The option ``pools`` gives others: ``BASE=SIZE,…``, each base cut into subnets of that prefix length.
    Addresses are given out one after the other."""

    name = "default"
    summary = "private address pools of this host"

    def __init__(self, options: Mapping[str, str]) -> None:
        for key in options:
            if key != "pools":
                raise InvalidArgument(f"address management driver default has no option {key}")
        self._pools = tuple(_parse_pool(text) for text in options.get("pools", "").split(",") if text)

    def choose_pool(self, wanted: str | None, taken: Sequence[str], ipv6: bool = False) -> str:
        others = [parse_subnet(text) for text in taken]
        if wanted is not None:
            subnet = parse_subnet(wanted)
            if _overlaps(subnet, others):
                raise Conflict(_OVERLAP)
            return str(subnet)
        for candidate in self._candidates(ipv6):
            if not _overlaps(candidate, others):
                return str(candidate)
        tried = "fd00::/8" if ipv6 else "172.17.0.0/16 to 172.31.0.0/16, 192.168.0.0/20 to 192.168.240.0/20"
        if self._pools:
            tried = ", ".join(str(base) for base, _ in self._pools)
        text = _EXHAUSTED.format(family="IPv6" if ipv6 else "IPv4")
        raise Conflict(f"all predefined address pools have been fully subnetted: {text} (tried {tried})")

    def _candidates(self, ipv6: bool) -> Iterator[IPNetwork]:
        given = [(base, size) for base, size in self._pools if (base.version == 6) == ipv6]
        if given:
            return (subnet for base, size in given for subnet in base.subnets(new_prefix=size))
        return _unique_local() if ipv6 else _private()

    def choose_address(self, pool: str, wanted: str | None, taken: Sequence[str], ip_range: str | None = None) -> str:
        subnet = parse_subnet(pool)
        used = {ipaddress.ip_address(text) for text in taken}
        if wanted is not None:
            return str(_check_wanted(subnet, wanted, used))
        area = subnet if ip_range is None else parse_subnet(ip_range)
        if area.version != subnet.version or not _contains(subnet, area):
            raise InvalidArgument(f"invalid ip-range {area}: not within the subnet {subnet}")
        after = ipaddress.ip_address(taken[-1]) if taken else None
        chosen = _next_free(subnet, area, used, after)
        if chosen is None:
            raise Conflict(
                f"no available {'IPv6' if subnet.version == 6 else 'IPv4'} addresses on this network's pool {area}"
            )
        return str(chosen)


def parse_subnet(text: str) -> IPNetwork:
    """A subnet in CIDR form; host bits are dropped. Raises: InvalidArgument."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidArgument(f"invalid subnet {text}: invalid CIDR block notation") from None


def parse_address(text: str) -> IPAddress:
    """An IP address. Raises: InvalidArgument."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None


def _overlaps(subnet: IPNetwork, others: Sequence[IPNetwork]) -> bool:
    return any(subnet.version == other.version and subnet.overlaps(other) for other in others)


def _contains(outer: IPNetwork, inner: IPNetwork) -> bool:
    return inner.network_address in outer and inner.broadcast_address in outer


def _parse_pool(text: str) -> tuple[IPNetwork, int]:
    base, _, size = text.partition("=")
    network = parse_subnet(base)
    if not size.isdigit() or not network.prefixlen <= int(size) <= network.max_prefixlen:
        raise InvalidArgument(f"invalid address pool {text!r}: it takes BASE=SIZE, such as 10.10.0.0/16=24")
    return network, int(size)


def _private() -> Iterator[IPNetwork]:
    for second in range(17, 32):
        yield ipaddress.ip_network(f"172.{second}.0.0/16")
    for third in range(0, 256, 16):
        yield ipaddress.ip_network(f"192.168.{third}.0/20")


def _unique_local() -> Iterator[IPNetwork]:
    for _ in range(_IPV6_ATTEMPTS):
        # RFC 4193, section 3.2: fd, forty random bits, a subnet number (0 here).
        yield ipaddress.IPv6Network((b"\xfd" + os.urandom(5) + bytes(10), 64))


def _reserved(subnet: IPNetwork) -> set[IPAddress]:
    # A /31 and a /32 (or /127, /128) have no network and broadcast address of their own (RFC 3021, RFC 6164).
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        return set()
    if subnet.version == 6:
        return {subnet.network_address}
    return {subnet.network_address, subnet.broadcast_address}


def _check_wanted(subnet: IPNetwork, wanted: str, used: set[IPAddress]) -> IPAddress:
    address = parse_address(wanted)
    if address not in subnet or address in _reserved(subnet):
        raise InvalidArgument(f"no configured subnet contains IP address {wanted}")
    if address in used:
        raise Conflict("Address already in use")
    return address


def _next_free(subnet: IPNetwork, area: IPNetwork, used: set[IPAddress], after: IPAddress | None) -> IPAddress | None:
    """The first free address of ``area`` behind ``after``, or from its beginning when there is none behind."""
    first, last = int(area.network_address), int(area.broadcast_address)
    make = type(area.network_address)
    blocked = {int(address) for address in used | _reserved(subnet) if first <= int(address) <= last}
    if len(blocked) > last - first:
        return None
    start = first
    if after is not None and after.version == area.version and first <= int(after) < last:
        start = int(after) + 1
    number = start
    while number in blocked:
        number = first if number == last else number + 1
        if number == start:
            return None
    return make(number)
