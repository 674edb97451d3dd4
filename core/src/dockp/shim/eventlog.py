"""Appending to the event log: the half of it that shims need. `dockp.events.log` reads and follows it.

One file in the exec root, to which every process of every engine on that root appends. A record is an RS character
(0x1e), a JSON document and a newline (RFC 7464): a write that was cut short, by SIGKILL or a full disk, leaves a piece
without its newline, which no reader takes for a record and which does not spoil the next.

Writers hold the file's lock shared, whoever rotates holds it alone: once a file has been renamed nobody writes to it.
"""

from __future__ import annotations

import fcntl
import os
import time

from dockp.linux.jsonlite import dumps
from dockp.linux.locks import lock_whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

BEGIN, END = b"\x1e", b"\n"
LIMIT = 1 << 20
"""Bytes after which a file is set aside as ``<path>.1``, in place of the one before; some 3,000 events."""


def append(path: str, kind: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> None:
    """Write down that something happened now. Arguments as in Docker's ``EventMessage``.

    Never raises OSError: what happened has happened, whether there is room to tell of it or not.
    """
    try:
        descriptor = _open(path)
    except OSError:
        return
    try:
        now = time.time_ns()
        document = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor_id, "Attributes": dict(sorted(attributes.items()))},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        os.write(descriptor, BEGIN + dumps(document).encode() + END)
        if os.fstat(descriptor).st_size >= LIMIT:
            _rotate(path, descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    """The current file, its lock held shared."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock_whole(descriptor, fcntl.F_RDLCK)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:  # it was renamed, and nobody has made the next yet
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _rotate(path: str, descriptor: int) -> None:
    """Set the file aside, if nobody else is writing; whoever writes next tries again."""
    try:
        lock_whole(descriptor, fcntl.F_WRLCK, wait=False)
        os.rename(path, path + ".1")
    except OSError:
        pass
