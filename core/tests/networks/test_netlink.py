"""What we speak to the kernel, checked against what ``ip`` and ``nft`` see."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockp.linux import netns, nft, rtnl
from dockp.linux.netlink import KernelRefused, attribute, each_attribute, nested
from dockp.spi.errors import SystemFault
from dockp.testkit.network import command, in_private_namespace


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert list(each_attribute(data)) == pairs
    assert [kind for kind, _ in each_attribute(nested(7, data))] == [7]


@given(st.binary(max_size=64))
def test_garbage_ends_the_walk_and_nothing_else(data: bytes) -> None:
    assert sum(len(value) + 4 for _, value in each_attribute(data)) <= len(data)


@in_private_namespace
def test_links_and_addresses_are_those_that_ip_shows() -> None:
    for number in range(300):
        command(f"ip link add l{number} type bridge")
    command("ip link set l7 up alias seven mtu 1400")
    command("ip addr add 10.7.0.1/24 dev l7")
    command("ip -6 addr add fd00:7::1/64 dev l7")
    with rtnl.open_here() as sock:
        found = {link.name: link for link in rtnl.links(sock)}
        addresses = rtnl.addresses(sock)
        routed = rtnl.routed_subnets(sock)
    shown = {link["ifname"]: link for link in json.loads(command("ip -d -j link"))}
    assert set(found) == set(shown)
    seven = found["l7"]
    assert (seven.index, seven.mtu, seven.alias, seven.kind, seven.up) == (
        shown["l7"]["ifindex"],
        1400,
        "seven",
        "bridge",
        True,
    )
    assert seven.mac == shown["l7"]["address"]
    assert not found["l8"].up
    assert {(seven.index, "10.7.0.1/24"), (seven.index, "fd00:7::1/64")} <= set(addresses)
    assert {"10.7.0.0/24", "fd00:7::/64"} <= set(routed)


@in_private_namespace
def test_default_routes_are_not_networks_of_the_host() -> None:
    command("ip link add b0 type bridge")
    command("ip link set b0 up")
    command("ip addr add 10.7.0.1/24 dev b0")
    command("ip route add default via 10.7.0.2")
    with rtnl.open_here() as sock:
        found = rtnl.routed_subnets(sock)
    assert "10.7.0.0/24" in found
    assert not [subnet for subnet in found if subnet.endswith("/0")]


@in_private_namespace
def test_a_refusal_says_what_failed_and_why_in_one_line() -> None:
    with rtnl.open_here() as sock:
        with pytest.raises(KernelRefused) as caught:
            sock.run(rtnl.change_link("nosuchlink", up=True))
        assert str(caught.value) == "cannot set up the link nosuchlink: No such device"
        assert caught.value.errno == errno.ENODEV
        assert isinstance(caught.value, SystemFault)
        with pytest.raises(KernelRefused, match=r"far-too-long-a-name.*policy validation"):
            sock.run(rtnl.add_bridge("far-too-long-a-name", "02:00:00:00:00:01"))
        assert rtnl.find_link(sock, "nosuchlink") is None
        sock.run(rtnl.delete_link("nosuchlink"))


@in_private_namespace
def test_after_a_refusal_the_socket_is_of_use() -> None:
    with rtnl.open_here() as sock:
        for _ in range(3):
            answers = sock.exchange((rtnl.delete_link("a"), rtnl.change_link("a"), rtnl.get_link("lo")))
            assert [answer.error for answer in answers] == [errno.ENODEV, errno.ENODEV, 0]
            assert len(rtnl.links(sock)) == 1


def test_the_caller_stays_where_it_is() -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    sandbox = netns.new()
    try:
        inside = netns.inside(sandbox, lambda: os.readlink("/proc/thread-self/ns/net"))
        assert inside != before
        with rtnl.open_in(sandbox) as sock:
            assert [link.name for link in rtnl.links(sock)] == ["lo"]
        with pytest.raises(ZeroDivisionError):
            netns.inside(sandbox, lambda: 1 // 0)
        with pytest.raises(OSError, match="setns"):
            netns.inside(0, lambda: None)
        assert os.readlink("/proc/thread-self/ns/net") == before
    finally:
        os.close(sandbox)
    assert not [thread for thread in threading.enumerate() if thread.name == "dockp-netns"]


@in_private_namespace
def test_loopback_comes_up() -> None:
    sandbox = netns.new()
    try:
        rtnl.loopback_up(sandbox)
        assert "UP" in netns.inside(sandbox, lambda: command("ip -br link show dev lo"))
    finally:
        os.close(sandbox)


@in_private_namespace
def test_elements_are_those_that_nft_shows() -> None:
    nft.run("add table inet t; add map inet t m { type inet_proto . inet_service : ipv4_addr . inet_service; }")
    members = [
        nft.Element(nft.pad(b"\x06") + nft.pad(port.to_bytes(2, "big")), b"\x0a\0\0\x02" + nft.pad(b"\0P"), f"c{port}")
        for port in range(1, 3001)
    ]
    with nft.open_here() as sock:
        nft.change(sock, "t", [nft.Change("m", add=members)])
        shown = command("nft list map inet t m")
        assert shown.count("10.0.0.2 . 80") == 3000
        assert 'tcp . 3000 comment "c3000" : 10.0.0.2 . 80' in shown
        found = nft.elements(sock, "t", "m")
        assert {(e.key, e.data, e.comment) for e in found} == {(e.key, e.data, e.comment) for e in members}
        with pytest.raises(KernelRefused):
            nft.change(sock, "t", [nft.Change("m", delete=[members[0]], add=[nft.Element(b"bad")])])
        assert len(nft.elements(sock, "t", "m")) == 3000, "a transaction happens as a whole or not at all"
        assert nft.elements(sock, "t", "nothing") == []
    assert nft.list_json("list tables")[1]["table"]["name"] == "t"
    assert nft.list_text("list tables") == "table inet t\n"
