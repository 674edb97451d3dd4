"""Whole directory trees: remove, measure, make durable. For storage drivers and whoever unpacks archives.

Nothing here follows a symbolic link or leaves the tree it was given.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct

from dockp.linux.libc import c_int, check, function
from dockp.spi.errors import FailedPrecondition

_syncfs = function("syncfs", c_int)

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_TOP_OF_HIERARCHIES = 0x00020000

_DEEPEST = 64
"""Directories held open at once while removing; deeper ones are first moved up."""


def sync_file_system(path: str) -> None:
    """Write everything that is dirty on the file system of ``path`` to its device. Source: syncfs(2).

    Raises: OSError, also for write-back errors that happened earlier (kernel 5.8 and later).
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check(_syncfs(fd), path)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Make the entries of one directory durable. Source: fsync(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def scatter(path: str) -> None:
    """Say that the directories in ``path`` have nothing to do with each other, and come and go.

    ext4 then puts each into another part of the disk. Where they lie together, a new file has to pass over every inode
    that was freed there in the last minutes, one by one; starting a container could take half as long again. File
    systems without the flag are left as they are. Source: chattr(1) "T", ioctl_iflags(2).
    """
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = struct.unpack("=I", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=I", flags | _TOP_OF_HIERARCHIES))
    except OSError:
        pass  # it has no such flag
    finally:
        os.close(fd)


def discard_tree(path: str | os.PathLike[str]) -> None:
    """`remove_tree` as far as it goes: what cannot be removed now stays, for a later attempt to find."""
    with contextlib.suppress(OSError, FailedPrecondition):
        remove_tree(os.fspath(path))


def remove_tree(path: str) -> None:
    """Remove ``path`` whatever it is and however deep it goes; absent is success.

    A container can nest directories deeper than any path, recursion limit or descriptor table allows. So whatever
    lies below `_DEEPEST` levels is renamed to the top of the tree and removed from there.

    Raises: FailedPrecondition when a part is a mount point of this namespace, or immutable. OSError.
    """
    try:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass  # Linux says EISDIR for a directory, some file systems EPERM
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while _empty(top, top, 0):
            pass  # each round takes what the last one moved up
    finally:
        os.close(top)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _in_use(path, error) from error


def _empty(top: int, directory: int, depth: int) -> bool:
    """Remove what ``directory`` holds. True when something was moved to ``top`` and another round is needed."""
    moved = False
    with os.scandir(directory) as entries:
        # Read all names first: removing while reading may skip entries on some file systems.
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        try:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
                continue
            if depth >= _DEEPEST and _move_up(top, directory, name):
                moved = True
                continue
            try:
                os.rmdir(name, dir_fd=directory)
                continue
            except OSError:
                pass  # not empty, most likely; the second rmdir below reports anything else
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                moved |= _empty(top, child, depth + 1)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            continue  # somebody else removes the same tree: both succeed
        except OSError as error:
            raise _in_use(name, error) from error
    return moved


def _move_up(top: int, directory: int, name: str) -> bool:
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    try:
        # The inode number makes the name unique within one file system, and stays the same in a second attempt.
        os.rename(name, f"+deep.{info.st_ino}", src_dir_fd=directory, dst_dir_fd=top)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False  # overlay does not move directories of lower layers: go deeper instead
    return True


def _in_use(name: str, error: OSError) -> Exception:
    if error.errno == errno.EBUSY:
        return FailedPrecondition(f"cannot remove {name}: something is mounted on it; unmount it and try again")
    if error.errno == errno.EPERM:
        return FailedPrecondition(f"cannot remove {name}: the file is immutable or append-only; run chattr -ia on it")
    return error


def disk_usage(path: str) -> tuple[int, int]:
    """Bytes and inodes that the tree at ``path`` occupies on disk, each hard-linked file counted once.

    What vanishes or becomes unreadable while being counted (the tree may be in use) is left out.
    Raises: FileNotFoundError when ``path`` itself is absent.
    """
    info = os.lstat(path)
    size, inodes = info.st_blocks * 512, 1
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        pending.append(entry.path)
                    elif info.st_nlink > 1:
                        if (info.st_dev, info.st_ino) in seen:
                            continue
                        seen.add((info.st_dev, info.st_ino))
                    size += info.st_blocks * 512
                    inodes += 1
        except OSError:
            continue
    return size, inodes


def content_size(path: str) -> int:
    """Bytes of the files under ``path``, as long as they claim to be, each hard-linked file counted once; directories
    count nothing. What vanishes while being counted is left out."""
    size = 0
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        pending.append(entry.path)
                        continue
                    if info.st_nlink > 1:
                        if (info.st_dev, info.st_ino) in seen:
                            continue
                        seen.add((info.st_dev, info.st_ino))
                    size += info.st_size
        except OSError:
            continue
    return size
