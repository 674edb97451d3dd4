"""Filling a new, empty volume with what the image has at its mount point, as Docker does.

The image's tree is read through descriptors and never through a path that could lead out of it; symlinks are copied
and not followed. Loaded only by containers that have such a volume.
"""

from __future__ import annotations

import os
import stat

from dockp.linux.paths import open_in_root

_PIECE = 1 << 20


def fill(volume: str, root: int, target: str) -> None:
    """Copy the directory ``target`` of the tree under the descriptor ``root`` into ``volume``, when that is empty.

    Owner, mode, times and extended attributes come along, the directory's own too; hard links stay links. A target
    that is missing or no directory leaves the volume as it is. Raises OSError.
    """
    try:
        source = open_in_root(root, target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        destination = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.listdir(destination):
                return
            _copy_directory(source, destination, {})
        finally:
            os.close(destination)
    finally:
        os.close(source)


def _copy_directory(source: int, destination: int, links: dict[tuple[int, int], str]) -> None:
    with os.scandir(source) as entries:
        names = sorted([entry.name for entry in entries])
    for name in names:
        _copy_entry(source, destination, name, links)
    _copy_attributes(f"/proc/self/fd/{source}", f"/proc/self/fd/{destination}", os.fstat(source), True)


def _copy_entry(source: int, destination: int, name: str, links: dict[tuple[int, int], str]) -> None:
    info = os.stat(name, dir_fd=source, follow_symlinks=False)
    if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
        first = links.get((info.st_dev, info.st_ino))
        if first is not None:
            os.link(first, name, dst_dir_fd=destination, follow_symlinks=False)
            return
        links[info.st_dev, info.st_ino] = os.readlink(f"/proc/self/fd/{destination}") + "/" + name
    if stat.S_ISDIR(info.st_mode):
        os.mkdir(name, 0o700, dir_fd=destination)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        below = os.open(name, flags, dir_fd=source)
        try:
            made = os.open(name, flags, dir_fd=destination)
            try:
                _copy_directory(below, made, links)
            finally:
                os.close(made)
        finally:
            os.close(below)
        return
    if stat.S_ISREG(info.st_mode):
        _copy_file(source, destination, name)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=destination)
    elif not stat.S_ISSOCK(info.st_mode):  # a socket without its process is of no use to anybody
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=destination)
    else:
        return
    _copy_attributes(f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{destination}/{name}", info, False)


def _copy_file(source: int, destination: int, name: str) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=destination)
        try:
            while os.sendfile(writing, reading, None, _PIECE):
                pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_attributes(source: str, destination: str, info: os.stat_result, follow: bool) -> None:
    # Owner first: a change of owner clears set-id bits and file capabilities (chown(2)).
    os.chown(destination, info.st_uid, info.st_gid, follow_symlinks=follow)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(destination, stat.S_IMODE(info.st_mode))
    for name in os.listxattr(source, follow_symlinks=follow):
        if name.startswith("trusted.overlay.") or name == "system.nfs4_acl":
            continue  # how a storage driver keeps its books, not content
        try:
            os.setxattr(destination, name, os.getxattr(source, name, follow_symlinks=follow), follow_symlinks=follow)
        except OSError as failure:
            if name.startswith("security.capability"):
                raise
            if failure.errno not in (1, 95):  # EPERM, EOPNOTSUPP: the volume's file system has no such attributes
                raise
    os.utime(destination, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=follow)
