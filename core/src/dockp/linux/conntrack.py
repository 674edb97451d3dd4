"""Forgetting connections that the kernel tracks, by nfnetlink. Numbers: linux/netfilter/nfnetlink_conntrack.h.

Address translation is decided with the first packet of a flow and then remembered. A UDP flow has no end, so a client
that keeps sending keeps its old translation, or none, until it is forgotten.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from dockp.linux.netlink import NETLINK_NETFILTER, Netlink, Request, attribute, attributes, nested

_SUBSYSTEM = 1
_GET = 1
_DELETE = 2
_TUPLE_ORIGINAL = 1
_TUPLE_REPLY = 2
_ZONE = 18
_IP = 1
_PROTOCOL = 2
_V4_SOURCE = 1
_V4_DESTINATION = 2
_V6_SOURCE = 3
_V6_DESTINATION = 4
_NUMBER = 1
_SOURCE_PORT = 2
_DESTINATION_PORT = 3


class Flow:
    """One tracked flow: its protocol (a number), where its first packet was sent to, and who answers it."""

    __slots__ = ("_key", "answerer", "answerer_port", "destination", "destination_port", "family", "protocol")

    def __init__(self, body: bytes) -> None:
        self.family = body[0]
        found = attributes(body[4:])
        self._key = nested(_TUPLE_ORIGINAL, found.get(_TUPLE_ORIGINAL, b""))
        if _ZONE in found:
            self._key += attribute(_ZONE, found[_ZONE])
        sent, answered = found.get(_TUPLE_ORIGINAL, b""), found.get(_TUPLE_REPLY, b"")
        self.protocol = int.from_bytes(_ports(sent).get(_NUMBER, b""), "big")
        self.destination = _address(sent, _V4_DESTINATION, _V6_DESTINATION)
        self.destination_port = int.from_bytes(_ports(sent).get(_DESTINATION_PORT, b""), "big")
        self.answerer = _address(answered, _V4_SOURCE, _V6_SOURCE)
        self.answerer_port = int.from_bytes(_ports(answered).get(_SOURCE_PORT, b""), "big")

    def forget(self) -> Request:
        """The request to forget it; a flow that is gone is success."""
        body = struct.pack("!BBH", self.family, 0, 0) + self._key
        return Request("forget a flow", _SUBSYSTEM << 8 | _DELETE, body, ignore=(errno.ENOENT,))


def _ports(tuple_body: bytes) -> dict[int, bytes]:
    return attributes(attributes(tuple_body).get(_PROTOCOL, b""))


def _address(tuple_body: bytes, four: int, six: int) -> str:
    found = attributes(attributes(tuple_body).get(_IP, b""))
    if four in found:
        return socket.inet_ntop(socket.AF_INET, found[four])
    return socket.inet_ntop(socket.AF_INET6, found[six]) if six in found else ""


def forget(matches: Callable[[Flow], bool]) -> int:
    """Forget every flow of the calling thread's namespace that matches; how many those were. Nothing where the kernel
    tracks none. Raises: KernelRefused."""
    with Netlink.open(NETLINK_NETFILTER) as sock:
        every = Request("list the tracked flows", _SUBSYSTEM << 8 | _GET, struct.pack("!BBH", 0, 0, 0))
        every.ignore = (errno.EINVAL, errno.EOPNOTSUPP)  # what nfnetlink says without conntrack
        found = [flow for flow in map(Flow, sock.dump(every)) if matches(flow)]
        if found:
            sock.run(*(flow.forget() for flow in found))
    return len(found)
