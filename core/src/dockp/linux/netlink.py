"""Netlink as rtnetlink and nfnetlink share it: attributes, messages, acknowledgements. netlink(7), kernel doc
userspace-api/netlink/intro.

Small on purpose: it is on the path of every container start, where importing a full netlink library costs more than
all the work it would do.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

from dockp.spi.errors import SystemFault

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLM_F_DUMP_INTR = 0x10
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_SNDBUFFORCE = 32
_RECEIVE_BYTES = 1 << 18
_USUAL_SEND_BYTES = 1 << 16
"""More than this may not fit the send buffer a socket is born with."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class KernelRefused(SystemFault, OSError):
    """The kernel answered a request with an error. As text it says what was being done, and the kernel's own
    explanation (extended acknowledgement) where it gave one; ``errno`` is there for who can deal with it."""

    def __str__(self) -> str:
        return str(self.strerror)


class Request:
    """One message to send.

    Attributes:
        what: what it does, for errors, as in "cannot <what>". kind: the message type. body: family header and
        attributes. flags: beyond ``NLM_F_REQUEST | NLM_F_ACK``. ignore: errnos that count as success. silent: the
        kernel does not acknowledge it; it answers only to refuse, and then answers nothing else that was sent with it.
    """

    __slots__ = ("body", "flags", "ignore", "kind", "silent", "what")

    def __init__(
        self,
        what: str,
        kind: int,
        body: bytes,
        flags: int = 0,
        ignore: Sequence[int] = (),
        silent: bool = False,
    ) -> None:
        self.what = what
        self.kind = kind
        self.body = body
        self.flags = flags
        self.ignore = ignore
        self.silent = silent


class Answer:
    """What came back for one request: ``error`` is an errno or 0, ``text`` the kernel's explanation, ``payloads`` the
    bodies of data messages."""

    __slots__ = ("error", "interrupted", "payloads", "text")

    def __init__(self) -> None:
        self.error = 0
        self.text = ""
        self.payloads: list[bytes] = []
        self.interrupted = False


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) & 3)


def text_attribute(kind: int, value: str) -> bytes:
    """A zero-terminated string attribute."""
    return attribute(kind, os.fsencode(value) + b"\0")


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(parts))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Pairs of type and value, in order. A malformed tail ends the walk."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            return
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of ``data`` by type; of repeated ones the last."""
    return dict(each_attribute(data))


def text_of(value: bytes | None) -> str:
    """A string attribute's text; "" for an absent one."""
    return os.fsdecode(value.rstrip(b"\0")) if value else ""


class Netlink:
    """One netlink socket. Not for use by two threads at once. Raises OSError where the kernel lacks the family."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sequence = 0
        # Errors need not echo the request, and shall come with the kernel's words. Strict checking makes dumps obey
        # their filters. All are older than any kernel we run on, but nothing depends on them.
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            try:
                sock.setsockopt(_SOL_NETLINK, option, 1)
            except OSError as exc:
                if exc.errno != errno.ENOPROTOOPT:
                    raise

    @classmethod
    def open(cls, protocol: int) -> Netlink:
        """A socket in the network namespace of the calling thread."""
        return cls(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol))

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def exchange(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all requests in one system call and collect an answer for each, in order. Refusals do not raise."""
        first = self._sequence + 1
        chunks = []
        for number, request in enumerate(requests, first):
            flags = request.flags | NLM_F_REQUEST | (0 if request.silent else NLM_F_ACK)
            chunks.append(_HEADER.pack(16 + len(request.body), request.kind, flags, number, 0))
            chunks.append(request.body + bytes(-len(request.body) & 3))
        self._sequence += len(requests)
        message = b"".join(chunks)
        if len(message) > _USUAL_SEND_BYTES:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(message))
        self._socket.send(message)
        answers = [Answer() for _ in requests]
        waiting = {index for index, request in enumerate(requests) if not request.silent}
        silent = [answer for answer, request in zip(answers, requests, strict=True) if request.silent]
        while waiting and not any(answer.error for answer in silent):
            self._receive(answers, waiting, first)
        return answers

    def _receive(self, answers: list[Answer], waiting: set[int], first: int) -> None:
        data = self._socket.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
            index = number - first
            if 0 <= index < len(answers):
                body = data[offset + 16 : offset + length]
                answer = answers[index]
                answer.interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    self._finish(answer, kind, flags, body)
                    waiting.discard(index)
                else:
                    answer.payloads.append(body)
            offset += (length + 3) & ~3

    @staticmethod
    def _finish(answer: Answer, kind: int, flags: int, body: bytes) -> None:
        if len(body) < 4:
            return
        answer.error = max(0, -struct.unpack_from("=i", body)[0])
        if kind == _NLMSG_ERROR and flags & _NLM_F_ACK_TLVS:
            echoed = 16 if flags & _NLM_F_CAPPED else struct.unpack_from("=I", body, 4)[0]
            answer.text = text_of(attributes(body[4 + ((echoed + 3) & ~3) :]).get(_NLMSGERR_ATTR_MSG))

    def run(self, *requests: Request) -> list[Answer]:
        """`exchange`, then raise `KernelRefused` for the first request that failed."""
        answers = self.exchange(requests)
        for request, answer in zip(requests, answers, strict=True):
            if answer.error and answer.error not in request.ignore:
                raise refusal(request, answer)
        return answers

    def dump(self, request: Request) -> list[bytes]:
        """The bodies of everything the kernel lists for ``request``, taken again when the list changed meanwhile."""
        request.flags |= NLM_F_DUMP
        for _ in range(10):
            (answer,) = self.run(request)
            if not answer.interrupted:
                break
        return answer.payloads


def refusal(request: Request, answer: Answer) -> KernelRefused:
    """The exception that says which request failed and why."""
    reason = os.strerror(answer.error) + (f" ({answer.text})" if answer.text else "")
    return KernelRefused(answer.error, f"cannot {request.what}: {reason}")
