"""Address management decides over what it is told is taken, and nothing else."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockp.networks.ipam import DefaultIpam
from dockp.spi.errors import Conflict, InvalidArgument

IPAM = DefaultIpam({})


def test_pools_come_in_dockers_order() -> None:
    taken: list[str] = []
    for _ in range(31):
        taken.append(IPAM.choose_pool(None, taken))
    assert taken[0] == "172.17.0.0/16"
    assert taken[14:17] == ["172.31.0.0/16", "192.168.0.0/20", "192.168.16.0/20"]
    assert taken[30] == "192.168.240.0/20"
    with pytest.raises(Conflict, match="could not find an available, non-overlapping IPv4 address pool"):
        IPAM.choose_pool(None, taken)


def test_a_pool_avoids_routes_of_the_host_whatever_their_size() -> None:
    assert IPAM.choose_pool(None, ["172.16.0.0/13", "fd00::/8", "10.0.0.0/8"]) == "172.24.0.0/16"
    assert IPAM.choose_pool(None, ["172.16.0.0/12", "192.168.0.5/32"]) == "192.168.16.0/20"


def test_a_wanted_pool_that_overlaps_is_a_conflict_in_dockers_words() -> None:
    assert IPAM.choose_pool("10.1.2.3/16", ["10.2.0.0/16"]) == "10.1.0.0/16"
    with pytest.raises(Conflict, match="Pool overlaps with other one on this address space"):
        IPAM.choose_pool("10.1.0.0/24", ["10.1.0.0/16"])


@pytest.mark.parametrize("subnet", ["", "x", "10.0.0.0/33", "10.0.0/8", "fd00::/129"])
def test_a_malformed_pool_is_refused(subnet: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid subnet"):
        IPAM.choose_pool(subnet, [])


def test_ipv6_pools_are_unique_local_and_random() -> None:
    one, two = IPAM.choose_pool(None, [], ipv6=True), IPAM.choose_pool(None, [], ipv6=True)
    assert one != two
    for pool in (one, two):
        network = ipaddress.ip_network(pool)
        assert network.prefixlen == 64
        assert network.subnet_of(ipaddress.ip_network("fd00::/8"))  # type: ignore[arg-type]


def test_addresses_are_sequential_and_go_round() -> None:
    taken = ["10.0.0.1"]
    for _ in range(4):
        taken.append(IPAM.choose_address("10.0.0.0/29", None, taken))
    assert taken[1:] == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]
    taken.remove("10.0.0.3")
    assert IPAM.choose_address("10.0.0.0/29", None, taken) == "10.0.0.6"
    assert IPAM.choose_address("10.0.0.0/29", None, [*taken, "10.0.0.6"]) == "10.0.0.3"


def test_exhaustion_is_a_conflict() -> None:
    with pytest.raises(Conflict, match="no available IPv4 addresses"):
        IPAM.choose_address("10.0.0.0/30", None, ["10.0.0.1", "10.0.0.2"])


def test_a_wanted_address_is_checked() -> None:
    assert IPAM.choose_address("10.0.0.0/24", "10.0.0.9", ["10.0.0.1"]) == "10.0.0.9"
    with pytest.raises(Conflict, match="Address already in use"):
        IPAM.choose_address("10.0.0.0/24", "10.0.0.1", ["10.0.0.1"])
    for outside in ("10.0.1.1", "10.0.0.0", "10.0.0.255", "fd00::1", "nonsense"):
        with pytest.raises(InvalidArgument):
            IPAM.choose_address("10.0.0.0/24", outside, [])


def test_a_range_limits_the_choice_and_must_lie_inside() -> None:
    assert IPAM.choose_address("10.0.0.0/24", None, ["10.0.0.1"], "10.0.0.128/25") == "10.0.0.128"
    with pytest.raises(Conflict):
        IPAM.choose_address("10.0.0.0/24", None, ["10.0.0.252", "10.0.0.253", "10.0.0.254"], "10.0.0.252/30")
    with pytest.raises(InvalidArgument, match="ip-range"):
        IPAM.choose_address("10.0.0.0/24", None, [], "10.0.1.0/25")


@given(
    prefix=st.integers(24, 32),
    taken=st.lists(st.integers(0, 255), max_size=300),
)
def test_an_address_is_free_and_usable_or_there_is_none(prefix: int, taken: list[int]) -> None:
    subnet = ipaddress.ip_network(f"10.0.0.0/{prefix}")
    used = [str(ipaddress.ip_address(int(subnet[0]) + n)) for n in taken if n < subnet.num_addresses]
    usable = {str(host) for host in subnet.hosts()} - set(used)
    try:
        chosen = IPAM.choose_address(str(subnet), None, used)
    except Conflict:
        assert not usable
    else:
        assert chosen in usable


def test_options_are_not_ignored() -> None:
    with pytest.raises(InvalidArgument, match="no option"):
        DefaultIpam({"a": "b"})
