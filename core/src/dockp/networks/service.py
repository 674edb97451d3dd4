"""Networks of one engine: which exist, who is on them, and which ports they publish.

This module keeps the records and their order; drivers do the work on the host. For every verb that touches the host the
row comes first and goes last. Locks: a network's own lock (among all threads and processes) is held around
``create_network``, ``remove_network`` and ``publish`` of its driver, since each means "make it exactly so"; it is never
taken inside a transaction, and nothing else is taken while it is held. The lock on making the default bridge comes
before it. Joining takes no lock.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from dockp.networks import store
from dockp.networks.addresses import choose_addresses, mac_for
from dockp.networks.hosts import HOST_GATEWAY
from dockp.networks.local import HostDriver, NullDriver
from dockp.networks.pool import SandboxPool
from dockp.networks.publishing import Living, PortService, requested_bindings
from dockp.networks.sandbox import Sandbox, container_files
from dockp.networks.store import Database, EndpointRecord, NetworkRecord, PoolRecord
from dockp.networks.wanted import WantedEndpoint, has_sandbox, network_mode, wanted_endpoints
from dockp.spi.errors import (
    AlreadyExists,
    Conflict,
    DockpError,
    FailedPrecondition,
    Forbidden,
    InvalidArgument,
    NotFound,
)
from dockp.spi.network import IpamDriver, NetworkDriver

if TYPE_CHECKING:
    from dockp.containers.model import CreateRequest
    from dockp.networks.creation import WantedNetwork

PREDEFINED = ("bridge", "host", "none")
_MTU = "com.docker.network.driver.mtu"
_DEFAULT_BRIDGE = {
    "com.docker.network.bridge.default_bridge": "true",
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
    _MTU: "1500",
}
_BRIDGE_NAME = "com.docker.network.bridge.name"

_SECOND = 1_000_000_000
_GRACE = 120 * _SECOND
"""An endpoint this young may belong to a container that is only about to start."""
_CHECK_AGAIN = 2.0
"""Seconds for which a network that was found in order is taken to be so."""
_SWEEP_AFTER = 2 * _SECOND
"""By then the kernel has taken away the links of a sandbox that ended, so sweeping finds nothing left to wait for."""

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class DefaultBridge:
    """The engine's settings for its default bridge: its own address in CIDR form, and the MTU; None leaves the choice
    to the drivers."""

    address: str | None = None
    mtu: int | None = None

    @property
    def pools(self) -> tuple[PoolRecord, ...]:
        if self.address is None:
            return ()
        import ipaddress

        interface = ipaddress.ip_interface(self.address)
        return (PoolRecord(subnet=str(interface.network), gateway=str(interface.ip)),)

    @property
    def options(self) -> dict[str, str]:
        return {} if self.mtu is None else {_MTU: str(self.mtu)}

    def fits(self, record: NetworkRecord) -> bool:
        """Whether the bridge that exists is as wanted."""
        if any(record.options.get(name) != value for name, value in self.options.items()):
            return False
        return all(any(have.gateway == pool.gateway for have in record.pools) for pool in self.pools)


class NetworkService:
    """Thread-safe; any number of processes may work on one data root.

    Args:
        ipam_for, driver_for: drivers by name; raise NotFound or Unavailable.
        locks: an exclusive lock by name, among all threads and processes.
        living: of some container ids, those that run or are being started. Called now and then inside a transaction,
            so it must not write.
        default_bridge: how the default bridge is wanted.

    Attributes: pool: namespaces made ahead, for containers with and without networks.
    """

    def __init__(
        self,
        database: Database,
        *,
        ipam_for: Callable[[str], IpamDriver],
        driver_for: Callable[[str], NetworkDriver],
        locks: Callable[[str], AbstractContextManager[object]],
        living: Living,
        default_bridge: DefaultBridge | None = None,
    ) -> None:
        self._database = database
        self._bridge = default_bridge or DefaultBridge()
        self._ipam_for = ipam_for
        self._driver_for = driver_for
        self._locks = locks
        self._living = living
        self.pool = SandboxPool()
        self._checked: dict[str, float] = {}
        self.ports = PortService(database, self._driver, locks, living)

    # Networks.

    def predefined(self, *, bridge: bool = True) -> None:
        """Make sure that ``host`` and ``none`` exist, and ``bridge`` unless it is not needed. Cheap when they do."""
        names = PREDEFINED if bridge else ("host", "none")
        marks = ", ".join("?" * len(names))
        with self._database.read() as connection:
            found = store.networks(connection, f"removing = 0 AND name IN ({marks})", names)
        misfit = next((record for record in found if record.name == "bridge" and not self._bridge.fits(record)), None)
        if misfit is not None:
            self._forget_default_bridge(misfit)
        elif len(found) == len(names):
            return
        from dockp.networks.creation import WantedNetwork

        with self._database.write() as connection:
            existing = {record.name for record in store.networks(connection)}
            for name, driver in (("host", "host"), ("none", "null")):
                if name not in existing:
                    self._insert(connection, WantedNetwork(name=name, driver=driver), predefined=True)
        if bridge:
            with self._locks("network/default-bridge"):
                self._make_default_bridge()

    def _make_default_bridge(self) -> None:
        """Make the default bridge unless it is there. The caller holds the lock of this name.

        Its link is made while the record is still marked as going: nobody sees the network before its name and its
        subnet belong to this data root on this host, and what a killed command leaves is taken away like any other.
        """
        from dockp.networks.creation import WantedNetwork, free_bridge_name

        with self._database.read() as connection:
            for record in store.networks(connection, "name = 'bridge'"):
                if not record.removing:
                    return
                self._take_away(record)
        with self._database.write() as connection:
            options = {**_DEFAULT_BRIDGE, _BRIDGE_NAME: free_bridge_name(), **self._bridge.options}
            wanted = WantedNetwork(name="bridge", driver="bridge", options=options, pools=self._bridge.pools)
            made = self._insert(connection, wanted, predefined=True)
            store.mark_removing(connection, made.id)
        with self._locks(f"network/{made.id}"):
            try:
                self._make_or_undo(made)
            except BaseException:
                with self._database.write() as connection:
                    store.delete_network(connection, made.id)
                raise
            with self._database.write() as connection:
                store.mark_removing(connection, made.id, False)

    def _make_or_undo(self, record: NetworkRecord) -> None:
        """Have the driver make a network whose record goes when this raises: nothing could find what it left then."""
        driver, network = self._driver(record.driver), record.for_driver()
        try:
            driver.create_network(network)
        except Conflict:
            raise  # the link of that name is somebody else's
        except BaseException:
            try:
                driver.remove_network(network)
            except (DockpError, OSError) as failure:
                _log.warning("network %s is left behind half made: %s", record.id[:12], failure)
            raise

    def _forget_default_bridge(self, record: NetworkRecord) -> None:
        """Take a default bridge away that is not as the settings want it; a new one is made in its place."""
        with self._database.write() as connection:
            users = store.endpoints(connection, network=record.id)
            if any(self._in_use(user, set(self._living({user.container}))) for user in users):
                pools = ", ".join(pool.gateway for pool in record.pools)
                raise FailedPrecondition(
                    f"the default bridge ({pools}) cannot be made as the settings bip and mtu want it while "
                    f'container "{users[0].name}" is on it: stop that first'
                )
            store.depart(connection, users, time.time_ns())
            store.mark_removing(connection, record.id)
        self._take_away(record)

    def create(self, wanted: WantedNetwork) -> NetworkRecord:
        """Make a network. Raises: AlreadyExists for its name; Conflict for its pools; InvalidArgument."""
        if wanted.name in (*PREDEFINED, "default") or wanted.driver in ("host", "null"):
            raise Forbidden(
                f"operation is not permitted on predefined {wanted.name} network"
                if wanted.name in PREDEFINED
                else f"only one instance of {wanted.driver!r} network is allowed"
            )
        self.predefined()
        driver = self._driver(wanted.driver)
        with self._database.write() as connection:
            if store.networks(connection, "name = ?", (wanted.name,)):
                raise AlreadyExists(f"network with name {wanted.name} already exists")
            record = self._insert(connection, wanted)
        try:
            with self._locks(f"network/{record.id}"):
                driver.create_network(record.for_driver())
        except BaseException:
            self._take_away(record)
            raise
        _log.info("network %s state.transition=none->created", record.id[:12])
        return record

    def _insert(
        self, connection: sqlite3.Connection, wanted: WantedNetwork, *, predefined: bool = False
    ) -> NetworkRecord:
        from dockp.networks.creation import choose_pools, host_subnets

        ipam = self._ipam_for(wanted.ipam)
        pools: tuple[PoolRecord, ...] = ()
        if wanted.driver not in ("host", "null"):
            taken = [pool.subnet for record in store.networks(connection) for pool in record.pools]
            pools = choose_pools(ipam, wanted.pools, taken + host_subnets(), ipv6=wanted.ipv6)
        record = NetworkRecord(
            id=os.urandom(32).hex(),
            name=wanted.name,
            driver=wanted.driver,
            ipam=wanted.ipam,
            ipam_options=wanted.ipam_options,
            options=wanted.options,
            labels=wanted.labels,
            internal=wanted.internal,
            attachable=wanted.attachable,
            ipv6=wanted.ipv6,
            created=time.time_ns(),
            pools=pools,
        )
        store.insert_network(connection, record)
        return record

    def all(self) -> list[NetworkRecord]:
        """Every network, oldest first."""
        self.predefined()
        with self._database.read() as connection:
            return store.networks(connection, "removing = 0")

    def get(self, reference: str) -> NetworkRecord:
        """A network by name, id, or beginning of an id. Raises: NotFound; InvalidArgument when it is ambiguous."""
        if reference in PREDEFINED:
            self.predefined(bridge=reference == "bridge")
        with self._database.read() as connection:
            return self._find(connection, reference)

    @staticmethod
    def _find(connection: sqlite3.Connection, reference: str) -> NetworkRecord:
        found = store.networks(connection, "removing = 0 AND (id = ? OR name = ?)", (reference, reference))
        if not found and reference and set(reference) <= set("0123456789abcdef"):
            found = store.networks(connection, "removing = 0 AND substr(id, 1, ?) = ?", (len(reference), reference))
        if not found:
            raise NotFound(f"network {reference} not found")
        if len(found) > 1:
            raise InvalidArgument(f"network {reference} is ambiguous ({len(found)} matches found on ID prefix)")
        return found[0]

    def remove(self, reference: str) -> None:
        """Take a network away. Raises: NotFound; Forbidden when predefined; FailedPrecondition naming its users."""
        record = self.get(reference)
        if record.name in PREDEFINED:
            raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
        with self._database.write() as connection:
            users = store.endpoints(connection, network=record.id)
            living = set(self._living({endpoint.container for endpoint in users}))
            active = [endpoint for endpoint in users if self._in_use(endpoint, living)]
            if active:
                names = ", ".join(f'name:"{e.name}" id:"{e.id[:12]}"' for e in active)
                raise FailedPrecondition(
                    f"error while removing network: network {record.name} has active endpoints ({names})"
                )
            store.depart(connection, users, time.time_ns())
            store.mark_removing(connection, record.id)
        self._take_away(record)
        _log.info("network %s state.transition=created->removed", record.id[:12])

    def _take_away(self, record: NetworkRecord) -> None:
        driver = self._driver(record.driver)
        with self._locks(f"network/{record.id}"):
            if record.removing:
                with self._database.read() as connection:
                    if not store.networks(connection, "removing = 1 AND id = ?", (record.id,)):
                        return  # it was not going, but coming
            self._sweep(time.time_ns() + 1, network=record.id)
            driver.remove_network(record.for_driver())
            self._checked.pop(record.id, None)
            with self._database.write() as connection:
                store.delete_network(connection, record.id)

    def inspect(self, reference: str) -> dict[str, Any]:
        """The document of ``GET /networks/{id}``. Raises: NotFound."""
        from dockp.networks import documents

        record = self.get(reference)
        with self._database.read() as connection:
            users = store.endpoints(connection, network=record.id)
        living = set(self._living({endpoint.container for endpoint in users}))
        return documents.network(record, [endpoint for endpoint in users if endpoint.container in living])

    # Endpoints.

    def allocate(
        self, container_id: str, name: str, reference: str, wanted: WantedEndpoint | None = None
    ) -> EndpointRecord:
        """Take a place on a network: its addresses belong to the container until `release`. A place that the container
        has already is returned as it is.

        Raises: NotFound for the network; InvalidArgument for a wish; Conflict when an address is taken or none is left.
        """
        wanted = wanted or WantedEndpoint()
        found = self._place(container_id, self.get(reference))
        if found is not None:
            return found
        with self._database.write() as connection:
            network = self._find(connection, reference)
            mine = store.endpoints(connection, container=container_id)
            for endpoint in mine:
                if endpoint.network == network.id:
                    return endpoint
            return self._take_place(connection, network, container_id, name, wanted, mine)

    def _place(self, container_id: str, network: NetworkRecord) -> EndpointRecord | None:
        return next((place for place in self.endpoints(container_id) if place.network == network.id), None)

    def _take_place(
        self,
        connection: sqlite3.Connection,
        network: NetworkRecord,
        container_id: str,
        name: str,
        wanted: WantedEndpoint,
        mine: Sequence[EndpointRecord],
    ) -> EndpointRecord:
        if network.name in PREDEFINED and (wanted.ipv4 or wanted.ipv6):
            raise InvalidArgument(
                f"invalid config for network {network.name}: invalid endpoint settings:"
                " user specified IP address is supported on user defined networks only"
            )
        if network.name in PREDEFINED and wanted.aliases:
            raise InvalidArgument(
                f"invalid config for network {network.name}: invalid endpoint settings:"
                " network-scoped aliases are only supported for user-defined networks"
            )
        ipam = self._ipam_for(network.ipam)
        try:
            chosen = choose_addresses(ipam, network, wanted, store.addresses_in_use(connection, network.id))
        except Conflict:
            # Perhaps what is in the way belongs to containers that died unseen.
            if not self._bury(connection, network.id, keep=container_id):
                raise
            chosen = choose_addresses(ipam, network, wanted, store.addresses_in_use(connection, network.id))
        for position, address in chosen.last.items():
            store.remember_last_address(connection, network.id, position, address)
        routed = not network.internal and not any(other.gateway or other.gateway6 for other in mine)
        used = {other.interface for other in mine}
        endpoint = EndpointRecord(
            id=os.urandom(32).hex(),
            network=network.id,
            container=container_id,
            name=name,
            interface=next(f"eth{n}" for n in range(len(used) + 1) if f"eth{n}" not in used),
            mac=mac_for(wanted.mac, chosen.addresses),
            addresses=chosen.addresses,
            gateway=chosen.gateway if routed else "",
            gateway6=chosen.gateway6 if routed else "",
            aliases=wanted.aliases,
            options=wanted.options,
            created=time.time_ns(),
        )
        store.insert_endpoint(connection, endpoint)
        return endpoint

    def _bury(self, connection: sqlite3.Connection, network: str, keep: str = "") -> int:
        """Let endpoints go whose containers are gone; how many those were."""
        found = [endpoint for endpoint in store.endpoints(connection, network=network) if endpoint.container != keep]
        living = set(self._living({endpoint.container for endpoint in found}))
        dead = [endpoint for endpoint in found if not self._in_use(endpoint, living)]
        store.depart(connection, dead, time.time_ns())
        return len(dead)

    @staticmethod
    def _in_use(endpoint: EndpointRecord, living: Collection[str]) -> bool:
        return endpoint.container in living or time.time_ns() - endpoint.created < _GRACE

    def endpoints(self, container_id: str) -> Sequence[EndpointRecord]:
        """The places of a container, in the order of its interfaces."""
        with self._database.read() as connection:
            return store.endpoints(connection, container=container_id)

    def wire(self, endpoint: EndpointRecord, sandbox: int) -> None:
        """Put the endpoint's interface into the namespace that the descriptor ``sandbox`` names."""
        self._join(self.get(endpoint.network), endpoint, sandbox)

    def _join(self, network: NetworkRecord, endpoint: EndpointRecord, sandbox: int) -> None:
        driver = self._driver(network.driver)
        if time.monotonic() > self._checked.get(network.id, 0.0):
            self._check(network)
        try:
            driver.join(network.for_driver(), endpoint.for_driver(), sandbox)
        except NotFound:  # somebody has just taken it off the host
            self._check(network)
            driver.join(network.for_driver(), endpoint.for_driver(), sandbox)

    def _check(self, network: NetworkRecord) -> None:
        """See that the network is on the host as it should be, though the host was restarted or its rules flushed."""
        with self._locks(f"network/{network.id}"):
            self._driver(network.driver).create_network(network.for_driver())
        self._checked[network.id] = time.monotonic() + _CHECK_AGAIN

    def rename(self, container_id: str, name: str) -> None:
        """Note a container's new name."""
        with self._database.write() as connection:
            store.rename_endpoints(connection, container_id, name)

    def release(self, container_id: str, *, published: bool = False) -> None:
        """Give up everything a container had: places, addresses, published ports. Its sandbox has ended, or is about
        to. Nothing there is success.

        Args: published: it may have published ports, though no record of them is left: an earlier release was cut
        short.
        """
        with self._database.read() as connection:
            found = store.endpoints(connection, container=container_id)
            recorded = bool(store.ports(connection, container=container_id))
        if not found:
            return
        try:
            # The places go last: while they are there, whoever comes after a kill releases once more.
            if recorded:
                with self._database.write() as connection:
                    for endpoint in found:
                        store.set_ports(connection, endpoint.id, ())
            if recorded or published:
                for endpoint in found:
                    self.ports.publish(endpoint.network)
        finally:
            with self._database.write() as connection:
                store.depart(connection, store.endpoints(connection, container=container_id), time.time_ns())
        self._sweep(time.time_ns() - _SWEEP_AFTER)

    def _sweep(self, before: int, network: str | None = None) -> None:
        """Remove links of endpoints that departed before a moment. The kernel removes them itself with their sandbox,
        in its own time; this is for sandboxes that something else still keeps."""
        with self._database.read() as connection:
            found = [pair for pair in store.departed(connection, before) if network in (None, pair[1])]
            records = {record.id: record for record in store.networks(connection)} if found else {}
        for endpoint, network_id in found:
            record = records[network_id]
            try:
                bare = EndpointRecord(id=endpoint, network=network_id, container="", name="", interface="")
                self._driver(record.driver).leave(record.for_driver(), bare.for_driver(), None)
            except (DockpError, OSError) as exc:
                _log.warning("network %s: the link of endpoint %s stays: %s", record.name, endpoint[:12], exc)
            else:
                # One by one: whoever is killed in the middle of many has still done some.
                with self._database.write() as connection:
                    store.forget_departed(connection, [endpoint])

    # A container's start, as one block.

    @contextmanager
    def sandbox(self, container_id: str, name: str, request: CreateRequest) -> Iterator[Sandbox]:
        """Everything between "start this" and "it may run": places, host ports, a network namespace.

        The body calls `Sandbox.wire`, and hands namespace and reservations to whoever runs the container. When it ends
        without an error its ports are published. After an error call `release`, once the namespace's user is gone.
        """
        places = self._places(container_id, name, request)
        if any(endpoint.name != name for _, endpoint in places):
            self.rename(container_id, name)
            places = [(network, evolve(endpoint, name=name)) for network, endpoint in places]
        sockets: list[socket.socket] = []
        namespace = -1
        try:
            publishing = self._publishing_place(places, request)
            if publishing is not None:
                sockets = self.ports.reserve(self.get(publishing.network), publishing, requested_bindings(request))
            namespace = self.pool.take_or_make()
            yield Sandbox(namespace, places, self._join, sockets)
            if publishing is not None and sockets:
                self.ports.publish(publishing.network, starting=container_id)
        finally:
            if namespace >= 0:
                os.close(namespace)
            for sock in sockets:
                sock.close()

    def _places(
        self, container_id: str, name: str, request: CreateRequest
    ) -> list[tuple[NetworkRecord, EndpointRecord]]:
        found = []
        for reference, wanted in wanted_endpoints(request).items():
            endpoint = self.allocate(container_id, name, reference, wanted)
            found.append((self.get(endpoint.network), endpoint))
        return found

    @staticmethod
    def _publishing_place(
        places: Sequence[tuple[NetworkRecord, EndpointRecord]], request: CreateRequest
    ) -> EndpointRecord | None:
        if not requested_bindings(request):
            return None
        for network, endpoint in places:
            if not network.internal and endpoint.addresses:
                return endpoint
        _log.warning("ports are not published: the container is on internal networks only")
        return None

    def files(self, container_id: str, request: CreateRequest, hostname: str) -> dict[str, str]:
        """The contents of /etc/hosts, /etc/resolv.conf and /etc/hostname, by path. Takes the container's places on its
        networks, since the first of them tells its addresses. Raises as `allocate` does."""
        mode = network_mode(request)
        if mode.startswith("container:"):
            return {}
        places = self._places(container_id, request.name or container_id[:12], request)
        gateway = ""
        if any(item.endswith(HOST_GATEWAY) for item in request.host.extra_hosts):
            gateway = next((pool.gateway for pool in self.get("bridge").pools if ":" not in pool.gateway), "")
        addresses = [cidr.partition("/")[0] for _, endpoint in places for cidr in endpoint.addresses]
        return container_files(request, hostname, addresses, gateway)

    # Documents.

    def joined_by(self, container_id: str, request: CreateRequest) -> Sequence[NetworkRecord]:
        """The networks that a running container is on; without an endpoint there it may be on "none" or "host"."""
        mode = network_mode(request)
        if mode in ("none", "host"):
            return [self.get(mode)]
        with self._database.read() as connection:
            return store.networks(
                connection, "id IN (SELECT network FROM endpoints WHERE container = ?)", (container_id,)
            )

    def endpoints_document(self, container_id: str, request: CreateRequest) -> dict[str, Any]:
        """``NetworkSettings.Networks``: what the container has, or, when it does not run, what it wants."""
        from dockp.networks import documents

        mode = network_mode(request)
        if mode.startswith("container:"):
            return {}
        mine = {endpoint.network: endpoint for endpoint in self.endpoints(container_id)}
        document = {}
        for reference, wanted in (wanted_endpoints(request) or {mode: WantedEndpoint()}).items():
            try:
                network = self.get(reference)
            except DockpError:
                document[reference] = documents.endpoint(None, None, wanted)
            else:
                document[network.name] = documents.endpoint(network, mine.get(network.id), wanted)
        return document

    def ports_document(self, container_id: str) -> dict[str, list[dict[str, str]]]:
        """Published ports: ``{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}``."""
        from dockp.networks import documents

        with self._database.read() as connection:
            rows = store.ports(connection, container=container_id)
        return documents.ports(publication for _, publication in rows)

    def settings_document(self, container_id: str, request: CreateRequest) -> dict[str, Any]:
        """``NetworkSettings`` of a container's inspect document."""
        from dockp.networks import documents

        mode = network_mode(request)
        running = bool(self.endpoints(container_id))
        published = self.ports_document(container_id)
        exposed = request.config.exposed_ports if running and has_sandbox(mode) else ()
        return documents.settings(
            container_id if running else "",
            self.endpoints_document(container_id, request),
            {**dict.fromkeys(exposed), **published},
        )

    # After a crash.

    def reconcile(self) -> int:
        """Put right what dead containers and killed commands left; how many endpoints and networks were let go."""
        with self._database.write() as connection:
            records = store.networks(connection)
            mended = sum(self._bury(connection, record.id) for record in records)
        for record in records:
            if record.removing:
                self._take_away(record)
                mended += 1
                continue
            try:
                with self._database.read() as connection:
                    in_use = bool(store.ports(connection, network=record.id))
                if in_use:
                    with self._locks(f"network/{record.id}"):
                        self._driver(record.driver).create_network(record.for_driver())
                self.ports.publish(record.id)
            except (DockpError, OSError) as exc:
                _log.warning("network %s: its published ports could not be put right: %s", record.name, exc)
        self._sweep(time.time_ns() + 1)
        return mended

    def _driver(self, name: str) -> NetworkDriver:
        if name == NullDriver.name:
            return NullDriver({})
        return HostDriver({}) if name == HostDriver.name else self._driver_for(name)
