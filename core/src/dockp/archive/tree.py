"""A directory tree that others may change while it is read, looked at through descriptors.

Every name is looked up from the top under RESOLVE_NO_SYMLINKS (openat2(2)), so a directory that a container swaps for
a symbolic link is an entry that vanished, and never a way out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from typing import BinaryIO

from dockp.linux.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, open_in_root

VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
"""What a look-up says of an entry that is gone, or is something else by now."""
_OPAQUE_XATTR = "trusted.overlay.opaque"
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS


class Tree:
    """One tree. Paths are relative to its top, with or without a slash in front; "" is the top. A context manager.

    Args: top: a directory's path, or a descriptor of one, which is copied.
    """

    def __init__(self, top: str | int) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._top = os.dup(top) if isinstance(top, int) else os.open(top, flags)
        self._directory = ""  # whose descriptor is kept: neighbours are asked for one after the other
        self._descriptor = self._top

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._forget()
        os.close(self._top)

    def info(self, path: str) -> os.stat_result:
        """The lstat of an entry. Raises OSError."""
        directory, name = self._parent(path)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def entries(self, path: str) -> dict[str, os.stat_result]:
        """What a directory holds; nothing when it is none any more."""
        try:
            descriptor = open_in_root(self._top, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)
        except OSError as error:
            if error.errno in VANISHED:
                return {}
            raise
        found = {}
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    try:
                        found[entry.name] = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
        finally:
            os.close(descriptor)
        return found

    def walk(self, closed: Collection[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
        """Every path below the top, with its lstat; sorted, directories before what they hold. Of the directories
        ``closed`` what they hold is left out."""
        pending = self._sorted("")
        while pending:
            path, info = pending.pop()
            yield path, info
            if stat.S_ISDIR(info.st_mode) and path not in closed:
                pending += self._sorted(path)

    def open(self, path: str) -> BinaryIO:
        """A regular file, unbuffered. Raises OSError, ENOENT for what is none (any more): devices are not opened."""
        directory, name = self._parent(path)
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            return open(f"/proc/self/fd/{found}", "rb", buffering=0)
        finally:
            os.close(found)

    def readlink(self, path: str) -> str:
        """Where a symbolic link leads. Raises OSError."""
        directory, name = self._parent(path)
        return os.readlink(name, dir_fd=directory)

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The xattrs that belong to the tree: all but those by which overlay keeps its books."""
        try:
            directory, name = self._parent(path)
            place = f"/proc/self/fd/{directory}/{name}"
            names = os.listxattr(place, follow_symlinks=False)
            return {
                name: os.getxattr(place, name, follow_symlinks=False)
                for name in sorted(names)
                if not name.startswith(_OVERLAY_XATTRS)
            }
        except OSError:
            return {}  # a file system without xattrs, or an entry that is gone

    def is_opaque(self, path: str) -> bool:
        """Whether a directory of a `ChangesDirectory` hides what is below it."""
        try:
            directory, name = self._parent(path)
            place = f"/proc/self/fd/{directory}/{name}"
            return os.getxattr(place, _OPAQUE_XATTR, follow_symlinks=False) == b"y"
        except OSError:
            return False

    def _parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the directory that holds ``path``, kept until the next call, and the name there."""
        directory, _, name = path.strip("/").rpartition("/")
        if directory != self._directory:
            self._forget()
            flags = os.O_PATH | os.O_DIRECTORY
            self._descriptor = open_in_root(self._top, directory, flags, resolve=_RESOLVE)
            self._directory = directory
        return self._descriptor, name or "."

    def _forget(self) -> None:
        if self._directory:
            os.close(self._descriptor)
        self._directory, self._descriptor = "", self._top

    def _sorted(self, path: str) -> list[tuple[str, os.stat_result]]:
        entries = self.entries(path)
        prefix = f"{path}/" if path else ""
        return [(prefix + name, entries[name]) for name in sorted(entries, key=os.fsencode, reverse=True)]
