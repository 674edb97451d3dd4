"""Mounts for tests, where nobody else sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dockp.linux.mounts import MNT_DETACH, apply_mount, set_propagation, unmount
from dockp.linux.namespaces import CLONE_NEWNS, unshare
from dockp.spi.values import Mount

_private_in: int | None = None


def enter_private_namespace() -> None:
    """Move this process, once, into a mount namespace of its own: the host's mount table stays as it is, and whatever
    a failed test leaves mounted ends with the process.

    Namespaces belong to threads. Call this in the main thread: threads started later inherit it.
    """
    global _private_in
    if _private_in == os.getpid():
        return
    if os.geteuid() != 0:
        raise PermissionError("storage drivers are tested with real mounts: run the tests as root")
    unshare(CLONE_NEWNS)
    set_propagation("/", "rprivate")
    _private_in = os.getpid()


@contextmanager
def mounted(mounts: Sequence[Mount], target: str) -> Iterator[str]:
    """Mount all of ``mounts`` on the directory ``target``, made when absent, for the length of the block."""
    enter_private_namespace()
    os.makedirs(target, exist_ok=True)
    done = 0
    try:
        for mount in mounts:
            apply_mount(mount.type, mount.source, mount.options, target)
            done += 1
        yield target
    finally:
        for _ in range(done):
            unmount(target, MNT_DETACH)


def mount_table() -> list[str]:
    """What is mounted in this namespace, one line a mount. Source: proc_pid_mountinfo(5)."""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return sorted(table.read().splitlines())
