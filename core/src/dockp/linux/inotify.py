"""inotify(7), as far as waiting for files to appear or change needs it."""

from __future__ import annotations

import os
import struct

from dockp.linux.libc import c_char_p, c_int, c_uint, check, function

IN_MODIFY = 0x002
IN_CLOSE_WRITE = 0x008
IN_MOVED_TO = 0x080
IN_CREATE = 0x100

_init = function("inotify_init1", c_int)
_add_watch = function("inotify_add_watch", c_int, c_char_p, c_uint)
_remove_watch = function("inotify_rm_watch", c_int, c_int)
_HEADER = struct.Struct("=iIII")


class Inotify:
    """One inotify instance; `fileno` is for poll(2), and `read` never blocks."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = check(_init(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")

    def fileno(self) -> int:
        return self._fd

    def add(self, path: str, mask: int) -> int:
        """Watch ``path``; returns the watch's number. Raises OSError."""
        return check(_add_watch(self._fd, os.fsencode(path), mask), path)

    def remove(self, watch: int) -> None:
        """Stop watching. Raises OSError when the watch is gone already."""
        check(_remove_watch(self._fd, watch), f"watch {watch}")

    def read(self) -> list[tuple[int, int, str]]:
        """What happened since the last call: (watch, mask, name inside a watched directory or "")."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        events = []
        offset = 0
        while offset < len(data):
            watch, mask, _cookie, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            events.append((watch, mask, name))
            offset += length
        return events

    def close(self) -> None:
        """Close the instance. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
