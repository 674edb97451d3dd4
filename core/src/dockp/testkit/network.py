"""The conformance suite for network drivers: every rule of `dockp.spi.network` as a check that runs on a real kernel.

A driver's whole test is::

    from dockp.testkit.network import NetworkConformance

    class TestMyDriver(NetworkConformance):
        limits = {"what_is_sent_to_a_published_port_arrives_from_outside": "why this driver cannot"}

        @pytest.fixture
        def open_driver(self):
            return lambda: MyDriver({})

Each check runs as root in a network namespace of its own, which stands for the host, and gets a `Lab`. A declared
limit must be real: its check is expected to fail, and failing to fail is a failure. ``DOCKP_REQUIRE=name,…`` turns
"this driver cannot work here" from a skip into a failure.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from dockp.linux import netns
from dockp.spi.errors import Conflict, InvalidArgument
from dockp.spi.network import Network, NetworkDriver, Publication
from dockp.testkit._netlab import HOST_OUTSIDE, OUTSIDE, Lab, Member, command, in_private_namespace, set_kernel

__all__ = ["CHECKS", "Lab", "Member", "NetworkConformance", "command", "in_private_namespace"]

Check = Callable[[Lab], None]
CHECKS: list[Check] = []


def _rule(function: Check) -> Check:
    CHECKS.append(function)
    return function


def _published(member: Member, host_port: int, container_port: int = 80, **more: Any) -> Publication:
    facts = {"protocol": "tcp", "host_ip": "0.0.0.0", "address": member.address, **more}
    return Publication(host_port=host_port, container_port=container_port, **facts)


def _links() -> set[str]:
    return {line.split(":")[1].strip().partition("@")[0] for line in command("ip -o link").splitlines()}


def _same_id(found: frozenset[str], wanted: str) -> bool:
    return any(wanted.startswith(id) and len(id) >= 8 for id in found)


# Networks.


@_rule
def a_network_can_be_made_twice_and_removed_twice(lab: Lab) -> None:
    """Every verb is idempotent."""
    network = lab.network()
    lab.driver.create_network(network)
    lab.driver.create_network(network)
    lab.driver.remove_network(network)
    lab.driver.remove_network(network)


@_rule
def removing_a_network_leaves_the_host_as_it_was(lab: Lab) -> None:
    """Nothing stays: no link, no packet rule."""
    before = _links(), command("nft list ruleset")
    network = lab.network(six=True)
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.driver.publish(network, [_published(member, 8080)])
    lab.driver.publish(network, [])
    lab.driver.leave(network, member.endpoint, member.sandbox)
    lab.driver.remove_network(network)
    assert (_links(), command("nft list ruleset")) == before


@_rule
def a_network_that_never_was_can_be_removed(lab: Lab) -> None:
    """Absent is success."""
    lab.driver.remove_network(lab.network())


@_rule
def an_unknown_option_is_refused(lab: Lab) -> None:
    """Nothing is accepted and ignored; the driver says InvalidArgument and makes nothing."""
    before = _links()
    with pytest.raises(InvalidArgument):
        lab.driver.create_network(lab.network(options={"no.such.option": "1"}))
    assert _links() == before


@_rule
def probing_leaves_nothing_behind(lab: Lab) -> None:
    """`probe` may be called at any time."""
    before = _links(), command("nft list ruleset")
    lab.driver.probe({})
    assert (_links(), command("nft list ruleset")) == before


@_rule
def tables_of_others_are_not_touched(lab: Lab) -> None:
    """The host's own packet rules belong to its administrator."""
    command("nft add table inet mine")
    command("nft add chain inet mine c { type filter hook forward priority 0 ; policy accept ; }")
    command("nft add rule inet mine c tcp dport 9 drop")
    before = command("nft list table inet mine")
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.driver.publish(network, [_published(member, 8080)])
    during = command("nft list table inet mine")
    lab.driver.publish(network, [])
    lab.driver.leave(network, member.endpoint, member.sandbox)
    lab.driver.remove_network(network)
    assert (during, command("nft list table inet mine")) == (before, before)


