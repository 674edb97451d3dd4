"""A network service on a real database, with a driver that only remembers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dockp.linux.locks import RangeLocks
from dockp.networks import store
from dockp.networks.ipam import DefaultIpam
from dockp.networks.service import NetworkService
from dockp.spi.errors import Conflict, InvalidArgument
from dockp.spi.network import Endpoint, Network, NetworkDriver, NetworkInventory, Publication
from dockp.spi.values import Probe
from dockp.store.database import Database


class MemoryDriver(NetworkDriver):
    """Keeps in memory what a real driver makes on the host."""

    name = "bridge"

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self.networks: dict[str, Network] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.published: dict[str, set[Publication]] = {}

    @classmethod
    def probe(cls, options: Mapping[str, str]) -> Probe:
        return Probe(supported=True)

    def create_network(self, network: Network) -> None:
        if "bad" in network.options:
            raise InvalidArgument("bad option")
        self.networks[network.id] = network

    def remove_network(self, network: Network) -> None:
        self.networks.pop(network.id, None)
        self.published.pop(network.id, None)

    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        assert network.id in self.networks
        self.endpoints[endpoint.id] = endpoint

    def leave(self, network: Network, endpoint: Endpoint, sandbox: int | None) -> None:
        self.endpoints.pop(endpoint.id, None)

    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        for other, found in self.published.items():
            for mine in publications:
                if other != network.id and any(mine.host_port == theirs.host_port for theirs in found):
                    raise Conflict("port is already allocated")
        self.published[network.id] = set(publications)

    def inventory(self) -> NetworkInventory:
        return NetworkInventory(
            networks=frozenset(self.networks),
            endpoints=frozenset(self.endpoints),
            publications=frozenset(p for found in self.published.values() for p in found),
        )


class World:
    """One data root: its services, its driver, and which containers are alive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.driver = MemoryDriver()
        self.alive: set[str] = set()
        self._databases: list[Database] = []

    def open(self) -> NetworkService:
        """One more engine on the same root."""
        database = Database(self.root / "state.db", [store.SCHEMA])
        self._databases.append(database)
        locks = RangeLocks(self.root / "locks")

        def lock(name: str) -> AbstractContextManager[object]:
            return locks.hold(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big"))

        def living(ids: Collection[str]) -> Collection[str]:
            return self.alive & set(ids)

        return NetworkService(
            database,
            ipam_for=lambda name: DefaultIpam({}),
            driver_for=lambda name: self.driver,
            locks=lock,
            living=living,
        )

    def database(self) -> Database:
        """A connection of its own, as another process has it."""
        database = Database(self.root / "state.db", [store.SCHEMA])
        self._databases.append(database)
        return database

    def visible(self) -> list[store.NetworkRecord]:
        """The networks that anybody sees now, made by nobody's asking."""
        with self.database().read() as connection:
            return store.networks(connection, "removing = 0")

    def close(self) -> None:
        for database in self._databases:
            database.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def service(world: World) -> NetworkService:
    return world.open()


@pytest.fixture
def age_everything(world: World) -> Callable[[], None]:
    """Make every record old, so that no grace protects it."""

    def age() -> None:
        database = Database(world.root / "state.db", [store.SCHEMA])
        with database.write() as connection:
            connection.execute("UPDATE endpoints SET created = 0")
            connection.execute("UPDATE departed_endpoints SET since = 0")
        database.close()

    return age
