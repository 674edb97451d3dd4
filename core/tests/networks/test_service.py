"""The service: records first, host second; parallel engines on one root; documents as Docker's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from dockp.containers.model import Config, CreateRequest, EndpointIpam, EndpointSettings, HostConfig, PortBinding
from dockp.networks.creation import WantedNetwork
from dockp.networks.service import NetworkService
from dockp.networks.store import PoolRecord
from dockp.networks.wanted import WantedEndpoint
from dockp.spi.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from dockp.spi.network import Network
from dockp.testkit.network import in_private_namespace

if TYPE_CHECKING:
    from .conftest import World

SMALL = WantedNetwork(name="small", pools=(PoolRecord(subnet="10.9.0.0/29"),))


def request(
    *, mode: str = "", ports: dict[str, tuple[PortBinding, ...]] | None = None, **host: object
) -> CreateRequest:
    exposed: dict[str, object] = {port: {} for port in ports or {}}
    return CreateRequest(
        config=Config(hostname="web", exposed_ports=exposed),
        host=HostConfig(network_mode=mode, port_bindings=ports or {}, **host),  # type: ignore[arg-type]
    )


def bind(host_port: str = "", host_ip: str = "") -> tuple[PortBinding, ...]:
    return (PortBinding(host_ip=host_ip, host_port=host_port),)


def start(service: NetworkService, world: World, container: str, wanted: CreateRequest, stack: ExitStack) -> None:
    """As the core does it; the ports stay held until the stack is closed."""
    world.alive.add(container)
    with service.sandbox(container, container, wanted) as sandbox:
        sandbox.wire()
        for descriptor in sandbox.reservations():
            stack.enter_context(socket.socket(fileno=os.dup(descriptor)))


# Networks.


@in_private_namespace
def test_a_default_bridge_made_by_half_is_taken_back(
    service: NetworkService, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failed start left a link with a subnet once, until no subnet was left."""
    make = world.driver.create_network

    def make_and_fail(network: Network) -> None:
        make(network)
        raise Unavailable("this kernel lacks a part of nftables")

    monkeypatch.setattr(world.driver, "create_network", make_and_fail)
    with pytest.raises(Unavailable, match="lacks a part"):
        service.predefined()
    assert world.driver.networks == {}
    monkeypatch.undo()
    assert "bridge" in {record.name for record in service.all()}