# Endpoints.


@_rule
def an_endpoint_is_as_it_was_asked_for(lab: Lab) -> None:
    """Name, hardware address, addresses and default routes in the sandbox are the endpoint's; loopback is up."""
    network = lab.network(six=True)
    lab.driver.create_network(network)
    member = lab.join(network, 7)

    def look() -> None:
        shown = command("ip -o addr show dev eth0")
        assert all(address in shown for address in member.endpoint.addresses)
        assert member.endpoint.mac in command("ip -o link show dev eth0")
        assert "UP" in command("ip -o link show dev lo").split(">")[0]
        assert f"default via {member.endpoint.gateway} " in command("ip route")
        assert f"default via {member.endpoint.gateway6} " in command("ip -6 route")

    netns.inside(member.sandbox, look)


@_rule
def endpoints_of_one_network_reach_each_other(lab: Lab) -> None:
    """That is what a network is; both families, and with the sender's own address."""
    network = lab.network(six=True)
    lab.driver.create_network(network)
    one, two = lab.join(network, 2), lab.join(network, 3)
    lab.serve(two.sandbox, 80)
    lab.serve(two.sandbox, 81, six=True)
    assert lab.ask(one.sandbox, two.address, 80) == one.address
    assert lab.ask(one.sandbox, "fd00:1::3", 81) == "fd00:1::2"


@_rule
def endpoints_of_different_networks_do_not_reach_each_other(lab: Lab) -> None:
    """Nor does the host's forwarding help them."""
    networks = [lab.network(1), lab.network(2)]
    for network in networks:
        lab.driver.create_network(network)
    one, two = (lab.join(network, 2) for network in networks)
    lab.serve(two.sandbox, 80)
    assert lab.ask(None, two.address, 80) is not None, "the test itself is wrong: nobody answers"
    assert lab.silent(one.sandbox, two.address, 80)


@_rule
def an_endpoint_reaches_beyond_the_host(lab: Lab) -> None:
    """With the host's address, since nobody outside has a route back to a private one."""
    outside = lab.outside()
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.serve(outside, 80)
    assert lab.ask(member.sandbox, OUTSIDE, 80) == HOST_OUTSIDE


@_rule
def an_internal_network_reaches_nothing_else(lab: Lab) -> None:
    """Even where an endpoint makes itself a default route, on a host that forwards."""
    outside = lab.outside()
    set_kernel("ipv4/ip_forward", "1")
    network = lab.network(internal=True)
    lab.driver.create_network(network)
    one, two = lab.join(network, 2), lab.join(network, 3)
    lab.serve(outside, 80)
    lab.serve(two.sandbox, 80)
    netns.inside(one.sandbox, lambda: command(f"ip route replace default via {network.pools[0].gateway}"))
    assert lab.ask(one.sandbox, two.address, 80) == one.address
    assert lab.silent(one.sandbox, OUTSIDE, 80)


@_rule
def a_port_that_is_not_published_cannot_be_reached_from_outside(lab: Lab) -> None:
    """Not even by who routes packets for the container's address to this host."""
    outside = lab.outside()
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.serve(member.sandbox, 80)
    assert lab.ask(None, member.address, 80) is not None, "the test itself is wrong: nobody answers"
    assert lab.silent(outside, member.address, 80)


@_rule
def joining_twice_is_success(lab: Lab) -> None:
    """The second join finds, or makes again, what the first made."""
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.driver.join(network, member.endpoint, member.sandbox)
    other = lab.join(network, 3)
    lab.serve(member.sandbox, 80)
    assert lab.ask(other.sandbox, member.address, 80) == other.address


@_rule
def leaving_takes_the_interface_away(lab: Lab) -> None:
    """And leaving twice, or without the sandbox at hand, is success."""
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.driver.leave(network, member.endpoint, member.sandbox)
    assert "eth0" not in netns.inside(member.sandbox, _links)
    lab.driver.leave(network, member.endpoint, member.sandbox)
    lab.driver.leave(network, member.endpoint, None)


