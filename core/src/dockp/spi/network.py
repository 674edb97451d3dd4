"""The network contract: networks, endpoints and published ports.

Words
    *network*: a group of endpoints that reach each other. *sandbox*: a network namespace, made by the core.
    *endpoint*: the join of one sandbox to one network. *publication*: a host address and port that lead to an endpoint.

Who does what
    The core keeps names, addresses and which endpoint belongs to which container; it reserves host ports by holding
    bound sockets; it asks an `IpamDriver` for addresses. A network driver makes links, addresses, routes and packet
    rules, from values. It keeps no database: everything it made carries a mark (a name prefix, a table) by which the
    verbs and ``inventory()`` find it again. Every verb is idempotent.

The life of an endpoint::

    driver.create_network(network)                  # once a network, or again after a reboot
    driver.join(network, endpoint, sandbox_fd)      # interface, addresses, routes into the sandbox
    driver.publish(network, publications)           # the complete set of the network, one atomic change
    driver.leave(network, endpoint, sandbox_fd)
    driver.remove_network(network)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from attrs import field, frozen

from dockp.spi.values import Probe


@frozen(kw_only=True)
class Pool:
    """One address pool of a network. ``subnet`` in CIDR form; ``gateway`` an address in it, or ""."""

    subnet: str
    gateway: str = ""


@frozen(kw_only=True)
class Network:
    """A network as drivers see it. ``id`` is 64 hex digits; ``options`` are the ``-o`` pairs meant for the driver."""

    id: str
    name: str
    pools: tuple[Pool, ...] = ()
    internal: bool = False
    options: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Endpoint:
    """One container's place on one network.

    Attributes:
        id: 64 hex digits. interface: the name wanted inside the sandbox, ``"eth0"``.
        addresses: CIDR form, ``"172.17.0.2/16"``. mac: ``"02:42:ac:11:00:02"``.
        gateway, gateway6: the next hop of the default route, or "" when this endpoint gives no default route.
    """

    id: str
    interface: str
    mac: str
    addresses: tuple[str, ...]
    gateway: str = ""
    gateway6: str = ""
    options: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Publication:
    """One host port that leads into an endpoint.

    Attributes:
        host_ip: the host address that listens; ``"0.0.0.0"`` or ``"::"`` for all.
        protocol: ``"tcp"``, ``"udp"`` or ``"sctp"``.
        address: the container's address; container_port: its port.
    """

    protocol: str
    host_ip: str
    host_port: int
    address: str
    container_port: int


@frozen(kw_only=True)
class NetworkInventory:
    """What a driver finds on the host: ids of networks, and of endpoints, that carry its mark (possibly shortened)."""

    networks: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    publications: frozenset[Publication] = frozenset()


class NetworkDriver(ABC):
    """One kind of network. Instances hold no state beyond their options.

    Since: SPI 1.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def probe(cls, options: Mapping[str, str]) -> Probe:
        """Say whether such networks can exist on this host. Leaves nothing behind. Raises: InvalidArgument."""

    @abstractmethod
    def __init__(self, options: Mapping[str, str]) -> None:
        """Called once an engine; cheap. ``options`` are engine-wide (``--network-opt``). Raises: InvalidArgument."""

    @abstractmethod
    def create_network(self, network: Network) -> None:
        """Make the network exist on this host; the same network again is success and mends what is missing.

        Called: under the core's lock on the network; also before the first join after a reboot.
        Raises: InvalidArgument for options; Conflict when a link or address of the host is in the way.
        Crash: a second call finishes, ``remove_network`` cleans up.
        """

    @abstractmethod
    def remove_network(self, network: Network) -> None:
        """Take the network away. Absent is success. Called: when no endpoint is left."""

    @abstractmethod
    def join(self, network: Network, endpoint: Endpoint, sandbox: int) -> None:
        """Put an interface with addresses and routes into the sandbox and bring it up.

        Called: in any thread, many at once for different endpoints. Must not change the namespace of the calling
        thread for good. Args: sandbox: descriptor of a network namespace; the caller owns and closes it.
        Raises: Conflict when the address or name is taken inside the sandbox.
        Crash: links die with the sandbox; a leftover on the host side is found by `leave`, and listed by `inventory`.
        """

    @abstractmethod
    def leave(self, network: Network, endpoint: Endpoint, sandbox: int | None) -> None:
        """Undo ``join``. ``sandbox`` is None when the namespace is gone already. Absent is success."""

    @abstractmethod
    def publish(self, network: Network, publications: Sequence[Publication]) -> None:
        """Make exactly these the publications of the network: one atomic change, whatever was there before."""

    @abstractmethod
    def inventory(self) -> NetworkInventory:
        """Everything on this host that carries the driver's mark.

        Called: by tests, and by a check of the whole system that is to come. Recovery goes by the core's records.
        """


class IpamDriver(ABC):
    """Address management: pure decisions over what is taken; the core stores what was decided.

    Since: SPI 1.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""

    @abstractmethod
    def __init__(self, options: Mapping[str, str]) -> None:
        """Called once an engine; cheap."""

    @abstractmethod
    def choose_pool(self, wanted: str | None, taken: Sequence[str], ipv6: bool = False) -> str:
        """A subnet in CIDR form that overlaps none of ``taken`` (other networks and the host's own routes).

        Args: wanted: the subnet asked for, or None for any.
        Raises: InvalidArgument for a malformed subnet; Conflict when the wanted one overlaps, or none is left
            (saying which pools were tried).
        """

    @abstractmethod
    def choose_address(self, pool: str, wanted: str | None, taken: Sequence[str], ip_range: str | None = None) -> str:
        """An address of ``pool`` (without prefix length) that is not in ``taken``.

        Never the network or broadcast address. Addresses freed last are reused last where the driver can tell.
        Raises: InvalidArgument when ``wanted`` lies outside; Conflict when it is taken or the pool is exhausted.
        """
