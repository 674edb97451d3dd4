"""The plan: text and elements, compared with golden files. ``DOCKP_REWRITE_GOLDEN=1`` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dockp.linux import nft
from dockp.spi.errors import InvalidArgument
from dockp.spi.network import Network, Pool, Publication
from dockp.testkit.network import command, in_private_namespace
from dockp_net_bridge import plan
from dockp_net_bridge.options import BridgeOptions

GOLDEN = Path(__file__).parent / "golden"
FOUR = Pool(subnet="172.17.0.0/16", gateway="172.17.0.1")
SIX = Pool(subnet="fd00:17::/64", gateway="fd00:17::1")
NETWORKS = {
    "plain": Network(id="1" * 64, name="bridge", pools=(FOUR,), options={"com.docker.network.bridge.name": "dockp0"}),
    "dual-stack": Network(id="2" * 64, name="dual", pools=(FOUR, SIX)),
    "internal": Network(id="3" * 64, name="inner", pools=(FOUR, SIX), internal=True),
    "routed": Network(
        id="4" * 64,
        name="routed",
        pools=(FOUR,),
        options={"com.docker.network.bridge.enable_ip_masquerade": "false"},
    ),
}


def publication(**changes: object) -> Publication:
    facts: dict[str, object] = {
        "protocol": "tcp",
        "host_ip": "0.0.0.0",
        "host_port": 8080,
        "address": "172.17.0.2",
        "container_port": 80,
    }
    return Publication(**{**facts, **changes})  # type: ignore[arg-type]


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("DOCKP_REWRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_commands_for_a_network_are_the_golden_ones(name: str) -> None:
    network = NETWORKS[name]
    compare(f"{name}.commands.nft", plan.table_commands(network, BridgeOptions.of(network)))


@in_private_namespace
def test_the_kernel_holds_what_was_planned() -> None:
    for network in NETWORKS.values():
        nft.run(plan.table_commands(network, BridgeOptions.of(network)))
    ports = [
        publication(),
        publication(host_port=8081, host_ip="127.0.0.1"),
        publication(host_port=53, protocol="udp", container_port=5353),
        publication(host_ip="::", address="fd00:17::2"),
        publication(host_ip="2001:db8::1", address="fd00:17::2", host_port=9),
    ]
    with nft.open_here() as rules:
        nft.change(rules, plan.TABLE, plan.publication_changes((), ports, "1" * 64))
    # nft orders the elements of a hash set by chance.
    lines = sorted(line.strip().rstrip(",}").strip() for line in command("nft list table inet dockp").splitlines())
    compare("all.table.txt", "\n".join(line.removeprefix("elements = { ") for line in lines if line) + "\n")


@in_private_namespace
def test_the_presence_check_sees_every_missing_part() -> None:
    network = NETWORKS["dual-stack"]
    options = BridgeOptions.of(network)
    elements, chains = plan.present(network, options)
    with nft.open_here() as rules:

        def holds() -> bool:
            return nft.holds(rules, plan.TABLE, elements=elements, chains=chains)

        assert not holds()
        nft.run(plan.table_commands(network, options))
        assert holds()
        damages = [f"flush set inet dockp {name}" for name, _ in elements]
        damages += [f"flush chain inet dockp {name}" for name, _ in chains]
        damages += ["add rule inet dockp forward counter", "flush ruleset"]
        for damage in damages:
            nft.run(damage)
            assert not holds(), damage
            nft.run(plan.table_commands(network, options))
            assert holds(), damage


@given(
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
    addresses=st.one_of(
        st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
    ),
    host_port=st.integers(1, 65535),
    container_port=st.integers(1, 65535),
)
def test_an_element_tells_its_publication(
    protocol: str, addresses: tuple[object, object], host_port: int, container_port: int
) -> None:
    # Addresses of this kind have two spellings.
    assume(not any(getattr(address, "ipv4_mapped", None) for address in addresses))
    wanted = Publication(
        protocol=protocol,
        host_ip=str(addresses[0]),
        host_port=host_port,
        address=str(addresses[1]),
        container_port=container_port,
    )
    name, element = plan.publication_element(wanted, "n")
    assert plan.publication_of(name, element) == wanted


def test_changes_name_only_what_differs() -> None:
    old = [plan.publication_element(publication(host_port=port), "n") for port in (1, 2, 3)]
    wanted = [publication(host_port=2), publication(host_port=3, container_port=81), publication(host_port=4)]
    (change,) = plan.publication_changes(old, wanted, "n")
    ports_of = {id(e): plan.publication_of(change.set, e).host_port for e in (*change.delete, *change.add)}
    assert sorted(ports_of[id(e)] for e in change.delete) == [1, 3]
    assert sorted(ports_of[id(e)] for e in change.add) == [3, 4]
    assert plan.publication_changes(old, [publication(host_port=port) for port in (3, 2, 1)], "n") == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("com.docker.network.bridge.name", "with space"),
        ("com.docker.network.bridge.name", "much-too-long-name"),
        ("com.docker.network.bridge.name", "a/b"),
        ("com.docker.network.bridge.name", ".."),
        ("com.docker.network.bridge.name", '"; flush ruleset; "'),
        ("com.docker.network.bridge.enable_icc", "maybe"),
        ("com.docker.network.driver.mtu", "12"),
        ("com.docker.network.driver.mtu", "x"),
        ("com.docker.network.bridge.host_binding_ipv4", "::"),
        ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(key: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=key.replace(".", r"\.")):
        BridgeOptions.of(Network(id="1" * 64, name="n", options={key: value}))
