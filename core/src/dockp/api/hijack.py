"""Connections that stop to speak HTTP: attach, exec, websockets.

Nothing of a hijacked stream passes through the daemon where the client's socket can be handed over as it is. TLS has
its keys here, so its streams are pumped between the client and a socket pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

from dockp.api.messages import Handover
from dockp.shim.streams import HEAD_LOOK, HEAD_TRAVELS, head_time, is_unread

if TYPE_CHECKING:
    from dockp.api.connection import Connection

_CHUNK = 1 << 16


def head(content_type: str, *, upgrade: bool) -> bytes:
    """What Docker answers, to the letter. Without an upgrade it always says that the stream is raw."""
    if upgrade:
        return (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


class HijackedConnection:
    """See `dockp.api.messages.RawConnection`.

    Attributes:
        used: whether anything was sent, or somebody else may have.
        pump: for TLS, what goes on after `handover`.
    """

    def __init__(self, connection: Connection, early: bytes, head: bytes) -> None:
        self._connection = connection
        self._early = early
        self._head = head
        self.used = False
        self.pump: asyncio.Future[None] | None = None

    @property
    def head(self) -> bytes:
        return self._head

    async def receive(self) -> bytes:
        if self._early:
            early, self._early = self._early, b""
            return early
        return await self._connection.receive_raw()

    async def send(self, data: bytes) -> None:
        self.used = True
        await self._connection.write(data)

    async def send_head(self) -> None:
        await self.send(self._head)
        plain = self._connection.plain_socket()
        due = time.monotonic() + (head_time(plain) if plain is not None else HEAD_TRAVELS)
        while time.monotonic() < due and (plain is None or is_unread(plain)):
            await asyncio.sleep(HEAD_LOOK)

    def handover(self) -> Handover:
        early, self._early = self._early, b""
        plain = self._connection.plain_socket()
        if plain is not None:
            descriptor = os.dup(plain.fileno())
            return Handover(descriptor=descriptor, early=early, close=lambda: os.close(descriptor))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.pump = asyncio.ensure_future(_pump(self, ours))
        return Handover(descriptor=theirs.fileno(), early=early, close=theirs.close)


async def _pump(raw: HijackedConnection, ours: socket.socket) -> None:
    """Carry bytes both ways until the other side has ended its output."""
    loop = asyncio.get_running_loop()

    async def inwards() -> None:
        with contextlib.suppress(OSError):
            while data := await raw.receive():
                await loop.sock_sendall(ours, data)
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_WR)

    feeding = asyncio.ensure_future(inwards())
    try:
        with contextlib.suppress(OSError):
            pause = HEAD_TRAVELS  # the first piece is the head of the reply
            while data := await loop.sock_recv(ours, _CHUNK):
                await raw.send(data)
                await asyncio.sleep(pause)
                pause = 0
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeding
        ours.close()