@_rule
def leaving_works_when_the_sandbox_is_gone(lab: Lab) -> None:
    """``sandbox`` is then None."""
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    os.close(member.sandbox)
    lab.driver.leave(network, member.endpoint, None)
    assert not lab.driver.inventory().endpoints


@_rule
def a_taken_interface_name_is_a_conflict(lab: Lab) -> None:
    """And leaves what has the name alone."""
    network = lab.network()
    lab.driver.create_network(network)
    sandbox = lab.sandbox()
    netns.inside(sandbox, lambda: command("ip link add eth0 type bridge"))
    with pytest.raises(Conflict):
        lab.driver.join(network, lab.endpoint(network, 2), sandbox)
    assert "bridge" in netns.inside(sandbox, lambda: command("ip -d link show dev eth0"))
    assert not lab.driver.inventory().endpoints


@_rule
def a_taken_address_is_a_conflict(lab: Lab) -> None:
    """And the interface that was made for it goes again."""
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    endpoint = lab.endpoint(network, 2, "eth1")
    other = type(endpoint)(id="f" * 64, interface="eth1", mac="02:42:0a:00:00:99", addresses=endpoint.addresses)
    with pytest.raises(Conflict):
        lab.driver.join(network, other, member.sandbox)
    assert "eth1" not in netns.inside(member.sandbox, _links)


@_rule
def joining_does_not_move_the_calling_thread(lab: Lab) -> None:
    """Threads of the engine stay in the host's namespace, also when joining fails."""
    network = lab.network()
    lab.driver.create_network(network)
    before = os.readlink("/proc/thread-self/ns/net")
    member = lab.join(network, 2)
    with pytest.raises(Conflict):
        lab.driver.join(network, lab.endpoint(network, 3), member.sandbox)
    assert os.readlink("/proc/thread-self/ns/net") == before


