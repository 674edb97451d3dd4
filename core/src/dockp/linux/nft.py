"""nftables: whole rule sets as text through libnftables, single elements by nfnetlink. nft(8), libnftables(3).

Text is for what happens once a network: a table with its chains and rules, one atomic transaction. Elements of sets
and maps are for what happens once a container, where parsing text and reading the rule set back would cost a hundred
times the change itself. Numbers: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dockp.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    Netlink,
    Request,
    attribute,
    attributes,
    each_attribute,
    nested,
    text_attribute,
)
from dockp.spi.errors import SystemFault, Unavailable

if TYPE_CHECKING:
    import ctypes

_NFPROTO_INET = 1
_SUBSYSTEM = 10
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_BATCH_GENID = 1
_DELTABLE = 2
_GETCHAIN = 4
_NEWSETELEM = 12
_GETSETELEM = 13
_DELSETELEM = 14
_GETGEN = 16

_TABLE_NAME = 1
_CHAIN_TABLE = 1
_CHAIN_NAME = 3
_CHAIN_USE = 6
_LIST_TABLE = 1
_LIST_SET = 2
_LIST_ELEMENTS = 3
_LIST_ELEMENT = 1
_ELEMENT_KEY = 1
_ELEMENT_DATA = 2
_ELEMENT_USERDATA = 6
_ELEMENT_KEY_END = 10
_DATA_VALUE = 1
_GENERATION_ID = 1
_USERDATA_COMMENT = 0

_ELEMENTS_A_MESSAGE = 256
"""An attribute's length is 16 bits, and the list of elements is one attribute."""
_OUTPUT_JSON = 1 << 4
_ATTEMPTS = 50


class Element:
    """One element of a set or map: ``key`` and ``data`` as the registers hold them (each part of a concatenation
    padded to four bytes, network order), ``end`` the last key of a range (concatenations with ranges only), ``data``
    empty in a set, ``comment`` at most 127 bytes."""

    __slots__ = ("comment", "data", "end", "key")

    def __init__(self, key: bytes, data: bytes = b"", comment: str = "", end: bytes = b"") -> None:
        self.key = key
        self.end = end
        self.data = data
        self.comment = comment


class Change:
    """Elements to take from and to put into one set or map. What is taken must be there, or the whole transaction is
    refused."""

    __slots__ = ("add", "delete", "set")

    def __init__(self, set_name: str, *, delete: Sequence[Element] = (), add: Sequence[Element] = ()) -> None:
        self.set = set_name
        self.delete = delete
        self.add = add


def pad(value: bytes) -> bytes:
    """A part of a concatenation as the registers hold it."""
    return value + bytes(-len(value) & 3)


def interface_key(name: str) -> bytes:
    """An interface name as a key of type ``ifname``."""
    return os.fsencode(name).ljust(16, b"\0")


# Text, through libnftables.

_library: ctypes.CDLL | None = None


def _load() -> ctypes.CDLL:
    global _library
    if _library is None:
        import ctypes

        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError as exc:
            raise Unavailable(f"libnftables is missing ({exc}); install Debian's package libnftables1") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
        library.nft_ctx_free.restype = None
        for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = (ctypes.c_void_p,)
        library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
        library.nft_ctx_output_set_flags.restype = None
        library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = (ctypes.c_void_p,)
            getattr(library, name).restype = ctypes.c_char_p
        _library = library
    return _library


def _execute(commands: str, flags: int) -> str:
    library = _load()
    context = library.nft_ctx_new(0)
    if not context:
        raise Unavailable("nftables cannot be used: no netlink socket for it")
    try:
        library.nft_ctx_output_set_flags(context, flags)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        failed = library.nft_run_cmd_from_buffer(context, commands.encode())
        if failed:
            lines = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").splitlines()
            # The library prints each complaint with the offending line and a line of carets; one line is enough.
            reason = lines[0].removeprefix("Error: ") if lines else "no reason given"
            if reason.endswith(os.strerror(errno.EOPNOTSUPP)):
                raise Unavailable(f"this kernel lacks a part of nftables that is needed: {reason}")
            raise SystemFault(f"nftables refused: {reason}")
        output: bytes = library.nft_ctx_get_output_buffer(context) or b""
        return output.decode()
    finally:
        library.nft_ctx_free(context)


def run(commands: str) -> None:
    """Run nft commands as one transaction: all of them happen, or none. In the calling thread's namespace.

    Raises: SystemFault with nft's first complaint, Unavailable without the library or the kernel's part.
    """
    _execute(commands, 0)


def list_json(command: str) -> list[dict[str, Any]]:
    """The objects that a ``list …`` command prints, libnftables-json(5). Raises as `run` does."""
    import json

    found: list[dict[str, Any]] = json.loads(_execute(command, _OUTPUT_JSON))["nftables"]
    return found


def list_text(command: str) -> str:
    """What a ``list …`` command prints, for people. Raises as `run` does."""
    return _execute(command, 0)


# Elements, by nfnetlink.


def open_here() -> Netlink:
    """An nfnetlink socket in the calling thread's namespace. Raises OSError where the kernel has no netfilter."""
    return Netlink.open(NETLINK_NETFILTER)


def _header(family: int, resource: int = 0) -> bytes:
    return struct.pack("!BBH", family, 0, resource)


def _type(message: int) -> int:
    return _SUBSYSTEM << 8 | message


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(_DATA_VALUE, value))


