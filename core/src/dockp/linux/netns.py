"""Network namespaces without disturbing the calling thread. network_namespaces(7), setns(2), unshare(2).

Namespace membership is a property of a thread, so whatever must happen inside another namespace happens in a thread
made for it, which then ends. The caller's thread never moves, whatever fails.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from dockp.linux import libc

T = TypeVar("T")

CLONE_NEWNET = 0x40000000

_setns = libc.function("setns", libc.c_int, libc.c_int)
_unshare = libc.function("unshare", libc.c_int)


def _in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as exc:  # handed to the caller, who raises it
            errors.append(exc)

    thread = threading.Thread(target=body, name="dockp-netns", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def new() -> int:
    """Make a network namespace and return a descriptor of it, which keeps it alive. Raises OSError (EPERM without
    CAP_SYS_ADMIN)."""

    def work() -> int:
        libc.check(_unshare(CLONE_NEWNET), "unshare")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(work)


def inside(sandbox: int, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread that joined the namespace ``sandbox`` and return what it returns.

    What ``work`` opens (sockets, files under /proc/sys/net) belongs to that namespace for good.
    Raises: OSError, and what ``work`` raises.
    """

    def body() -> T:
        libc.check(_setns(sandbox, CLONE_NEWNET), "setns")
        return work()

    return _in_thread(body)


def socket_in(sandbox: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket that belongs to the namespace ``sandbox``, usable from any thread. Raises OSError."""
    return inside(sandbox, lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))
