"""Paths inside a root that somebody else controls: no symlink, ``..`` or rename leads out of it.

A root is a descriptor (``O_PATH`` will do). Lookups of what exists go through openat2(2) with RESOLVE_IN_ROOT, which
resolves symlinks, absolute ones included, as if the root were ``/``. Creation walks component by component, holding a
descriptor of each directory, so that every mkdir happens in a directory that was reached safely.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from dockp.linux.libc import c_char_p, c_int, c_size_t, check, system_call

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_MAX_SYMLINKS = 40  # as the kernel's own MAXSYMLINKS
_RETRIES = 64

_openat2 = system_call("openat2", c_int, c_char_p, c_char_p, c_size_t)


def open_in_root(
    root: int,
    path: str,
    flags: int = os.O_PATH,
    mode: int = 0,
    resolve: int = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
) -> int:
    """Open ``path`` as if ``root`` were ``/``; the descriptor closes on exec. Raises OSError."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_RETRIES):
        try:
            return check(_openat2(root, os.fsencode(path.lstrip("/") or "."), how, len(how)), path)
        except OSError as failure:
            # openat2(2): EAGAIN means that a rename raced with a "..", so that safety could not be told: try again.
            if failure.errno != errno.EAGAIN:
                raise
    raise OSError(errno.EAGAIN, "the path keeps changing while it is resolved", path)


def make_directories(root: int, path: str, mode: int = 0o755, owner: tuple[int, int] | None = None) -> int:
    """Open the directory ``path`` inside ``root``, making what is missing; returns an O_PATH descriptor.

    Dangling symlinks on the way are followed and their targets made, as a shell in the container would find them.
    Args: mode: of made directories, whatever the umask. owner: uid and gid of made directories.
    Raises: OSError; ENOTDIR when a file is in the way, ELOOP after 40 symlinks.
    """
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as failure:
        if failure.errno != errno.ENOENT:
            raise
    chain = [os.dup(root)]  # descriptors of the directories from the root down to where the walk is
    try:
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        links = 0
        while waiting:
            name = waiting.pop()
            if name == "..":
                if len(chain) > 1:
                    os.close(chain.pop())
                continue
            found = _open_entry(chain[-1], name)
            if found is None:
                _make_one(chain[-1], name, mode, owner)
                found = _open_entry(chain[-1], name)
                if found is None:
                    raise OSError(errno.ENOENT, "removed while it was being made", path)
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                chain.append(found)
                continue
            links += 1
            target = os.readlink("", dir_fd=found)
            os.close(found)
            if links > _MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                while len(chain) > 1:
                    os.close(chain.pop())
            waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        if not stat.S_ISDIR(os.fstat(chain[-1]).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return chain.pop()
    finally:
        for descriptor in chain:
            os.close(descriptor)


def _open_entry(directory: int, name: str) -> int | None:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None


def _make_one(directory: int, name: str, mode: int, owner: tuple[int, int] | None) -> None:
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        return
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fchmod(made, mode)
        if owner is not None:
            os.fchown(made, *owner)
    finally:
        os.close(made)


def open_or_make_file(root: int, path: str, mode: int = 0o755) -> int:
    """Open ``path`` (anything but a directory) inside ``root`` with O_PATH, making an empty file where nothing is."""
    try:
        return open_in_root(root, path)
    except OSError as failure:
        if failure.errno != errno.ENOENT:
            raise
    links = 0
    while True:
        head, _, name = path.rstrip("/").rpartition("/")
        parent = make_directories(root, head or "/")
        try:
            try:
                made = os.open(
                    name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent
                )
            except FileExistsError:
                target = _dangling_link(parent, name)
                if target is None:
                    return open_in_root(root, path)
                links += 1
                if links > _MAX_SYMLINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                path = target if target.startswith("/") else f"{head}/{target}"
                continue
            os.close(made)
            return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)


def _dangling_link(parent: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None