@in_private_namespace
def test_the_predefined_networks_are_there_from_the_start(service: NetworkService) -> None:
    found = {record.name: record for record in service.all()}
    assert {name: record.driver for name, record in found.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    assert found["bridge"].pools == (PoolRecord(subnet="172.17.0.0/16", gateway="172.17.0.1"),)
    assert found["bridge"].options["com.docker.network.bridge.name"] == "dockp0"
    assert [record.id for record in service.all()] == [record.id for record in service.all()]


@in_private_namespace
def test_the_default_bridge_keeps_out_of_the_hosts_way(service: NetworkService) -> None:
    subprocess.run("ip link add dockp0 type bridge; ip link set dockp0 up", shell=True, check=True)
    subprocess.run("ip addr add 172.17.0.1/16 dev dockp0; ip route add 0.0.0.0/1 dev dockp0", shell=True, check=True)
    found = service.get("bridge")
    assert found.pools[0].subnet == "172.18.0.0/16"
    assert found.options["com.docker.network.bridge.name"] == "dockp1"


@in_private_namespace
def test_a_network_is_found_by_name_id_and_beginning_of_an_id(service: NetworkService) -> None:
    record = service.create(SMALL)
    assert record.pools == (PoolRecord(subnet="10.9.0.0/29", gateway="10.9.0.1"),)
    for reference in ("small", record.id, record.id[:12]):
        assert service.get(reference).id == record.id
    with pytest.raises(NotFound, match="network nowhere not found"):
        service.get("nowhere")


@in_private_namespace
def test_names_and_pools_are_taken_once(service: NetworkService) -> None:
    service.create(SMALL)
    with pytest.raises(AlreadyExists, match="network with name small already exists"):
        service.create(SMALL)
    with pytest.raises(Conflict, match="Pool overlaps"):
        service.create(evolve(SMALL, name="other"))
    for name in ("bridge", "host", "none"):
        with pytest.raises(Forbidden):
            service.create(WantedNetwork(name=name))
    with pytest.raises(InvalidArgument, match="invalid network name"):
        WantedNetwork(name="with space")


@in_private_namespace
def test_a_network_its_driver_refuses_leaves_no_record(service: NetworkService) -> None:
    with pytest.raises(InvalidArgument, match="bad option"):
        service.create(WantedNetwork(name="n", options={"bad": "1"}))
    assert {record.name for record in service.all()} == {"bridge", "host", "none"}


@in_private_namespace
def test_a_network_in_use_is_not_removed(service: NetworkService, world: World) -> None:
    record = service.create(SMALL)
    world.alive.add("c1")
    service.allocate("c1", "web", "small")
    with pytest.raises(FailedPrecondition, match=r'has active endpoints.*name:"web"'):
        service.remove("small")
    service.release("c1")
    service.remove("small")
    assert record.id not in world.driver.networks
    with pytest.raises(NotFound):
        service.get(record.id)
    with pytest.raises(Forbidden, match="pre-defined"):
        service.remove("bridge")


@in_private_namespace
def test_a_removal_that_was_killed_is_finished_later(
    service: NetworkService, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = service.create(SMALL)

    def killed(network: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.driver, "remove_network", killed)
        with pytest.raises(KeyboardInterrupt):
            service.remove("small")
    with pytest.raises(NotFound):
        service.allocate("c1", "web", "small")
    assert service.reconcile() == 1
    assert record.id not in world.driver.networks
    service.create(SMALL)


# Endpoints.


@in_private_namespace
def test_addresses_follow_one_another_and_freed_ones_wait(service: NetworkService) -> None:
    service.create(SMALL)
    found = [service.allocate(f"c{n}", f"n{n}", "small") for n in range(3)]
    assert [e.addresses for e in found] == [("10.9.0.2/29",), ("10.9.0.3/29",), ("10.9.0.4/29",)]
    assert found[0].mac == "02:42:0a:09:00:02"
    assert (found[0].interface, found[0].gateway) == ("eth0", "10.9.0.1")
    service.release("c2")
    assert service.allocate("c3", "n3", "small").addresses == ("10.9.0.5/29",)
    service.release("c0")
    assert service.allocate("c4", "n4", "small").addresses == ("10.9.0.6/29",)
    assert service.allocate("c5", "n5", "small").addresses == ("10.9.0.2/29",)
    assert service.allocate("c6", "n6", "small").addresses == ("10.9.0.4/29",)


@in_private_namespace
def test_asking_twice_gives_the_same_place(service: NetworkService) -> None:
    service.create(SMALL)
    assert service.allocate("c1", "n", "small") == service.allocate("c1", "n", "small")


@in_private_namespace
def test_wishes_are_granted_or_refused_in_dockers_words(service: NetworkService) -> None:
    record = service.create(SMALL)
    wish = WantedEndpoint(ipv4="10.9.0.5", mac="02-00-00-00-00-07", aliases=("db",))
    endpoint = service.allocate("c1", "n", "small", wish)
    assert endpoint.addresses == ("10.9.0.5/29",)
    assert endpoint.mac == "02:00:00:00:00:07"
    with pytest.raises(Conflict, match="Address already in use"):
        service.allocate("c2", "n", "small", WantedEndpoint(ipv4="10.9.0.5"))
    with pytest.raises(InvalidArgument, match=r"no configured subnet.*10\.8\.0\.1"):
        service.allocate("c2", "n", "small", WantedEndpoint(ipv4="10.8.0.1"))
    with pytest.raises(InvalidArgument, match="user specified IP address is supported on user defined networks only"):
        service.allocate("c2", "n", "bridge", WantedEndpoint(ipv4="172.17.0.9"))
    with pytest.raises(InvalidArgument, match="invalid MAC address: x"):
        service.allocate("c2", "n", "small", WantedEndpoint(mac="x"))
    for n in range(3, 7):
        service.allocate(f"c{n}", "n", "small")
    with pytest.raises(Conflict) as caught:
        service.allocate("c9", "n", "small")
    assert str(caught.value) == (f"no available IPv4 addresses on this network's address pools: small ({record.id})")


@in_private_namespace
def test_addresses_of_the_dead_are_used_again_when_none_is_left(
    service: NetworkService, world: World, age_everything: Callable[[], None]
) -> None:
    service.create(SMALL)
    for n in range(5):
        service.allocate(f"c{n}", "n", "small")
    world.alive = {"c0", "c1", "c2", "c4"}
    with pytest.raises(Conflict):  # c3 may be about to start
        service.allocate("c9", "n", "small")
    age_everything()
    assert service.allocate("c9", "n", "small").addresses == ("10.9.0.5/29",)
    assert service.endpoints("c0")
    assert not service.endpoints("c3")


@in_private_namespace
def test_a_container_on_two_networks_has_two_interfaces_and_one_default_route(service: NetworkService) -> None:
    service.create(SMALL)
    service.create(WantedNetwork(name="six", ipv6=True))
    first = service.allocate("c1", "n", "small")
    second = service.allocate("c1", "n", "six")
    assert (first.interface, second.interface) == ("eth0", "eth1")
    assert (first.gateway, second.gateway, second.gateway6) == ("10.9.0.1", "", "")
    assert [":" in cidr for cidr in second.addresses] == [False, True]


@in_private_namespace
def test_many_engines_allocate_at_once_and_nobody_shares_an_address(world: World) -> None:
    world.open().create(WantedNetwork(name="n", pools=(PoolRecord(subnet="10.9.0.0/24"),)))
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            service = world.open()
            for n in range(5):
                service.allocate(f"c{worker}-{n}", "n", "n")
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    service = world.open()
    addresses = {e.addresses for w in range(10) for n in range(5) for e in service.endpoints(f"c{w}-{n}")}
    assert len(addresses) == 50


# A start, as the core does it.


@in_private_namespace
def test_a_start_wires_and_publishes_and_a_release_undoes_it(service: NetworkService, world: World) -> None:
    wanted = request(ports={"80/tcp": bind("8080")})
    with ExitStack() as held:
        start(service, world, "c1", wanted, held)
        (endpoint,) = service.endpoints("c1")
        assert endpoint.id in world.driver.endpoints
        (publication,) = world.driver.inventory().publications
        assert (publication.host_ip, publication.host_port) == ("0.0.0.0", 8080)
        assert (publication.address, publication.container_port) == ("172.17.0.2", 80)
    service.release("c1")
    assert not world.driver.inventory().publications
    assert not service.endpoints("c1")
    service.release("c1")


@in_private_namespace
def test_files_and_sandbox_agree_on_the_address(service: NetworkService, world: World) -> None:
    wanted = request(extra_hosts=("gw:host-gateway",))
    files = service.files("c1", wanted, "web")
    assert "172.17.0.2\tweb\n" in files["/etc/hosts"]
    assert "172.17.0.1\tgw\n" in files["/etc/hosts"]
    assert files["/etc/hostname"] == "web\n"
    with ExitStack() as held:
        start(service, world, "c1", wanted, held)
    (endpoint,) = service.endpoints("c1")
    assert (endpoint.addresses, endpoint.name) == (("172.17.0.2/16",), "c1")


@pytest.mark.parametrize("mode", ["none", "host"])
@in_private_namespace
def test_without_a_network_there_are_files_but_no_places(service: NetworkService, mode: str) -> None:
    files = service.files("c1", request(mode=mode), "web")
    assert files["/etc/hostname"] == "web\n"
    assert not service.endpoints("c1")
    document = service.endpoints_document("c1", request(mode=mode))
    assert list(document) == [mode]
    assert document[mode]["NetworkID"] == service.get(mode).id
    assert document[mode]["IPAddress"] == ""
    assert service.files("c1", request(mode="container:x"), "web") == {}
    assert service.endpoints_document("c1", request(mode="container:x")) == {}


@in_private_namespace
def test_a_port_conflict_names_the_container_or_says_that_it_is_none(service: NetworkService, world: World) -> None:
    with ExitStack() as held:
        start(service, world, "first", request(ports={"80/tcp": bind("8080")}), held)
        service.files("second", request(), "web")  # takes the place before the name is known
        with pytest.raises(Conflict) as caught:
            start(service, world, "second", request(ports={"80/tcp": bind("8080")}), held)
        (endpoint,) = service.endpoints("second")
        assert str(caught.value) == (
            f"driver failed programming external connectivity on endpoint second ({endpoint.id}): "
            "Bind for 0.0.0.0:8080 failed: port is already allocated (by container first)"
        )
        with pytest.raises(Conflict, match="port is already allocated"):
            start(service, world, "third", request(ports={"80/tcp": bind("8080", "127.0.0.1")}), held)
        held.enter_context(socket.create_server(("127.0.0.1", 9090)))
        with pytest.raises(Conflict) as caught:
            start(service, world, "fourth", request(ports={"80/tcp": bind("9090")}), held)
        assert str(caught.value).endswith(
            "failed to bind host port for 0.0.0.0:9090:172.17.0.5:80/tcp: address already in use"
        )
    assert [p.host_port for p in world.driver.inventory().publications] == [8080]


@in_private_namespace
def test_after_a_failure_no_port_stays_held(service: NetworkService, world: World) -> None:
    with ExitStack() as held, socket.create_server(("0.0.0.0", 9090)):
        ports = {"80/tcp": bind("8080"), "81/tcp": bind("9090")}
        with pytest.raises(Conflict):
            start(service, world, "c1", request(ports=ports), held)
        socket.create_server(("0.0.0.0", 8080)).close()


@in_private_namespace
def test_any_port_and_a_range_are_chosen_and_shown(service: NetworkService, world: World) -> None:
    ports = {"80/tcp": bind(), "81/tcp": bind("8000-8001"), "82/udp": (*bind("8000-8001"), *bind("7000"))}
    with ExitStack() as held:
        start(service, world, "c1", request(ports=ports), held)
        shown = service.ports_document("c1")
        assert int(shown["80/tcp"][0]["HostPort"]) > 1023
        assert shown["81/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "8000"}]
        assert [binding["HostPort"] for binding in shown["82/udp"]] == ["8000", "7000"]
        start(service, world, "c2", request(ports={"81/tcp": bind("8000-8001")}), held)
        assert service.ports_document("c2")["81/tcp"][0]["HostPort"] == "8001"


@in_private_namespace
def test_publish_all_takes_every_exposed_port(service: NetworkService, world: World) -> None:
    wanted = request(publish_all_ports=True)
    wanted = evolve(wanted, config=evolve(wanted.config, exposed_ports={"80/tcp": {}, "53/udp": {}}))
    with ExitStack() as held:
        start(service, world, "c1", wanted, held)
        assert set(service.ports_document("c1")) == {"80/tcp", "53/udp"}


@in_private_namespace
def test_with_ipv6_a_port_is_published_on_both_families_under_one_number(service: NetworkService, world: World) -> None:
    service.create(WantedNetwork(name="six", ipv6=True))
    with ExitStack() as held:
        start(service, world, "c1", request(mode="six", ports={"80/tcp": bind()}), held)
        four, six = service.ports_document("c1")["80/tcp"]
        assert (four["HostIp"], six["HostIp"]) == ("0.0.0.0", "::")
        assert four["HostPort"] == six["HostPort"]
        start(service, world, "c2", request(mode="six", ports={"80/tcp": bind("9", "::")}), held)
    with pytest.raises(InvalidArgument, match="no IPv6 address on network bridge"), ExitStack() as held:
        start(service, world, "c3", request(ports={"80/tcp": bind("9", "::")}), held)


@in_private_namespace
def test_the_dead_do_not_publish(service: NetworkService, world: World) -> None:
    with ExitStack() as held:
        start(service, world, "dead", request(ports={"80/tcp": bind("8080")}), held)
    world.alive.discard("dead")  # nobody saw it end; its ports are free again
    with ExitStack() as held:
        start(service, world, "c2", request(ports={"80/tcp": bind("8080")}), held)
        (publication,) = world.driver.inventory().publications
        assert publication.address == "172.17.0.3"


@in_private_namespace
def test_a_dead_containers_port_on_another_network_gives_way(service: NetworkService, world: World) -> None:
    service.create(SMALL)
    with ExitStack() as held:
        start(service, world, "dead", request(mode="small", ports={"80/tcp": bind("8080")}), held)
    world.alive.discard("dead")
    with ExitStack() as held:
        start(service, world, "c2", request(ports={"80/tcp": bind("8080")}), held)
        (publication,) = world.driver.inventory().publications
        assert publication.address == "172.17.0.2"


@in_private_namespace
def test_reconciling_lets_the_dead_go_and_keeps_the_living(
    service: NetworkService, world: World, age_everything: Callable[[], None]
) -> None:
    with ExitStack() as held:
        start(service, world, "dead", request(ports={"80/tcp": bind("8080")}), held)
        start(service, world, "lives", request(ports={"80/tcp": bind("8081")}), held)
        (dead,), (lives,) = service.endpoints("dead"), service.endpoints("lives")
        world.alive.discard("dead")
        assert service.reconcile() == 0, "a young endpoint may belong to a container about to start"
        age_everything()
        assert service.reconcile() == 1
        assert dead.id not in world.driver.endpoints
        assert lives.id in world.driver.endpoints
        assert [p.host_port for p in world.driver.inventory().publications] == [8081]
        assert service.reconcile() == 0


# Documents.


@in_private_namespace
def test_the_settings_document_is_dockers(service: NetworkService, world: World) -> None:
    wanted = request(ports={"80/tcp": bind("8080")})
    wanted = evolve(wanted, config=evolve(wanted.config, exposed_ports={"80/tcp": {}, "443/tcp": {}}))
    with ExitStack() as held:
        start(service, world, "c1", wanted, held)
        settings = service.settings_document("c1", wanted)
    (endpoint,) = service.endpoints("c1")
    bridge = service.get("bridge")
    assert settings["Ports"] == {"443/tcp": None, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    assert settings["IPAddress"] == "172.17.0.2"
    assert settings["Networks"] == {
        "bridge": {
            "IPAMConfig": None,
            "Links": None,
            "Aliases": None,
            "MacAddress": "02:42:ac:11:00:02",
            "DriverOpts": None,
            "GwPriority": 0,
            "NetworkID": bridge.id,
            "EndpointID": endpoint.id,
            "Gateway": "172.17.0.1",
            "IPAddress": "172.17.0.2",
            "IPPrefixLen": 16,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": None,
        }
    }
    json.dumps(settings)
    service.release("c1")
    stopped = service.settings_document("c1", wanted)
    assert stopped["Ports"] == {}
    assert stopped["IPAddress"] == ""
    assert stopped["Networks"]["bridge"]["NetworkID"] == bridge.id


@in_private_namespace
def test_wishes_of_a_container_that_never_ran_are_shown(service: NetworkService) -> None:
    settings = EndpointSettings(ipam_config=EndpointIpam(ipv4_address="10.9.0.5"), aliases=("db",))
    wanted = evolve(request(mode="small"), networks={"small": settings})
    shown = service.endpoints_document("c1", wanted)["small"]
    assert shown["IPAMConfig"] == {"IPv4Address": "10.9.0.5"}
    assert shown["Aliases"] == ["db"]
    assert (shown["NetworkID"], shown["IPAddress"]) == ("", "")


@in_private_namespace
def test_the_network_document_is_dockers(service: NetworkService, world: World) -> None:
    with ExitStack() as held:
        start(service, world, "c1", request(), held)
    (endpoint,) = service.endpoints("c1")
    document = service.inspect("bridge")
    assert document["IPAM"] == {
        "Driver": "default",
        "Options": None,
        "Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}],
    }
    assert document["Containers"] == {
        "c1": {
            "Name": "c1",
            "EndpointID": endpoint.id,
            "MacAddress": "02:42:ac:11:00:02",
            "IPv4Address": "172.17.0.2/16",
            "IPv6Address": "",
        }
    }
    assert document["Scope"] == "local"
    assert document["Created"].endswith("Z")
    service.rename("c1", "renamed")
    assert service.inspect("bridge")["Containers"]["c1"]["Name"] == "renamed"
    assert service.inspect("none")["IPAM"]["Config"] == []