@_rule
def many_may_join_at_once(lab: Lab) -> None:
    """`join` is called in many threads for different endpoints."""
    network = lab.network()
    lab.driver.create_network(network)
    sandboxes = [lab.sandbox() for _ in range(12)]
    errors: list[BaseException] = []

    def join(number: int, sandbox: int) -> None:
        try:
            lab.driver.join(network, lab.endpoint(network, number), sandbox)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=join, args=pair) for pair in enumerate(sandboxes, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(lab.driver.inventory().endpoints) == len(sandboxes)
    lab.serve(sandboxes[-1], 80)
    assert lab.ask(sandboxes[0], "10.1.0.13", 80) == "10.1.0.2"


# Ports.


def _with_server(lab: Lab) -> tuple[Network, Member]:
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.serve(member.sandbox, 80)
    lab.serve(member.sandbox, 53, protocol="udp")
    return network, member


@_rule
def what_is_sent_to_a_published_port_arrives_from_outside(lab: Lab) -> None:
    """TCP and UDP, and the container sees who is asking."""
    outside = lab.outside()
    network, member = _with_server(lab)
    lab.driver.publish(network, [_published(member, 8080), _published(member, 5353, 53, protocol="udp")])
    assert lab.ask(outside, HOST_OUTSIDE, 8080) == OUTSIDE
    assert lab.ask(outside, HOST_OUTSIDE, 5353, protocol="udp") == OUTSIDE


@_rule
def the_host_reaches_published_ports_on_any_of_its_addresses(lab: Lab) -> None:
    """Localhost above all."""
    lab.outside()
    network, member = _with_server(lab)
    lab.driver.publish(network, [_published(member, 8080)])
    for address in ("127.0.0.1", HOST_OUTSIDE, network.pools[0].gateway):
        assert lab.ask(None, address, 8080) is not None, address


@_rule
def containers_reach_published_ports_through_the_host(lab: Lab) -> None:
    """From another network, from the same network, and from the very container that serves."""
    lab.outside()
    network, member = _with_server(lab)
    other = lab.network(2)
    lab.driver.create_network(other)
    lab.driver.publish(network, [_published(member, 8080)])
    for client in (lab.join(other, 2), lab.join(network, 3), member):
        assert lab.ask(client.sandbox, HOST_OUTSIDE, 8080) is not None, client


@_rule
def a_port_published_on_one_address_does_not_answer_on_others(lab: Lab) -> None:
    """``-p 198.51.100.1:8080:80``."""
    outside = lab.outside()
    network, member = _with_server(lab)
    lab.driver.publish(network, [_published(member, 8080, host_ip=HOST_OUTSIDE)])
    assert lab.ask(outside, HOST_OUTSIDE, 8080) == OUTSIDE
    assert lab.silent(None, "127.0.0.1", 8080)
    assert lab.silent(outside, network.pools[0].gateway, 8080)


@_rule
def a_port_published_on_loopback_cannot_be_reached_from_outside(lab: Lab) -> None:
    """Nor from containers, whatever they send (moby/moby#45610)."""
    outside = lab.outside()
    network, member = _with_server(lab)
    lab.driver.publish(network, [_published(member, 8080, host_ip="127.0.0.1")])
    assert lab.ask(None, "127.0.0.1", 8080) is not None
    # The attacker routes 127/8 to this host, and this host's administrator lets such packets in.
    set_kernel("ipv4/conf/wire/route_localnet", "1")
    neighbour = lab.join(network, 3)
    for who, gateway, link in (
        (outside, HOST_OUTSIDE, "wire-far"),
        (neighbour.sandbox, network.pools[0].gateway, "eth0"),
    ):
        netns.inside(who, lambda gateway=gateway, link=link: _route_loopback_to(gateway, link))  # type: ignore[misc]
        assert lab.silent(who, "127.0.0.1", 8080)
        assert lab.silent(who, gateway, 8080)


def _route_loopback_to(gateway: str, link: str) -> None:
    set_kernel(f"ipv4/conf/{link}/route_localnet", "1")
    command("ip addr del 127.0.0.1/8 dev lo")
    command("ip route flush table local type local 127.0.0.0/8")
    command(f"ip route add 127.0.0.1/32 via {gateway} dev {link} src {_own(link)}")


def _own(link: str) -> str:
    return command(f"ip -4 -o addr show dev {link}").split("inet ")[1].split("/")[0]


@_rule
def publishing_replaces_the_whole_set(lab: Lab) -> None:
    """Exactly these: what was there and is not named any more is gone; the same again changes nothing."""
    network, member = _with_server(lab)
    first, second = _published(member, 8080), _published(member, 8081)
    lab.driver.publish(network, [first])
    lab.driver.publish(network, [first])
    assert lab.driver.inventory().publications == {first}
    lab.driver.publish(network, [second])
    assert lab.driver.inventory().publications == {second}
    assert lab.silent(None, "127.0.0.1", 8080)
    assert lab.ask(None, "127.0.0.1", 8081) is not None
    moved = _published(member, 8081, 8000)
    lab.driver.publish(network, [moved])
    assert lab.driver.inventory().publications == {moved}
    lab.driver.publish(network, [])
    assert not lab.driver.inventory().publications


@_rule
def networks_publish_independently(lab: Lab) -> None:
    """Publishing for one network, or removing it, keeps the ports of another."""
    networks = [lab.network(1), lab.network(2)]
    members = []
    for network in networks:
        lab.driver.create_network(network)
        members.append(lab.join(network, 2))
    ports = [_published(member, 8080 + index) for index, member in enumerate(members)]
    for network, port in zip(networks, ports, strict=True):
        lab.driver.publish(network, [port])
    assert lab.driver.inventory().publications == set(ports)
    lab.driver.leave(networks[0], members[0].endpoint, members[0].sandbox)
    lab.driver.remove_network(networks[0])
    assert lab.driver.inventory().publications == {ports[1]}


@_rule
def one_host_port_cannot_lead_to_two_networks(lab: Lab) -> None:
    """Conflict, and the first keeps it."""
    networks = [lab.network(1), lab.network(2)]
    members = []
    for network in networks:
        lab.driver.create_network(network)
        members.append(lab.join(network, 2))
    lab.driver.publish(networks[0], [_published(members[0], 8080)])
    with pytest.raises(Conflict):
        lab.driver.publish(networks[1], [_published(members[1], 8080)])
    assert lab.driver.inventory().publications == {_published(members[0], 8080)}


@_rule
def many_ports_are_published_at_once(lab: Lab) -> None:
    """A thousand, in one change."""
    network, member = _with_server(lab)
    ports = {_published(member, 20000 + number) for number in range(1000)}
    lab.driver.publish(network, sorted(ports, key=lambda p: p.host_port))
    assert lab.driver.inventory().publications == ports
    assert lab.ask(None, "127.0.0.1", 20999) is not None


@_rule
def networks_may_be_used_by_many_at_once(lab: Lab) -> None:
    """Different networks, different processes: none disturbs another."""
    errors: list[BaseException] = []

    def live(number: int) -> None:
        try:
            network = lab.network(number)
            for _ in range(4):
                lab.driver.create_network(network)
                publication = Publication(
                    protocol="tcp",
                    host_ip="0.0.0.0",
                    host_port=8000 + number,
                    address=f"10.{number}.0.2",
                    container_port=80,
                )
                lab.driver.publish(network, [publication])
                assert publication in lab.driver.inventory().publications
                lab.driver.remove_network(network)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not lab.driver.inventory().networks
    assert not lab.driver.inventory().publications


# What there is.


@_rule
def the_inventory_names_everything(lab: Lab) -> None:
    """Networks, endpoints (ids possibly shortened) and publications; nothing of others."""
    command("ip link add foreign type bridge")
    command("ip link add dkforeign type veth peer name dk-other")
    assert not lab.driver.inventory().networks
    assert not lab.driver.inventory().endpoints
    network = lab.network()
    lab.driver.create_network(network)
    member = lab.join(network, 2)
    lab.driver.publish(network, [_published(member, 8080)])
    found = lab.driver.inventory()
    assert len(found.networks) == 1
    assert _same_id(found.networks, network.id)
    assert len(found.endpoints) == 1
    assert _same_id(found.endpoints, member.endpoint.id)
    assert found.publications == {_published(member, 8080)}


class NetworkConformance:
    """One test a rule. Give `open_driver`; declare ``limits`` as ``{rule: reason}``."""

    limits: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture
    def open_driver(self) -> Callable[[], NetworkDriver]:
        """A function that opens the driver under test."""
        raise NotImplementedError("give the fixture open_driver")

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_rule(self, check: Check, open_driver: Callable[[], NetworkDriver], request: pytest.FixtureRequest) -> None:
        """Runs one check of the suite."""
        unknown = set(self.limits) - {known.__name__ for known in CHECKS}
        assert not unknown, f"limits name no rule: {', '.join(sorted(unknown))}"
        if check.__name__ in self.limits:
            request.applymarker(pytest.mark.xfail(reason=self.limits[check.__name__], strict=True))
        run_check(check, open_driver)


def run_check(check: Check, open_driver: Callable[[], NetworkDriver]) -> None:
    """Run one check on a fresh host. Skips, with the reason, where the driver says it cannot work."""
    driver = open_driver()
    probe = in_private_namespace(driver.probe)({})
    if not probe.supported:
        if driver.name in os.environ.get("DOCKP_REQUIRE", "").split(","):
            raise AssertionError(f"driver {driver.name} is required, but: {probe.reason}")
        pytest.skip(f"driver {driver.name} cannot work here: {probe.reason}")
    in_private_namespace(_check)(check, driver)


def _check(check: Check, driver: NetworkDriver) -> None:
    with Lab(driver) as lab:
        check(lab)
