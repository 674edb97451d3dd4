"""Passing descriptors over unix sockets. Source: unix(7), SCM_RIGHTS."""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_MSG_CMSG_CLOEXEC = 0x40000000
_MAX_DESCRIPTORS = 253  # the kernel's SCM_MAX_FD


def send_fds(sock: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """Send ``data`` (at least one byte) with descriptors; returns the number of bytes that went out."""
    rights = [(_SOL_SOCKET, _SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    return sock.sendmsg([data], rights)


def receive_fds(sock: socket.socket, size: int, limit: int = 8) -> tuple[bytes, list[int]]:
    """Receive up to ``size`` bytes and ``limit`` descriptors, which are closed on exec and the caller's to close."""
    limit = min(limit, _MAX_DESCRIPTORS)
    # sizeof(struct cmsghdr) is two words; a little room more costs nothing and avoids truncation.
    data, ancillary, _flags, _address = sock.recvmsg(size, 32 + 4 * limit, _MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            count = len(payload) // 4
            fds += struct.unpack(f"{count}i", payload[: 4 * count])
    for surplus in fds[limit:]:
        os.close(surplus)
    return data, fds[:limit]
