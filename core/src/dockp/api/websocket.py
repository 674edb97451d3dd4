"""Attaching through a websocket: binary frames both ways, raw output."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.events import Request as Opening
from wsproto.utilities import RemoteProtocolError

from dockp.api.messages import RawConnection, Request
from dockp.spi.errors import InvalidArgument
from dockp.supervisor.client import ClientSocket

_CHUNK = 1 << 15


def upgrade(request: Request) -> tuple[WSConnection, bytes]:
    """The protocol of the connection from now on, and the head of the reply. Raises: InvalidArgument."""
    protocol = WSConnection(ConnectionType.SERVER)
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in request.headers.items()]
    try:
        protocol.initiate_upgrade_connection(headers, request.path)
        protocols = [
            wanted for event in protocol.events() if isinstance(event, Opening) for wanted in event.subprotocols
        ]
        return protocol, protocol.send(AcceptConnection(subprotocol=protocols[0] if protocols else None))
    except RemoteProtocolError as error:
        raise InvalidArgument(f"this is for websockets: {error}") from None


async def serve_websocket(
    raw: RawConnection, protocol: WSConnection, attach: Callable[[ClientSocket], Awaitable[None]]
) -> None:
    """Attach, and carry bytes both ways until the output ends or the client leaves. What ``attach`` raises comes
    before anything was sent."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            # Shielded: the descriptor is in use until the thread is done, whatever becomes of the client.
            await asyncio.shield(attach(ClientSocket(theirs.fileno())))
        await raw.send(raw.head)
        inwards = asyncio.ensure_future(_inwards(raw, protocol, ours))
        outwards = asyncio.ensure_future(_outwards(raw, protocol, ours))
        try:
            # Input may end before output does; a client that closed wants no more of either.
            await asyncio.wait((inwards, outwards), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (inwards, outwards):
                task.cancel()
            await asyncio.gather(inwards, outwards, return_exceptions=True)


async def _inwards(raw: RawConnection, protocol: WSConnection, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, RemoteProtocolError):
        while data := await raw.receive():
            protocol.receive_data(data)
            for event in protocol.events():
                if isinstance(event, BytesMessage):
                    await loop.sock_sendall(ours, bytes(event.data))
                elif isinstance(event, TextMessage):
                    await loop.sock_sendall(ours, event.data.encode())
                elif isinstance(event, Ping):
                    await raw.send(protocol.send(event.response()))
                elif isinstance(event, CloseConnection):
                    await raw.send(protocol.send(event.response()))
                    return


async def _outwards(raw: RawConnection, protocol: WSConnection, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(ours, _CHUNK):
            await raw.send(protocol.send(BytesMessage(data=data)))
        await raw.send(protocol.send(CloseConnection(code=1000)))
