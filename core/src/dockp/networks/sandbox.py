"""What a container that is being started gets from its networks: a namespace with interfaces, and three files."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dockp.networks import hosts
from dockp.networks.store import EndpointRecord, NetworkRecord
from dockp.networks.wanted import network_mode

if TYPE_CHECKING:
    from dockp.containers.model import CreateRequest


class Sandbox:
    """The network namespace of a container that is being started, and the host ports reserved for it."""

    def __init__(
        self,
        fd: int,
        places: Sequence[tuple[NetworkRecord, EndpointRecord]],
        join: Callable[[NetworkRecord, EndpointRecord, int], None],
        sockets: Sequence[socket.socket],
    ) -> None:
        self._fd = fd
        self._places = places
        self._join = join
        self._sockets = sockets

    def fileno(self) -> int:
        """A descriptor of the namespace, open until the block ends."""
        return self._fd

    def reservations(self) -> list[int]:
        """Descriptors of the sockets that hold the host ports, open until the block ends: whoever runs the container
        keeps duplicates for as long as it runs."""
        return [sock.fileno() for sock in self._sockets]

    def wire(self) -> None:
        """Put every interface in place. May run in a thread of its own. Raises what drivers raise."""
        for network, endpoint in self._places:
            self._join(network, endpoint, self._fd)


def container_files(request: CreateRequest, hostname: str, addresses: Sequence[str], gateway: str) -> dict[str, str]:
    """The contents of /etc/hosts, /etc/resolv.conf and /etc/hostname, by path.

    Args: addresses: the container's, without prefix length. gateway: what ``host-gateway`` stands for.
    Raises: InvalidArgument for a malformed ``--add-host`` or ``--dns``.
    """
    host = request.host
    # In the host's own network its files say the truth; elsewhere its loopback resolver is out of reach.
    shared = network_mode(request) == "host"
    return {
        "/etc/hosts": hosts.hosts(
            addresses=addresses,
            hostname=hostname,
            domainname=request.config.domainname,
            extra=host.extra_hosts,
            gateway=gateway,
            base=_read("/etc/hosts") if shared else None,
        ),
        "/etc/resolv.conf": hosts.resolv_conf(
            _host_resolvers(stub=shared),
            servers=host.dns,
            search=host.dns_search,
            options=host.dns_options,
            own_loopback=not shared,
        ),
        "/etc/hostname": hostname + "\n",
    }


def _host_resolvers(*, stub: bool) -> str:
    text = _read("/etc/resolv.conf")
    if not stub and hosts.is_stub(text):
        return _read("/run/systemd/resolve/resolv.conf") or text
    return text


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
