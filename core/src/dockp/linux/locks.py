"""Byte-range locks that belong to an open file, not to a process (F_OFD_*). Source: fcntl(2)."""

from __future__ import annotations

import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_F_OFD_GETLK = 36
_F_OFD_SETLK = 37
_F_OFD_SETLKW = 38
_FLOCK = "hhqqi4x"


def _flock(kind: int, offset: int) -> bytes:
    # struct flock: type, whence, start, length, pid; the pid must be 0 for OFD locks
    return struct.pack(_FLOCK, kind, os.SEEK_SET, offset, 1, 0)


def lock_whole(descriptor: int, kind: int, wait: bool = True) -> None:
    """Lock an open file as a whole, or change such a lock: ``kind`` is F_RDLCK (needs a descriptor open for reading),
    F_WRLCK (for writing) or F_UNLCK. It goes with the last descriptor of the open file.

    Raises: BlockingIOError when ``wait`` is False and another holds it.
    """
    flock = struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(descriptor, _F_OFD_SETLKW if wait else _F_OFD_SETLK, flock)


def offset_of(*name: str) -> int:
    """The byte in the lock file that stands for a name: 62 bits of its FNV-1a hash, so that no two meet by chance.

    FNV-1a, since loading a cryptographic library takes longer than everything a lock is held for.
    """
    value = 0xCBF29CE484222325
    for byte in "\0".join(name).encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value >> 2


class Hold:
    """One held lock; leaving the block or `release` frees it, and so does the death of the holder."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor that owns the lock: a process that inherits it holds the lock too. -1 once released."""
        return self._fd

    def release(self) -> None:
        """Free the lock. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class RangeLocks:
    """Many named locks in one file: each is one byte at an offset. The file is made (0600) and stays empty."""

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def hold(self, offset: int, exclusive: bool = True, wait: bool = True) -> Hold:
        """Take the lock at ``offset`` through a descriptor of its own, so threads exclude each other as well.

        Raises: BlockingIOError when ``wait`` is False and another holds it.
        """
        fd = self._open()
        kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        try:
            fcntl.fcntl(fd, _F_OFD_SETLKW if wait else _F_OFD_SETLK, _flock(kind, offset))
        except BaseException as failure:
            os.close(fd)
            if isinstance(failure, PermissionError):  # fcntl(2): EACCES or EAGAIN, either means "held"
                raise BlockingIOError(11, os.strerror(11), self.path) from None
            raise
        return Hold(fd)

    def is_held(self, offset: int) -> bool:
        """Whether anybody, this process included, holds the lock at ``offset``."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            answer = fcntl.fcntl(fd, _F_OFD_GETLK, _flock(fcntl.F_WRLCK, offset))
        finally:
            os.close(fd)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
