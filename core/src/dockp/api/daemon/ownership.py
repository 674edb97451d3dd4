"""Who works on a data root: one daemon at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from dockp.linux.locks import RangeLocks
from dockp.spi.errors import FailedPrecondition, SystemFault

_NAME = "dockpd"  # as `set_name` has it, see /proc/<pid>/comm


@contextlib.contextmanager
def owned_roots(data_root: str, exec_root: str) -> Iterator[None]:
    """Be the one daemon of both roots, which are made when they are missing. The kernel lets go of them when this
    process dies; the embedded engine does not ask.

    Raises: FailedPrecondition naming the daemon that has one of them; SystemFault.
    """
    with contextlib.ExitStack() as held:
        for root, mode, what in ((data_root, 0o710, "data root"), (exec_root, 0o711, "exec root")):
            try:
                os.makedirs(root, mode=mode, exist_ok=True)
                lock = RangeLocks(os.path.join(root, "daemon.lock"))
                hold = held.enter_context(lock.hold(0, wait=False))
            except BlockingIOError:
                pid = _read(lock.path) or "unknown"
                raise FailedPrecondition(f"another dockpd (pid {pid}) has the {what} {root}") from None
            except OSError as error:
                raise SystemFault(f"cannot use {root}: {(error.strerror or str(error)).lower()}") from error
            os.ftruncate(hold.fileno(), 0)
            os.pwrite(hold.fileno(), b"%d\n" % os.getpid(), 0)
        yield


@contextlib.contextmanager
def pidfile(path: str) -> Iterator[None]:
    """Have our process id in ``path`` meanwhile.

    Raises: FailedPrecondition when another living daemon is named there; SystemFault.
    """
    named = _read(path)
    if named.isdigit() and int(named) != os.getpid() and _read(f"/proc/{named}/comm") == _NAME:
        raise FailedPrecondition(f"process with PID {named} is still running: {path} is the pidfile of another dockpd")
    try:
        with open(path, "w") as file:
            file.write(f"{os.getpid()}\n")
    except OSError as error:
        raise SystemFault(f"cannot write the pidfile {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        yield
    finally:
        if _read(path) == str(os.getpid()):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""
