"""Serving the API on sockets that are listening already."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterable
from ssl import SSLContext
from typing import TYPE_CHECKING

from attrs import define, field

import dockp
from dockp.api.connection import HEAD_TIMEOUT, Connection
from dockp.api.messages import NEWEST, Services
from dockp.api.tls import TlsProtocol

if TYPE_CHECKING:
    from dockp.api.routing import Router

_BACKLOG = 1024


@define
class Counters:
    """What was done since the start.

    Attributes:
        connections: accepted so far. open: of these, still there. requests: by method and status; 101 for every
            connection that was hijacked, 0 where the client left before the reply.
    """

    connections: int = 0
    open: int = 0
    requests: Counter[tuple[str, int]] = field(factory=Counter)

    def answered(self, method: str, status: int) -> None:
        self.requests[method, status] += 1


class ApiServer:
    """Answers requests with the handlers of ``router``. Used from one event loop.

    Args: version: dockp's own, for the header ``Server``. head_timeout: seconds for request line and headers.
    """

    def __init__(
        self, services: Services, router: Router, *, version: str = "", head_timeout: float = HEAD_TIMEOUT
    ) -> None:
        self.services = services
        self.router = router
        self.head_timeout = head_timeout
        self.counters = Counters()
        self.closing = False
        self.headers = (
            ("Api-Version", f"{NEWEST[0]}.{NEWEST[1]}"),
            ("Docker-Experimental", "false"),
            ("Ostype", "linux"),
            ("Server", f"Docker/{version or dockp.__version__} (linux)"),
        )
        self._connections: set[Connection] = set()
        self._listeners: list[asyncio.AbstractServer] = []

    async def serve(self, sockets: Iterable[socket.socket], ssl: SSLContext | None = None) -> None:
        """Accept clients from now on; returns at once. May be called again for further sockets.

        Args: sockets: bound, of any family; they belong to the server from here on. ssl: for clients of these sockets.
        """
        loop = asyncio.get_running_loop()

        def make() -> asyncio.Protocol:
            return Connection(self) if ssl is None else TlsProtocol(ssl, lambda: Connection(self))

        for sock in sockets:
            sock.setblocking(False)
            serve = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            listener = await serve(make, sock=sock, backlog=_BACKLOG)
            self._listeners.append(listener)

    async def close(self, grace: float = 10.0) -> None:
        """Accept nobody any more, let replies end for ``grace`` seconds, then end them. Hijacked streams go on where
        they do not come through this process."""
        self.closing = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.stop()
        deadline = asyncio.get_running_loop().time() + grace
        while self._connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abort()
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                await listener.wait_closed()
        await asyncio.sleep(0)

    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)
        self.counters.connections += 1
        self.counters.open += 1

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.counters.open -= 1
