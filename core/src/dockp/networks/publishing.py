"""Published ports: host ports are reserved, remembered, and brought to the drivers a network at a time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from dockp.networks import ports, store
from dockp.networks.store import Database, EndpointRecord, NetworkRecord
from dockp.spi.errors import Conflict, InvalidArgument
from dockp.spi.network import NetworkDriver, Publication

if TYPE_CHECKING:
    from dockp.containers.model import CreateRequest

_HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
_EPHEMERAL_ATTEMPTS = 20

Living = Callable[[Collection[str]], Collection[str]]
"""Of some container ids, gives those that run or are being started."""


class PortService:
    """The ports of one engine's networks. See `dockp.networks.service` for arguments and locks."""

    def __init__(
        self,
        database: Database,
        driver_for: Callable[[str], NetworkDriver],
        locks: Callable[[str], AbstractContextManager[object]],
        living: Living,
    ) -> None:
        self._database = database
        self._driver_for = driver_for
        self._locks = locks
        self._living = living

    def reserve(
        self, network: NetworkRecord, endpoint: EndpointRecord, bindings: Mapping[str, Sequence[tuple[str, str]]]
    ) -> list[socket.socket]:
        """Take the host ports for ``{"80/tcp": [(host address, host port)]}`` and record what they lead to; addresses
        and ports may be "" (see `dockp.networks.ports`). Nothing is published yet.

        Returns: the sockets that hold the ports; they must stay open, somewhere, while the container runs.
        Raises: Conflict naming who has the port; InvalidArgument. Nothing stays reserved then.
        """
        sockets: list[socket.socket] = []
        publications: list[Publication] = []
        try:
            for port, places in bindings.items():
                number, protocol = ports.split_port(port)
                for host_ip, host_port in places:
                    for ip, sock, chosen in self._reserve(network, endpoint, (number, protocol), host_ip, host_port):
                        sockets.append(sock)
                        address, _ = endpoint.address(6 if ":" in ip else 4)
                        publications.append(
                            Publication(
                                protocol=protocol,
                                host_ip=ip,
                                host_port=chosen,
                                address=address,
                                container_port=number,
                            )
                        )
            with self._database.write() as connection:
                store.set_ports(connection, endpoint.id, publications)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets

    def _reserve(
        self,
        network: NetworkRecord,
        endpoint: EndpointRecord,
        port: tuple[int, str],
        host_ip: str,
        host_port: str,
    ) -> list[tuple[str, socket.socket, int]]:
        """The same host port on every address that ``host_ip`` means."""
        number, protocol = port
        places = _host_addresses(network, endpoint, host_ip)
        first, last = ports.parse_host_port(host_port)
        candidates = [str(n) for n in range(first, last + 1)] if last else [""] * _EPHEMERAL_ATTEMPTS
        for attempt, candidate in enumerate(candidates, 1):
            held: list[tuple[str, socket.socket, int]] = []
            try:
                for ip in places:
                    sock, chosen = ports.reserve(ip, candidate, protocol)
                    held.append((ip, sock, chosen))
                    candidate = str(chosen)
            except BaseException as exc:
                for _, sock, _ in held:
                    sock.close()
                if not isinstance(exc, ports.PortInUse):
                    raise
                if attempt == len(candidates):
                    raise self._port_conflict(exc, endpoint, number, host_port) from None
            else:
                return held
        raise AssertionError("there is at least one candidate")

    def _port_conflict(
        self, failure: ports.PortInUse, endpoint: EndpointRecord, container_port: int, wanted: str
    ) -> Conflict:
        where = ports.join_host(failure.host_ip, wanted or failure.host_port)
        prefix = f"driver failed programming external connectivity on endpoint {endpoint.name} ({endpoint.id}): "
        holder = self._holder(failure)
        if holder:
            return Conflict(f"{prefix}Bind for {where} failed: port is already allocated (by container {holder})")
        address, _ = endpoint.address(6 if ":" in failure.host_ip else 4)
        target = ports.join_host(address, f"{container_port}/{failure.protocol}")
        return Conflict(f"{prefix}failed to bind host port for {where}:{target}: address already in use")

    def _holder(self, failure: ports.PortInUse) -> str:
        with self._database.read() as connection:
            rows = store.ports(connection)
            names = {endpoint.container: endpoint.name for endpoint in store.endpoints(connection)}
        wildcard = "::" if ":" in failure.host_ip else "0.0.0.0"
        for container, publication in rows:
            same_place = failure.host_ip in (publication.host_ip, wildcard) or publication.host_ip == wildcard
            if same_place and (publication.protocol, publication.host_port) == (failure.protocol, failure.host_port):
                return names.get(container) or container[:12]
        return ""

    def publish(self, network_id: str, starting: str = "") -> None:
        """Make the host publish what the running containers of the network want, all and nothing else.

        Args: starting: a container to count as running. Raises what the driver raises.
        """
        try:
            self._publish(network_id, starting)
        except Conflict:
            # Its host port is ours, or it could not have been reserved: what is in the way is a remainder of another
            # network. Bring those up to date, then try once more.
            with self._database.read() as connection:
                others = [record.id for record in store.networks(connection) if record.id != network_id]
            for other in others:
                self._publish(other, starting)
            self._publish(network_id, starting)

    def _publish(self, network_id: str, starting: str) -> None:
        with self._locks(f"network/{network_id}"):
            with self._database.read() as connection:
                found = store.networks(connection, "id = ?", (network_id,))
                rows = store.ports(connection, network=network_id)
            if not found:
                return
            living = {starting, *self._living({container for container, _ in rows} - {starting})}
            driver = self._driver_for(found[0].driver)
            driver.publish(found[0].for_driver(), [entry for container, entry in rows if container in living])


def _host_addresses(network: NetworkRecord, endpoint: EndpointRecord, host_ip: str) -> list[str]:
    four, six = endpoint.address(4)[0], endpoint.address(6)[0]
    if host_ip:
        if not (six if ":" in host_ip else four):
            family = "IPv6" if ":" in host_ip else "IPv4"
            raise InvalidArgument(
                f"cannot publish on {host_ip}: the container has no {family} address on network {network.name}"
            )
        return [host_ip]
    places = [network.options.get(_HOST_BINDING, "0.0.0.0")] if four else []
    return [*places, "::"] if six else places


def requested_bindings(request: CreateRequest) -> dict[str, list[tuple[str, str]]]:
    """What a container's configuration publishes; with ``-P`` also every exposed port, somewhere."""
    host = request.host
    found = {port: [(b.host_ip, b.host_port) for b in bound] for port, bound in host.port_bindings.items()}
    if host.publish_all_ports:
        for port in request.config.exposed_ports:
            for single in ports.parse_expose([port]):
                found.setdefault(single, [("", "")])
    return {port: places or [("", "")] for port, places in found.items()}
