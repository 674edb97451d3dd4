"""What is special about bridges: names, marks, flags, repairs, and other packet filters on the same host."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from attrs import evolve

from dockp.linux import netns, nft
from dockp.linux.netlink import Request
from dockp.spi.errors import Conflict, DockpError, InvalidArgument, NotFound, NotImplemented, SystemFault
from dockp.spi.network import Publication
from dockp.testkit.network import Lab, Member, command, in_private_namespace
from dockp_net_bridge import plan
from dockp_net_bridge.driver import BridgeDriver

MTU = "com.docker.network.driver.mtu"
NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
WIRE = "198.51.100.1"
OUTSIDE = "198.51.100.2"


def link(name: str) -> dict[str, object]:
    (found,) = json.loads(command(f"ip -d -j link show dev {name}"))
    return found  # type: ignore[no-any-return]


def publication(member: Member, host_port: int = 8080, host_ip: str = "0.0.0.0") -> Publication:
    return Publication(protocol="tcp", host_ip=host_ip, host_port=host_port, address=member.address, container_port=80)


@in_private_namespace
def test_links_carry_the_ids_they_belong_to() -> None:
    with Lab(BridgeDriver({})) as lab:
        network = lab.network(options={NAME: "dockp0"})
        lab.driver.create_network(network)
        member = lab.join(network, 2)
        bridge = link("dockp0")
        port = link(plan.endpoint_link(member.endpoint.id))
        assert bridge["ifalias"] == network.id
        assert bridge["address"] == plan.bridge_mac(network.id)
        assert port["ifalias"] == member.endpoint.id
        assert port["master"] == "dockp0"


@in_private_namespace
def test_the_bridge_keeps_its_hardware_address_when_ports_come_and_go() -> None:
    with Lab(BridgeDriver({})) as lab:
        network = lab.network(options={NAME: "dockp0"})
        lab.driver.create_network(network)
        before = link("dockp0")["address"]
        member = lab.join(network, 2)
        during = link("dockp0")["address"]
        lab.driver.leave(network, member.endpoint, None)
        assert (during, link("dockp0")["address"]) == (before, before)


@in_private_namespace
def test_the_mtu_of_the_network_is_that_of_its_links() -> None:
    with Lab(BridgeDriver({})) as lab:
        network = lab.network(options={NAME: "dockp0", MTU: "1400"})
        lab.driver.create_network(network)
        member = lab.join(network, 2)
        assert link("dockp0")["mtu"] == 1400
        assert link(plan.endpoint_link(member.endpoint.id))["mtu"] == 1400
        assert "mtu 1400" in netns.inside(member.sandbox, lambda: command("ip link show dev eth0"))


@in_private_namespace
def test_without_inter_container_communication_members_reach_the_outside_but_not_each_other() -> None:
    with Lab(BridgeDriver({})) as lab:
        outside = lab.outside()
        network = lab.network(options={ICC: "false"})
        lab.driver.create_network(network)
        one, two = lab.join(network, 2), lab.join(network, 3)
        lab.serve(two.sandbox, 80)
        lab.serve(outside, 80)
        assert lab.silent(one.sandbox, two.address, 80)
        assert lab.ask(one.sandbox, OUTSIDE, 80) == WIRE
        assert lab.ask(None, two.address, 80) is not None


@in_private_namespace
def test_without_masquerading_the_outside_sees_the_containers_own_address() -> None:
    with Lab(BridgeDriver({})) as lab:
        outside = lab.outside()
        network = lab.network(options={MASQUERADE: "false"})
        lab.driver.create_network(network)
        member = lab.join(network, 2)
        lab.serve(outside, 80)
        assert lab.ask(member.sandbox, OUTSIDE, 80) == member.address


@pytest.mark.parametrize("filtered", ["0", "1"])
@in_private_namespace
def test_a_container_reaches_its_own_published_port(filtered: str) -> None:
    # Docker makes the host pass bridged frames to its IP rules, which changes the path of exactly this packet.
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not switch.exists():
        pytest.skip("the kernel has no br_netfilter")
    switch.write_text(filtered)
    with Lab(BridgeDriver({})) as lab:
        network = lab.network()
        lab.driver.create_network(network)
        one, two = lab.join(network, 2), lab.join(network, 3)
        lab.serve(one.sandbox, 80)
        lab.driver.publish(network, [publication(one)])
        gateway = network.pools[0].gateway
        assert lab.ask(one.sandbox, gateway, 8080) == gateway
        assert lab.ask(two.sandbox, gateway, 8080) == gateway
        assert lab.ask(two.sandbox, one.address, 80) == two.address


@in_private_namespace
def test_ipv6_is_published_and_masqueraded_like_ipv4() -> None:
    with Lab(BridgeDriver({})) as lab:
        outside = lab.outside()
        network = lab.network(six=True)
        lab.driver.create_network(network)
        one, two = lab.join(network, 2), lab.join(network, 3)
        six = one.endpoint.addresses[1].partition("/")[0]
        lab.serve(one.sandbox, 80, six=True)
        lab.serve(outside, 80, six=True)
        port = Publication(protocol="tcp", host_ip="::", host_port=8080, address=six, container_port=80)
        lab.driver.publish(network, [port])
        assert lab.ask(outside, "2001:db8:1::1", 8080) == "2001:db8:1::2"
        assert lab.ask(None, "2001:db8:1::1", 8080) is not None
        assert lab.ask(two.sandbox, "2001:db8:1::1", 8080) is not None
        assert lab.ask(one.sandbox, "2001:db8:1::1", 8080) is not None
        assert lab.ask(one.sandbox, "2001:db8:1::2", 80) == "2001:db8:1::1"
        assert lab.silent(outside, six, 80)
        started = time.monotonic()
        assert lab.silent(None, "::1", 8080)
        assert time.monotonic() - started < 0.2, "who tries ::1 must be refused at once, and go on to 127.0.0.1"


@in_private_namespace
def test_a_client_that_goes_on_sending_by_udp_notices_what_is_published() -> None:
    with Lab(BridgeDriver({})) as lab:
        outside = lab.outside()
        network = lab.network()
        lab.driver.create_network(network)
        members = [lab.join(network, number) for number in (2, 3)]
        for member, answer in zip(members, (b"one", b"two"), strict=True):
            _echo(lab, member.sandbox, answer)
        client = netns.inside(outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with client:
            client.settimeout(0.4)
            client.bind((OUTSIDE, 4000))

            def ask() -> bytes:
                client.sendto(b"?", (WIRE, 5353))
                with contextlib.suppress(OSError):
                    return client.recv(16)
                return b""

            assert ask() == b""
            for member, answer in zip(members, (b"one", b"two"), strict=True):
                udp = evolve(publication(member, 5353), protocol="udp", container_port=53)
                lab.driver.publish(network, [udp])
                assert ask() == answer
            lab.driver.publish(network, [])
            assert ask() == b""


def _echo(lab: Lab, sandbox: int, answer: bytes) -> None:
    def bind() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 53))
        return sock

    sock = netns.inside(sandbox, bind)

    def serve() -> None:
        sock.settimeout(3)
        with sock, contextlib.suppress(OSError):
            while True:
                _, peer = sock.recvfrom(16)
                sock.sendto(answer, peer)

    threading.Thread(target=serve, daemon=True).start()


@in_private_namespace
def test_a_drop_of_the_hosts_own_table_wins() -> None:
    with Lab(BridgeDriver({})) as lab:
        outside = lab.outside()
        network = lab.network()
        lab.driver.create_network(network)
        member = lab.join(network, 2)
        lab.serve(member.sandbox, 80)
        lab.driver.publish(network, [publication(member)])
        assert lab.ask(outside, WIRE, 8080) == OUTSIDE
        nft.run("add table inet mine; add chain inet mine f { type filter hook forward priority 10; policy drop; }")
        assert lab.silent(outside, WIRE, 8080)


@in_private_namespace
def test_rules_that_were_flushed_come_back_with_the_next_use() -> None:
    with Lab(BridgeDriver({})) as lab:
        outside = lab.outside()
        network = lab.network()
        lab.driver.create_network(network)
        member = lab.join(network, 2)
        lab.serve(member.sandbox, 80)
        nft.run("flush ruleset")
        assert lab.ask(outside, member.address, 80) is not None
        lab.driver.create_network(network)
        assert lab.silent(outside, member.address, 80)


@in_private_namespace
def test_what_a_killed_join_leaves_is_in_the_inventory_and_leave_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab(BridgeDriver({})) as lab:
        network = lab.network()
        lab.driver.create_network(network)
        endpoint, sandbox = lab.endpoint(network, 2), lab.sandbox()
        other = "f" * 11
        command(f"ip link add dk{other} type veth peer name lone")
        assert lab.driver.inventory().endpoints == {other}
        command(f"ip link del dk{other}")
        lab.driver.join(network, endpoint, sandbox)
        os.close(sandbox)  # the container died, its sandbox with it
        deadline = time.monotonic() + 5
        while lab.driver.inventory().endpoints and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not lab.driver.inventory().endpoints
        lab.driver.leave(network, endpoint, None)


@in_private_namespace
def test_a_network_that_was_half_made_is_finished_and_can_be_removed() -> None:
    with Lab(BridgeDriver({})) as lab:
        network = lab.network()
        name = "dockp-" + network.id[:9]
        command(f"ip link add {name} type bridge")
        assert lab.driver.inventory().networks == {network.id[:9]}
        lab.driver.create_network(network)
        assert lab.driver.inventory().networks == {network.id}
        lab.driver.remove_network(network)
        command(f"ip link add {name} type bridge")
        lab.driver.remove_network(network)
        assert not lab.driver.inventory().networks


@in_private_namespace
def test_a_link_or_address_of_the_host_is_not_taken_over() -> None:
    with Lab(BridgeDriver({})) as lab:
        command("ip link add theirs type bridge")
        command("ip addr add 10.9.0.1/24 dev theirs")
        command("ip link add plain type veth peer name plain2")
        with pytest.raises(Conflict, match="theirs"):
            lab.driver.create_network(lab.network(1, options={NAME: "theirs"}))
        with pytest.raises(Conflict, match="plain"):
            lab.driver.create_network(lab.network(2, options={NAME: "plain"}))
        with pytest.raises(Conflict, match=r"10\.9\.0\.1"):
            lab.driver.create_network(lab.network(9))
        lab.driver.remove_network(lab.network(1, options={NAME: "theirs"}))
        assert "10.9.0.1" in command("ip addr show dev theirs")


@in_private_namespace
def test_the_last_network_takes_the_table_with_it_and_not_before() -> None:
    with Lab(BridgeDriver({})) as lab:
        networks = [lab.network(1), lab.network(2)]
        for network in networks:
            lab.driver.create_network(network)
        lab.driver.remove_network(networks[0])
        assert "dockp" in command("nft list tables")
        lab.driver.remove_network(networks[1])
        assert "dockp" not in command("nft list tables")


@in_private_namespace
def test_forwarding_is_turned_on_for_networks_that_lead_out_only() -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    forwarding.write_text("0")
    with Lab(BridgeDriver({})) as lab:
        lab.driver.create_network(lab.network(1, internal=True))
        assert forwarding.read_text().strip() == "0"
        lab.driver.create_network(lab.network(2))
        assert forwarding.read_text().strip() == "1"


@in_private_namespace
def test_loopback_is_routed_through_a_bridge_only_when_something_is_published_there() -> None:
    with Lab(BridgeDriver({})) as lab:
        lab.outside()
        network = lab.network(options={NAME: "dockp0"})
        lab.driver.create_network(network)
        member = lab.join(network, 2)
        switch = Path("/proc/sys/net/ipv4/conf/dockp0/route_localnet")
        lab.driver.publish(network, [publication(member, host_ip=WIRE)])
        assert switch.read_text().strip() == "0"
        lab.driver.publish(network, [publication(member)])
        assert switch.read_text().strip() == "1"


@in_private_namespace
def test_misuse_is_refused_in_one_line() -> None:
    with Lab(BridgeDriver({})) as lab:
        network, internal = lab.network(1), lab.network(2, internal=True)
        with pytest.raises(NotFound, match="does not exist"):
            lab.driver.join(network, lab.endpoint(network, 2), lab.sandbox())
        lab.driver.create_network(network)
        lab.driver.create_network(internal)
        member = lab.join(network, 2)
        with pytest.raises(InvalidArgument, match="internal"):
            lab.driver.publish(internal, [publication(member)])
        with pytest.raises(InvalidArgument, match="famil"):
            lab.driver.publish(network, [publication(member, host_ip="::")])
        with pytest.raises(NotImplemented, match="::1"):
            lab.driver.publish(network, [publication(member, host_ip="::1")])
        with pytest.raises(Conflict, match="twice"):
            lab.driver.publish(network, [publication(member), publication(member)])
    with pytest.raises(InvalidArgument, match="no option"):
        BridgeDriver({"x": "y"})


@in_private_namespace
def test_a_rule_the_kernel_refuses_is_one_line_and_changes_nothing() -> None:
    with pytest.raises(SystemFault) as caught:
        nft.run("add table inet a\nadd rule inet a nowhere accept\n")
    assert "\n" not in str(caught.value)
    assert not command("nft list tables")


@in_private_namespace
def test_a_table_is_not_removed_under_the_hands_of_another() -> None:
    nft.run("add table inet t; add set inet t s { type ifname; }")
    with nft.open_here() as rules:
        seen = nft.generation(rules)
        nft.run('add element inet t s { "eth0" }')
        body = nft._header(1) + b"\x06\x00\x01\x00t\x00\x00\x00"
        with pytest.raises(OSError, match="restarted"):
            nft._transact(rules, (Request("remove", nft._type(2), body),), seen)
        assert not nft.delete_table_if_empty(rules, "t", "s")
        nft.run("flush set inet t s")
        assert nft.delete_table_if_empty(rules, "t", "s")


_WORKER = """
import sys
from dockp.spi.network import Network, Pool, Publication
from dockp_net_bridge.driver import BridgeDriver
number = int(sys.argv[1])
driver = BridgeDriver({})
pool = Pool(subnet=f"10.{number}.0.0/24", gateway=f"10.{number}.0.1")
network = Network(id=f"{number:02x}" * 32, name=f"n{number}", pools=(pool,))
for turn in range(15):
    driver.create_network(network)
    wanted = {
        Publication(protocol="tcp", host_ip="0.0.0.0", host_port=number * 1000 + turn * 10 + port,
                    address=f"10.{number}.0.2", container_port=80)
        for port in range(10)
    }
    driver.publish(network, list(wanted))
    assert wanted <= driver.inventory().publications
    if turn % 3 == 0 and turn:
        driver.remove_network(network)
driver.create_network(network)
driver.publish(network, list(wanted))
"""


@in_private_namespace
def test_processes_that_work_on_different_networks_at_once_lose_nothing() -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", _WORKER, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(2, 6)
    ]
    for child in children:
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said
    found = BridgeDriver({}).inventory()
    assert len(found.networks) == 4
    assert len(found.publications) == 40


@in_private_namespace
def test_one_endpoint_joins_quickly() -> None:
    with Lab(BridgeDriver({})) as lab:
        network = lab.network()
        lab.driver.create_network(network)
        sandboxes = [lab.sandbox() for _ in range(9)]
        times = []
        for number, sandbox in enumerate(sandboxes, 2):
            start = time.perf_counter()
            lab.driver.join(network, lab.endpoint(network, number), sandbox)
            times.append(time.perf_counter() - start)
        # Three milliseconds on an idle machine; the margin is for a busy one.
        assert sorted(times)[len(times) // 2] < 0.02


def test_without_privilege_probing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = BridgeDriver.probe({})
    assert not found.supported
    assert "root" in found.reason


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    def missing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(nft, "_library", None)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DockpError, match="libnftables1"):
        nft.run("list tables")
