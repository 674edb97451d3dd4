"""Copy a directory tree with everything a root file system may hold."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

_FICLONE = 0x40049409  # ioctl_ficlone(2): _IOW(0x94, 9, int), the same on every architecture


def copy_tree(source: str, target: str) -> None:
    """Make the directory ``target``, which exists and is empty, equal to ``source``, which nobody changes meanwhile.

    Kept: data and holes, owners, modes, times, xattrs (so ACLs and file capabilities too), hard links within the tree,
    symbolic links, device nodes, fifos and sockets. Raises: OSError.
    """
    copies: dict[int, str] = {}  # inode of a file with several names -> its first name in the target
    directories = [(source, target)]
    for old_directory, new_directory in directories:  # grows while it is walked: parents come before children
        with os.scandir(old_directory) as entries:
            for entry in entries:
                old, new = entry.path, f"{new_directory}/{entry.name}"
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(new, 0o700)
                    directories.append((old, new))
                    continue
                if info.st_nlink > 1 and info.st_ino in copies:
                    os.link(copies[info.st_ino], new, follow_symlinks=False)
                    continue
                _copy_file(old, new, info)
                _copy_attributes(old, new, info)
                if info.st_nlink > 1:
                    copies[info.st_ino] = new
    for old, new in reversed(directories):  # children first: filling a directory changes its times
        _copy_attributes(old, new, os.lstat(old))


def _copy_file(old: str, new: str, info: os.stat_result) -> None:
    if stat.S_ISREG(info.st_mode):
        _copy_data(old, new, info.st_size)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(old), new)
    else:
        os.mknod(new, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev)


def _copy_data(old: str, new: str, size: int) -> None:
    reader = os.open(old, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    writer = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if _share_data(reader, writer):
            return
        os.ftruncate(writer, size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return  # the rest is one hole
            end = os.lseek(reader, start, os.SEEK_HOLE)
            while start < end:
                copied = os.copy_file_range(reader, writer, end - start, start, start)
                if not copied:
                    raise OSError(errno.EIO, "file became shorter while it was copied", old)
                start += copied
    finally:
        os.close(reader)
        os.close(writer)


def _share_data(reader: int, writer: int) -> bool:
    """Let both files share their blocks, copied when written to. False where the file system cannot."""
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV, errno.ENOSYS):
            raise
        return False
    return True


def _copy_attributes(old: str, new: str, info: os.stat_result) -> None:
    # The order matters: chown clears setuid bits and file capabilities, so modes and xattrs come after it.
    os.chown(new, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(new, stat.S_IMODE(info.st_mode))
    for name in os.listxattr(old, follow_symlinks=False):
        os.setxattr(new, name, os.getxattr(old, name, follow_symlinks=False), follow_symlinks=False)
    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