def _encode(element: Element, key_only: bool) -> bytes:
    parts = [_value(_ELEMENT_KEY, element.key)]
    if element.end:
        parts.append(_value(_ELEMENT_KEY_END, element.end))
    if not key_only:
        if element.data:
            parts.append(_value(_ELEMENT_DATA, element.data))
        if element.comment:
            comment = element.comment.encode() + b"\0"
            parts.append(attribute(_ELEMENT_USERDATA, bytes((_USERDATA_COMMENT, len(comment))) + comment))
    return nested(_LIST_ELEMENT, *parts)


def _decode(body: bytes) -> Element:
    values = attributes(body)
    key = attributes(values.get(_ELEMENT_KEY, b"")).get(_DATA_VALUE, b"")
    end = attributes(values.get(_ELEMENT_KEY_END, b"")).get(_DATA_VALUE, b"")
    data = attributes(values.get(_ELEMENT_DATA, b"")).get(_DATA_VALUE, b"")
    comment = ""
    userdata = values.get(_ELEMENT_USERDATA, b"")
    while len(userdata) >= 2:
        kind, length = userdata[0], userdata[1]
        if kind == _USERDATA_COMMENT:
            comment = userdata[2 : 2 + length].rstrip(b"\0").decode(errors="replace")
        userdata = userdata[2 + length :]
    return Element(key, data, comment, end)


def _list_body(table: str, set_name: str, elements: Iterable[Element] = (), key_only: bool = True) -> bytes:
    body = _header(_NFPROTO_INET) + text_attribute(_LIST_TABLE, table) + text_attribute(_LIST_SET, set_name)
    encoded = [_encode(element, key_only) for element in elements]
    return body + nested(_LIST_ELEMENTS, *encoded) if encoded else body


def elements(sock: Netlink, table: str, set_name: str) -> list[Element]:
    """Every element of a set or map of the inet table; none when it, or the table, is absent."""
    request = Request(f"list the elements of {table} {set_name}", _type(_GETSETELEM), _list_body(table, set_name))
    request.ignore = (errno.ENOENT,)
    found = []
    for body in sock.dump(request):
        for kind, value in each_attribute(attributes(body[4:]).get(_LIST_ELEMENTS, b"")):
            if kind == _LIST_ELEMENT:
                found.append(_decode(value))
    return found


def holds(
    sock: Netlink, table: str, *, elements: Sequence[tuple[str, Element]], chains: Sequence[tuple[str, int]]
) -> bool:
    """True when the inet table has every one of ``elements`` (set name and element) and its ``chains`` have as many
    rules and references as told. One system call each way, so cheap enough for every container start."""
    requests = [
        Request("", _type(_GETSETELEM), _list_body(table, set_name, (element,))) for set_name, element in elements
    ]
    for name, _ in chains:
        body = _header(_NFPROTO_INET) + text_attribute(_CHAIN_TABLE, table) + text_attribute(_CHAIN_NAME, name)
        requests.append(Request("", _type(_GETCHAIN), body))
    answers = sock.exchange(requests)
    if any(answer.error for answer in answers):
        return False
    for (_, wanted), answer in zip(chains, answers[len(elements) :], strict=True):
        uses = attributes(answer.payloads[0][4:]).get(_CHAIN_USE, b"") if answer.payloads else b""
        if int.from_bytes(uses, "big") != wanted:
            return False
    return True


def change(sock: Netlink, table: str, changes: Sequence[Change]) -> None:
    """Apply all changes in one transaction of the kernel.

    Raises: KernelRefused with ENOENT when something to take is not there (or the table is not), EEXIST or EBUSY when
    something to put is there with other data.
    """
    requests = []
    for item in changes:
        for message, members, key_only in ((_DELSETELEM, item.delete, True), (_NEWSETELEM, item.add, False)):
            for start in range(0, len(members), _ELEMENTS_A_MESSAGE):
                part = members[start : start + _ELEMENTS_A_MESSAGE]
                body = _list_body(table, item.set, part, key_only)
                what = f"change the elements of {table} {item.set}"
                flags = 0 if key_only else NLM_F_CREATE
                requests.append(Request(what, _type(message), body, flags))
    if requests:
        _transact(sock, requests, None)


def _transact(sock: Netlink, requests: Sequence[Request], generation: bytes | None) -> None:
    condition = attribute(_BATCH_GENID, generation) if generation else b""
    # Kernels before 6.10 acknowledge neither end of a batch, so none is asked for.
    begin = Request("change the rule set", _BATCH_BEGIN, _header(0, _SUBSYSTEM) + condition, silent=True)
    end = Request("commit", _BATCH_END, _header(0, _SUBSYSTEM), silent=True)
    sock.run(begin, *requests, end)


def generation(sock: Netlink) -> bytes:
    """The number of the present rule set; every transaction of anybody changes it."""
    (answer,) = sock.run(Request("ask for the rule set's generation", _type(_GETGEN), _header(0)))
    return attributes(answer.payloads[0][4:])[_GENERATION_ID]


def delete_table_if_empty(sock: Netlink, table: str, set_name: str) -> bool:
    """Remove the inet table when its set has no element, even though others may be adding one at this moment: the
    kernel refuses the transaction when the rule set is no longer the one that was looked at. True when it is gone."""
    for _ in range(_ATTEMPTS):
        seen = generation(sock)
        if elements(sock, table, set_name):
            return False
        body = _header(_NFPROTO_INET) + text_attribute(_TABLE_NAME, table)
        request = Request(f"remove the table {table}", _type(_DELTABLE), body, ignore=(errno.ENOENT,))
        try:
            _transact(sock, (request,), seen)
        except OSError as exc:
            if exc.errno not in (errno.ERESTART, errno.EAGAIN):
                raise
            continue
        return True
    raise SystemFault(f"the nftables table {table} could not be removed: the rule set keeps changing")
