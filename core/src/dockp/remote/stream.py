"""The stream of an attach or exec that a daemon serves."""

from __future__ import annotations

import contextlib
import socket

from dockp.remote.detach import KeyWatch


class RemoteStream:
    """Meets `dockp.interface.Stream`.

    A daemon ends the stream when it sees the detach keys and does not say why, so they are looked for here too.

    Args:
        connection: a socket that can be polled; what came with the headers is ``rest``.
        detach_keys: b"" when there are none to look for.
    """

    def __init__(self, connection: socket.socket, detach_keys: bytes = b"", rest: bytes = b"") -> None:
        self._socket = connection
        self._watch = KeyWatch(detach_keys) if detach_keys else None
        self._rest = rest

    def fileno(self) -> int:
        return self._socket.fileno()

    def recv(self, size: int) -> bytes:
        if self._rest:
            piece, self._rest = self._rest[:size], self._rest[size:]
            return piece
        if self._watch is not None and self._watch.seen:
            return b""
        try:
            return self._socket.recv(size)
        except ConnectionResetError:
            return b""

    def send(self, data: bytes) -> int:
        if self._watch is None:
            return self._socket.send(data)
        outgoing = self._watch.offer(data)
        if self._watch.seen:
            with contextlib.suppress(OSError):
                self._socket.sendall(outgoing)
                self._socket.shutdown(socket.SHUT_RDWR)
            return len(data)
        return self._watch.sent(data, self._socket.send(outgoing) if outgoing else 0)

    def close_stdin(self) -> None:
        with contextlib.suppress(OSError):  # the other side may have gone already
            self._socket.shutdown(socket.SHUT_WR)

    def wait_end(self) -> str:
        return "detach" if self._watch is not None and self._watch.seen else "exit"

    def close(self) -> None:
        self._socket.close()
