"""Passing descriptors over unix sockets. Source: unix(7), SCM_RIGHTS."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_SOL_SOCKET = 1
_SCM_RIGHTS = 1


def send_fds(sock: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """Send ``data`` (at least one byte) with descriptors; returns the number of bytes that went out."""
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    return sock.sendmsg([data], rights)
