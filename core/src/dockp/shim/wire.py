"""JSON files, and the control connection's framing, without the standard library's ``json`` and ``socket``.

The shim counts its memory in hundreds of kilobytes; those two modules (with ``re`` and ``enum`` under them) cost more
than the rest of it together, while the C parts that do their work cost next to nothing.

A message is one JSON object on one line. Descriptors travel ahead of, or with, the bytes of the message that owns
them, which says in ``"fds"`` how many it takes; so one first-in-first-out queue on each side pairs them again.
"""

from __future__ import annotations

import _socket
import os

from dockp.linux.jsonlite import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST_MESSAGE = 16 << 20
"""Bytes after which a line without an end is taken for an attack or a bug, and the connection is dropped."""
MOST_DESCRIPTORS = 250
"""Descriptors in one ``sendmsg``; the kernel's limit is 253 (``SCM_MAX_FD``, net/scm.h)."""


def code_identity() -> str:
    """What tells this installation of the shim's code from another that was, or will be, in its place."""
    there = os.stat(__file__)
    return f"{there.st_dev}:{there.st_ino}:{there.st_mtime_ns}"


def read_file(path: str) -> Any:
    """The JSON value in a file. Raises OSError, ValueError."""
    with open(path, "rb", buffering=0) as file:
        return loads(file.readall())


def write_file(path: str, value: Any) -> None:
    """Replace a file by the JSON of ``value``, so that a reader sees the old or the new text and never a part."""
    temporary = f"{path}.{os.getpid()}~"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = dumps(value).encode()
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def pack(message: dict[str, Any], descriptors: list[int] | tuple[int, ...] = ()) -> bytes:
    """A message as the bytes to send."""
    if descriptors:
        message = {**message, "fds": len(descriptors)}
    return dumps(message).encode() + b"\n"


def send_blocking(sock: _socket.socket, message: dict[str, Any], descriptors: list[int] | tuple[int, ...] = ()) -> None:
    """Send one message whole, with its descriptors. Raises OSError."""
    data = pack(message, descriptors)
    queue = list(descriptors)
    while queue:
        batch, queue = queue[:MOST_DESCRIPTORS], queue[MOST_DESCRIPTORS:]
        rights = b"".join([descriptor.to_bytes(4, "little") for descriptor in batch])
        control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
        # One byte a batch, and the last takes what is left: the receiver has them all when the line is complete.
        sent = sock.sendmsg([data[:1] if queue else data], control, _socket.MSG_NOSIGNAL)
        data = data[sent:]
    while data:
        data = data[sock.send(data, _socket.MSG_NOSIGNAL) :]


class Receiver:
    """Turns what arrives on a socket into messages.

    Attributes:
        descriptors: those received and not yet taken by a message, oldest first. The receiver owns them.
    """

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.descriptors: list[int] = []
        self._held = b""

    def receive(self, flags: int = 0) -> list[tuple[dict[str, Any], list[int]]] | None:
        """Read once and return the messages that are complete now, each with its descriptors; None at the end.

        Args: flags: of ``recvmsg``; with MSG_DONTWAIT raises BlockingIOError when nothing is there.
        Raises: OSError; ValueError for what is not a message (the connection is then of no further use).
        """
        data, control, _, _ = self.sock.recvmsg(
            65536, _socket.CMSG_SPACE(4 * (MOST_DESCRIPTORS + 3)), flags | _socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, rights in control:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for at in range(0, len(rights) - len(rights) % 4, 4):
                    self.descriptors.append(int.from_bytes(rights[at : at + 4], "little"))
        if not data:
            return None
        lines = (self._held + data).split(b"\n")
        self._held = lines.pop()
        if len(self._held) > LARGEST_MESSAGE:
            raise ValueError("a message is too long")
        messages = []
        for line in lines:
            message = loads(line)
            if not isinstance(message, dict):
                raise ValueError("a message is not an object")
            count = message.pop("fds", 0)
            if not isinstance(count, int) or not 0 <= count <= len(self.descriptors):
                raise ValueError("a message names more descriptors than it brought")
            mine, self.descriptors = self.descriptors[:count], self.descriptors[count:]
            messages.append((message, mine))
        return messages

    def close(self) -> None:
        """Close the socket and every descriptor that no message took."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
        self.sock.close()
