"""The suite itself is tested: for each of its rules there is a driver that breaks this rule, and must fail it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from attrs import evolve

from dockp.linux import netns, nft, rtnl
from dockp.spi.network import Endpoint, Network, NetworkInventory, Publication
from dockp.spi.values import Probe
from dockp.testkit.network import CHECKS, Check, command, run_check
from dockp_net_bridge import plan
from dockp_net_bridge.driver import BridgeDriver
from dockp_net_bridge.options import BridgeOptions

Base = BridgeDriver


class Strict(Base):
    """Fails on the second time."""

    def create_network(self, network: Network) -> None:
        with rtnl.open_here() as links:
            assert rtnl.find_link(links, BridgeOptions.of(network).link) is None
        super().create_network(network)


class Littering(Base):
    def remove_network(self, network: Network) -> None:
        super().remove_network(network)
        nft.run("add table inet litter")


class FailsOnAbsent(Base):
    def remove_network(self, network: Network) -> None:
        with rtnl.open_here() as links:
            assert rtnl.find_link(links, BridgeOptions.of(network).link) is not None
        super().remove_network(network)


class IgnoresOptions(Base):
    def create_network(self, network: Network) -> None:
        super().create_network(evolve(network, options={}))


class ProbesInPlace(Base):
    @classmethod
    def probe(cls, options: Mapping[str, str]) -> Probe:
        nft.run("add table inet probe")
        return super().probe(options)


class FlushesAll(Base):
    def create_network(self, network: Network) -> None:
        nft.run("flush ruleset")
        super().create_network(network)


class WrongAddress(Base):
    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        super().join(network, evolve(endpoint, gateway=""), sandbox)


class NoPort(Base):
    """Endpoints are connected to nothing."""

    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        super().join(network, endpoint, sandbox)
        command(f"ip link set {plan.endpoint_link(endpoint.id)} nomaster")


def without(*rules: str) -> type[Base]:
    """A driver whose table lacks the rules that contain these words."""

    class Lacking(Base):
        def create_network(self, network: Network) -> None:
            super().create_network(network)
            text = plan.table_commands(network, BridgeOptions.of(network))
            kept = [line for line in text.splitlines() if not any(words in line for words in rules)]
            assert len(kept) < len(text.splitlines())
            nft.run("\n".join(kept))

    return Lacking


class JoinsOnce(Base):
    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        with rtnl.open_here() as links:
            assert rtnl.find_link(links, plan.endpoint_link(endpoint.id)) is None
        super().join(network, endpoint, sandbox)


class NeverLeaves(Base):
    def leave(self, network: Network, endpoint: Endpoint, sandbox: int | None) -> None:
        return None


class NeedsSandbox(Base):
    def leave(self, network: Network, endpoint: Endpoint, sandbox: int | None) -> None:
        assert sandbox is not None
        super().leave(network, endpoint, sandbox)


class TakesOver(Base):
    """Removes what has the wanted name or address."""

    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        with rtnl.open_in(sandbox) as links:
            for link in rtnl.links(links):
                if link.name.startswith("eth"):
                    links.run(rtnl.delete_link(link.name))
        super().join(network, endpoint, sandbox)


class MovesThread(Base):
    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        super().join(network, endpoint, sandbox)
        netns._setns(sandbox, netns.CLONE_NEWNET)


class OneAtATime(Base):
    """Two joins at once meet in a shared name."""

    busy = False

    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        assert not OneAtATime.busy
        OneAtATime.busy = True
        try:
            super().join(network, endpoint, sandbox)
        finally:
            OneAtATime.busy = False


class PublishesNothing(Base):
    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        return None


class PublishesEverywhere(Base):
    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        super().publish(network, [evolve(p, host_ip="0.0.0.0") for p in publications])


class OnlyAdds(Base):
    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        super().publish(network, [*self.inventory().publications, *publications])


class OneSetForAll(Base):
    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        with nft.open_here() as rules:
            found = [(name, e) for name in plan.MAPS for e in nft.elements(rules, plan.TABLE, name)]
            nft.change(rules, plan.TABLE, plan.publication_changes(found, publications, network.id))


class FirstHundred(Base):
    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        super().publish(network, publications[:100])


class RemovesTable(Base):
    def remove_network(self, network: Network) -> None:
        super().remove_network(network)
        nft.run("add table inet dockp; delete table inet dockp")


class SeesNothing(Base):
    def inventory(self) -> NetworkInventory:
        return evolve(super().inventory(), networks=frozenset())


BROKEN: dict[str, type[Base]] = {
    "a_network_can_be_made_twice_and_removed_twice": Strict,
    "removing_a_network_leaves_the_host_as_it_was": Littering,
    "a_network_that_never_was_can_be_removed": FailsOnAbsent,
    "an_unknown_option_is_refused": IgnoresOptions,
    "probing_leaves_nothing_behind": ProbesInPlace,
    "tables_of_others_are_not_touched": FlushesAll,
    "an_endpoint_is_as_it_was_asked_for": WrongAddress,
    "endpoints_of_one_network_reach_each_other": NoPort,
    "endpoints_of_different_networks_do_not_reach_each_other": without("inward drop"),
    "an_endpoint_reaches_beyond_the_host": without("@nat4"),
    "an_internal_network_reaches_nothing_else": without("@internal drop"),
    "a_port_that_is_not_published_cannot_be_reached_from_outside": without("goto inward"),
    "joining_twice_is_success": JoinsOnce,
    "leaving_takes_the_interface_away": NeverLeaves,
    "leaving_works_when_the_sandbox_is_gone": NeedsSandbox,
    "a_taken_interface_name_is_a_conflict": TakesOver,
    "a_taken_address_is_a_conflict": TakesOver,
    "joining_does_not_move_the_calling_thread": MovesThread,
    "many_may_join_at_once": OneAtATime,
    "what_is_sent_to_a_published_port_arrives_from_outside": PublishesNothing,
    "the_host_reaches_published_ports_on_any_of_its_addresses": without("saddr 127.0.0.0/8"),
    "containers_reach_published_ports_through_the_host": without("@inside4 ct status"),
    "a_port_published_on_one_address_does_not_answer_on_others": PublishesEverywhere,
    "a_port_published_on_loopback_cannot_be_reached_from_outside": without("daddr 127.0.0.0/8 drop"),
    "publishing_replaces_the_whole_set": OnlyAdds,
    "networks_publish_independently": OneSetForAll,
    "one_host_port_cannot_lead_to_two_networks": OneSetForAll,
    "many_ports_are_published_at_once": FirstHundred,
    "networks_may_be_used_by_many_at_once": RemovesTable,
    "the_inventory_names_everything": SeesNothing,
}


def test_every_rule_has_a_driver_that_breaks_it() -> None:
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_driver_that_breaks_the_rule_fails_it(check: Check) -> None:
    opened: Callable[[], Any] = lambda: BROKEN[check.__name__]({})  # noqa: E731
    with pytest.raises(BaseException) as caught:  # any failure will do, but a skip
        run_check(check, opened)
    assert not isinstance(caught.value, pytest.skip.Exception)


def test_a_driver_that_cannot_work_here_is_skipped_unless_required(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(Base):
        @classmethod
        def probe(cls, options: Mapping[str, str]) -> Probe:
            return Probe(supported=False, reason="no such kernel")

    monkeypatch.delenv("DOCKP_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such kernel"):
        run_check(CHECKS[0], lambda: Nowhere({}))
    monkeypatch.setitem(os.environ, "DOCKP_REQUIRE", "overlay2,bridge")
    with pytest.raises(AssertionError, match="no such kernel"):
        run_check(CHECKS[0], lambda: Nowhere({}))
