"""``system dial-stdio``: what an ``ssh://`` client runs on the engine's machine."""

from __future__ import annotations

import os
import select
import socket

from dockp.cli import hosts
from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import Values

_PIECE = 1 << 16


def dial(app: App, values: Values) -> None:
    """Join standard input and output to the engine's socket, until the engine ends."""
    from dockp.remote.links import Link

    chosen = hosts.choose(app.flags, os.environ)
    if chosen.host == hosts.EMBEDDED:
        raise Failure(f"Cannot connect to the Docker daemon at {hosts.DEFAULT_HOST}. Is the docker daemon running?")
    if chosen.tls is not None:
        raise Failure("system dial-stdio does not go on to a host with TLS")
    link = Link(hosts.endpoint(chosen, app.flags))
    try:
        _join(link.socket)
    finally:
        link.close()


def _join(connection: socket.socket) -> None:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(connection, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == 0:
                data = os.read(0, _PIECE)
                if data:
                    connection.sendall(data)
                else:
                    poll.unregister(0)
                    connection.shutdown(socket.SHUT_WR)
            else:
                data = connection.recv(_PIECE)
                if not data:
                    return
                while data:
                    data = data[os.write(1, data) :]


DIAL = Command(
    "",
    "Proxy the stdio stream to the daemon connection; for ssh, not for people",
    dial,
    args=(0, 0),
    examples=("dockp system dial-stdio",),
)
