"""An engine behind a socket: `dockp.interface.Engine` over the Docker Engine API, of dockpd and of Docker's own daemon.

What each verb asks and how its answer is read is written once, in `dockp.remote.verbs`, without any input or output.
`dockp.remote.engine` carries it out by blocking sockets, `dockp.aio` by asyncio; HTTP itself is h11's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockp.remote.engine import RemoteEngine


def connect(host: str, *, api_version: str = "") -> RemoteEngine:
    """The engine at ``host`` (``unix:///run/dockp.sock``, ``tcp://host:2375``, ``ssh://user@host``).

    For TLS and further headers make a `dockp.remote.endpoint.Endpoint`. Nothing is sent before the first call.
    Raises: InvalidArgument for an address that is none.
    """
    from dockp.remote.endpoint import Endpoint
    from dockp.remote.engine import RemoteEngine

    return RemoteEngine(Endpoint(host=host, api_version=api_version))
