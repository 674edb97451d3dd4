"""The engine's settings for networks reach what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dockp.networks.ipam import DefaultIpam
from dockp.networks.service import DefaultBridge
from dockp.networks.store import NetworkRecord, PoolRecord
from dockp.spi.errors import InvalidArgument
from dockp.spi.network import Network

if TYPE_CHECKING:
    from .conftest import World


def test_pools_are_cut_from_the_bases_that_are_given() -> None:
    ipam = DefaultIpam({"pools": "10.10.0.0/16=24,10.20.0.0/16=20"})
    assert ipam.choose_pool(None, []) == "10.10.0.0/24"
    assert ipam.choose_pool(None, ["10.10.0.0/24"]) == "10.10.1.0/24"
    assert ipam.choose_pool(None, ["10.10.0.0/16"]) == "10.20.0.0/20"


@pytest.mark.parametrize("text", ["10.10.0.0/16", "10.10.0.0/16=8", "10.10.0.0/16=x", "nonsense=24"])
def test_a_malformed_pool_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        DefaultIpam({"pools": text})


def test_the_default_bridge_is_compared_with_what_is_wanted() -> None:
    record = NetworkRecord(
        id="a" * 64,
        name="bridge",
        driver="bridge",
        options={"com.docker.network.driver.mtu": "1500"},
        pools=(PoolRecord(subnet="172.17.0.0/16", gateway="172.17.0.1"),),
        created=1,
    )
    assert DefaultBridge().fits(record)
    assert DefaultBridge(address="172.17.0.1/16", mtu=1500).fits(record)
    assert not DefaultBridge(address="10.1.0.1/24").fits(record)
    assert not DefaultBridge(mtu=1400).fits(record)
    assert DefaultBridge(address="10.1.0.1/24").pools == (PoolRecord(subnet="10.1.0.0/24", gateway="10.1.0.1"),)


def test_making_the_default_bridge_keeps_nobody_from_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = world.open()
    seen: list[list[str]] = []
    make = world.driver.create_network

    def slow(network: Network) -> None:
        # What another engine can do while the driver is at work: write, and not yet see the bridge.
        other.predefined(bridge=False)
        with world.database().write() as connection:
            connection.execute("UPDATE networks SET labels = labels")
        seen.append([record.name for record in world.visible()])
        make(network)

    monkeypatch.setattr(world.driver, "create_network", slow)
    world.open().predefined()
    assert seen == [["host", "none"]]
    assert sorted(record.name for record in world.visible()) == ["bridge", "host", "none"]


def test_a_default_bridge_left_half_made_is_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    service = world.open()
    with monkeypatch.context() as patch:
        patch.setattr(service, "_make_or_undo", die)
        patch.setattr("dockp.networks.store.delete_network", lambda *_: None)  # nobody is left to do it
        with pytest.raises(Killed):
            service.predefined()
    assert [record.name for record in world.visible()] == ["host", "none"]
    assert sorted(record.name for record in world.open().all()) == ["bridge", "host", "none"]
    assert len(world.driver.networks) == 1
