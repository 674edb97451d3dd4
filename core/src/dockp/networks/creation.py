"""A new network: what is asked for, and the pools it gets. Imported only when one is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import evolve, field, frozen

from dockp.networks.store import PoolRecord
from dockp.spi.errors import InvalidArgument
from dockp.spi.network import IpamDriver

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_SHORTEST_PREFIX = 8
"""Routes to more than this are ways out (a tunnel that takes over the default route by two halves), not networks."""


@frozen(kw_only=True)
class WantedNetwork:
    """A network to make. Pools may lack subnet or gateway: they are then chosen."""

    name: str = field()
    driver: str = "bridge"
    ipam: str = "default"
    ipam_options: Mapping[str, str] = field(factory=dict)
    options: Mapping[str, str] = field(factory=dict)
    labels: Mapping[str, str] = field(factory=dict)
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    pools: tuple[PoolRecord, ...] = ()

    @name.validator
    def _check_name(self, _: object, value: str) -> None:
        if not _NAME.fullmatch(value):
            raise InvalidArgument(f"invalid network name: {value!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


def host_subnets() -> list[str]:
    """Subnets that the host has routes to."""
    from dockp.linux import rtnl

    with rtnl.open_here() as sock:
        return [subnet for subnet in rtnl.routed_subnets(sock) if int(subnet.partition("/")[2]) >= _SHORTEST_PREFIX]


def choose_pools(
    ipam: IpamDriver, wanted: Sequence[PoolRecord], taken: Sequence[str], *, ipv6: bool
) -> tuple[PoolRecord, ...]:
    """The pools of a new network: those asked for, completed, and one of each family that is still missing.

    Raises: Conflict and InvalidArgument as `IpamDriver.choose_pool` and `IpamDriver.choose_address` do.
    """
    asked = list(wanted)
    if not any(":" not in pool.subnet for pool in asked):
        asked.insert(0, PoolRecord(subnet=""))
    families = [6 if ":" in pool.subnet else 4 for pool in asked]
    if ipv6 and 6 not in families:
        asked.append(PoolRecord(subnet=""))
        families.append(6)
    used = list(taken)
    found = []
    for pool, family in zip(asked, families, strict=True):
        subnet = ipam.choose_pool(pool.subnet or None, used, family == 6)
        used.append(subnet)
        reserved = list(pool.auxiliary.values())
        gateway = ipam.choose_address(subnet, pool.gateway or None, reserved)
        found.append(evolve(pool, subnet=subnet, gateway=gateway))
    return tuple(found)


def free_bridge_name() -> str:
    """A name for the default bridge that no link of the host has."""
    from dockp.linux import rtnl

    with rtnl.open_here() as sock:
        taken = {link.name for link in rtnl.links(sock)}
    return next(f"dockp{n}" for n in range(len(taken) + 1) if f"dockp{n}" not in taken)
