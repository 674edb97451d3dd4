"""The two network drivers that the core brings: ``null`` and ``host``. Neither makes anything on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dockp.spi.errors import InvalidArgument
from dockp.spi.network import Endpoint, Network, NetworkDriver, NetworkInventory, Publication
from dockp.spi.values import Probe


class _Nothing(NetworkDriver):
    @classmethod
    def probe(cls, options: Mapping[str, str]) -> Probe:
        cls(options)
        return Probe(supported=True)

    def __init__(self, options: Mapping[str, str]) -> None:
        for key in options:
            raise InvalidArgument(f"network driver {self.name} has no option {key}")

    def create_network(self, network: Network) -> None:
        return None

    def remove_network(self, network: Network) -> None:
        return None

    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        return None

    def leave(self, network: Network, endpoint: Endpoint, sandbox: int | None) -> None:
        return None

    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        if publications:
            raise InvalidArgument(f"network {network.name} has no ports to publish")

    def inventory(self) -> NetworkInventory:
        return NetworkInventory()


class NullDriver(_Nothing):
    """A sandbox with a loopback interface and nothing else."""

    name = "null"
    summary = "no network but loopback"

    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        from dockp.linux.rtnl import loopback_up

        loopback_up(sandbox)


class HostDriver(_Nothing):
    """The host's own namespace: there is no sandbox to join."""

    name = "host"
    summary = "the host's own network"
