"""An executable that containers cannot overwrite.

A process in a container whose /proc/<pid>/exe leads to a program of the host could open it for writing (CVE-2019-5736).
A shim is therefore started from a copy that cannot be written: a read-only mount of the very file, or, where mounts
are not to be had, a sealed copy in memory.
"""

from __future__ import annotations

import os

from dockp.linux import mounts

_F_ADD_SEALS = 1033
_ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write


def sealed_executable(path: str) -> int:
    """A descriptor (closed on exec) to execute instead of ``path``: ``os.execve(fd, argv, env)``.

    Opening it for writing, also by way of /proc/<pid>/exe, fails with EROFS; writing to the copy in memory with EPERM.
    Raises: OSError.
    """
    try:
        mount_fd = mounts.open_tree(path)
    except OSError:
        return _sealed_copy(path)
    try:
        mounts.set_attributes(mount_fd, set=mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NODEV)
        # The mount's own descriptor is O_PATH; executing needs no more, and it keeps the detached mount alive.
    except OSError:
        os.close(mount_fd)
        return _sealed_copy(path)
    return mount_fd


def _sealed_copy(path: str) -> int:
    import fcntl

    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        copy = os.memfd_create("dockp:" + os.path.basename(path), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            offset = 0
            while offset < size:
                sent = os.sendfile(copy, source, offset, size - offset)
                if sent == 0:
                    break
                offset += sent
            os.fchmod(copy, 0o755)
            fcntl.fcntl(copy, _F_ADD_SEALS, _ALL_SEALS)
        except BaseException:
            os.close(copy)
            raise
        return copy
    finally:
        os.close(source)
