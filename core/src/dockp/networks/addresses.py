"""Asking an address management driver for the addresses of an endpoint."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence

from attrs import frozen

from dockp.networks.store import NetworkRecord, PoolRecord
from dockp.networks.wanted import WantedEndpoint
from dockp.spi.errors import Conflict, InvalidArgument
from dockp.spi.network import IpamDriver

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@frozen(kw_only=True)
class Chosen:
    """Addresses for an endpoint: in CIDR form, the gateways of their pools, and which was given out last by pool."""

    addresses: tuple[str, ...]
    gateway: str
    gateway6: str
    last: Mapping[int, str]


def choose_addresses(ipam: IpamDriver, network: NetworkRecord, wanted: WantedEndpoint, in_use: Sequence[str]) -> Chosen:
    """One address of each family that the network has. Raises: Conflict, InvalidArgument."""
    addresses = []
    gateways = {4: "", 6: ""}
    last = {}
    for family, wish in ((4, wanted.ipv4), (6, wanted.ipv6)):
        pools = [
            (position, pool)
            for position, pool in enumerate(network.pools)
            if (6 if ":" in pool.subnet else 4) == family
        ]
        if wish:
            pools = [(position, pool) for position, pool in pools if _inside(wish, pool.subnet)]
            if not pools:
                raise InvalidArgument(
                    f"invalid config for network {network.name}: invalid endpoint settings:"
                    f" no configured subnet or ip-range contain the IP address {wish}"
                )
        elif not pools:
            continue
        position, pool, address = _first_that_has_one(ipam, network, pools, wish, in_use)
        prefix = pool.subnet.partition("/")[2]
        addresses.append(f"{address}/{prefix}")
        gateways[family] = pool.gateway
        last[position] = address
    return Chosen(addresses=tuple(addresses), gateway=gateways[4], gateway6=gateways[6], last=last)


def _inside(address: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {address}") from None


def _first_that_has_one(
    ipam: IpamDriver,
    network: NetworkRecord,
    pools: Sequence[tuple[int, PoolRecord]],
    wish: str,
    in_use: Sequence[str],
) -> tuple[int, PoolRecord, str]:
    for position, pool in pools:
        taken = [pool.gateway, *pool.auxiliary.values()] if pool.gateway else list(pool.auxiliary.values())
        taken += [address for address in in_use if _inside(address, pool.subnet)]
        if wish:
            return position, pool, ipam.choose_address(pool.subnet, wish, taken)
        # The driver goes on behind the last one taken. Listing the address given out last, even when it is free again,
        # makes it go round the pool, so that what was freed just now is used again as late as possible.
        for used in ([*taken, pool.last_address] if pool.last_address else taken, taken):
            try:
                return position, pool, ipam.choose_address(pool.subnet, None, used, pool.ip_range or None)
            except Conflict:
                continue
    family = "IPv6" if ":" in pools[0][1].subnet else "IPv4"
    raise Conflict(f"no available {family} addresses on this network's address pools: {network.name} ({network.id})")


def mac_for(wanted: str, addresses: Sequence[str]) -> str:
    """The hardware address of an endpoint: the one asked for, or one that belongs to its IP address, so that whoever
    gets the IP address next has the same and no neighbour's cache is ever wrong. Without an IP address a random one.

    Raises: InvalidArgument when what is asked for is none.
    """
    if wanted:
        text = wanted.lower().replace("-", ":")
        if not _MAC.fullmatch(text):
            raise InvalidArgument(f"invalid MAC address: {wanted}")
        return text
    tail = ipaddress.ip_interface(addresses[0]).ip.packed[-4:] if addresses else os.urandom(4)
    return ":".join(("02", "42", *(f"{byte:02x}" for byte in tail)))
