"""Files into and out of a container: ``cp``, and ``/containers/{id}/archive`` of the API.

Paths are looked up inside the container's root (`dockp.containers.views`), the kernel seeing to it that no link leads
out of there, whatever the container does meanwhile. Bytes go through as they come; nothing is held whole.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import BinaryIO, cast

from attrs import frozen

from dockp.archive.pack import Packer, PackStream
from dockp.archive.tree import Tree
from dockp.containers.context import Context
from dockp.containers.record import Container
from dockp.containers.telling import tell
from dockp.containers.views import open_to_write, open_view
from dockp.interface import Document
from dockp.linux.paths import open_in_root
from dockp.spi.errors import Forbidden, InvalidArgument, NotFound, SystemFault
from dockp.timestamps import rfc3339_nano

_MOST_LINKS = 255
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_GO_MODES = (
    (stat.S_ISDIR, 1 << 31),
    (stat.S_ISLNK, 1 << 27),
    (stat.S_ISBLK, 1 << 26),
    (stat.S_ISCHR, 1 << 26 | 1 << 21),
    (stat.S_ISFIFO, 1 << 25),
    (stat.S_ISSOCK, 1 << 24),
)
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
"""Source: Go, io/fs, FileMode."""


def archive_stat(context: Context, container: Container, path: str) -> Document:
    """See `dockp.interface.Containers.archive_stat`."""
    with open_view(context, container) as view, _Found(view.root, path, container.name) as found:
        return found.document(view.root)


def archive_get(context: Context, container: Container, path: str) -> tuple[BinaryIO, Document]:
    """See `dockp.interface.Containers.archive_get`."""
    with open_view(context, container) as view, _Found(view.root, path, container.name) as found:
        document = found.document(view.root)
        if stat.S_ISDIR(found.info.st_mode):
            tree = Tree(found.descriptor)
            name = "." if found.name == "/" else found.name
            pieces = Packer(tree, whole_seconds=True).below(name, _kernel_directories(view.root, found.descriptor))
        else:
            tree = Tree(found.parent)
            pieces = Packer(tree, whole_seconds=True).single(found.base, found.name)
        # The view may go now: the tree has its own descriptor. What is mounted below goes with the namespace, though.
        held = view.copy()
    tell(context, container, "archive-path")

    def done() -> None:
        tree.close()
        held.close()

    return cast(BinaryIO, PackStream(pieces, done)), document


def archive_put(
    context: Context,
    container: Container,
    path: str,
    source: BinaryIO,
    *,
    no_overwrite_dir_non_dir: bool,
    copy_uid_gid: bool,
) -> None:
    """See `dockp.interface.Containers.archive_put`."""
    from dockp.archive.apply import extract
    from dockp.archive.compression import open_stream

    directory = _clean(path)
    with open_to_write(context, container) as view:
        try:
            target = open_in_root(view.root, directory)
        except OSError as error:
            raise _absent(path, container.name, error) from error
        try:
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                raise InvalidArgument("extraction point is not a directory")
            _check_writable(view.root, target)
        finally:
            os.close(target)
        extract(
            open_stream(source),
            view.root,
            directory,
            keep_kinds=no_overwrite_dir_non_dir,
            owner=_owner(view.root, container) if copy_uid_gid else None,
        )
    tell(context, container, "extract-to-dir")


@frozen(init=False)
class _Found:
    """What a path leads to: an entry ``base`` of the directory ``parent``, or the directory ``descriptor`` itself.

    ``name`` is what the path calls it: "." for ``/a/.``, and "b" for ``/a/b/`` wherever that link leads.
    """

    parent: int
    descriptor: int
    base: str
    name: str
    path: str
    info: os.stat_result

    def __init__(self, root: int, path: str, container: str) -> None:
        clean = _clean(path)
        follow = path.endswith(("/", "/.")) or path == "." or clean == "/"
        current = path == "." or path.endswith("/.")
        head, base = posixpath.split(clean)
        parent = descriptor = -1
        try:
            if follow:
                descriptor = open_in_root(root, clean, os.O_PATH | os.O_DIRECTORY)
            else:
                parent = open_in_root(root, head, os.O_PATH | os.O_DIRECTORY)
                descriptor = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            if parent >= 0:
                os.close(parent)
            if follow and error.errno == errno.ENOTDIR:
                raise InvalidArgument(f"{path}: not a directory") from error
            raise _absent(path, container, error) from error
        name = "." if current and clean != "/" else base or "/"
        self.__attrs_init__(parent, descriptor, base, name, clean, os.fstat(descriptor))

    def __enter__(self) -> _Found:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.descriptor)
        if self.parent >= 0:
            os.close(self.parent)

    def document(self, root: int) -> Document:
        """As in ``X-Docker-Container-Path-Stat``."""
        return {
            "name": self.name,
            "size": self.info.st_size,
            "mode": go_mode(self.info.st_mode),
            "mtime": rfc3339_nano(self.info.st_mtime_ns),
            "linkTarget": _evaluated(root, self.path) if stat.S_ISLNK(self.info.st_mode) else "",
        }


def go_mode(mode: int) -> int:
    """A mode as Go's ``os.FileMode`` has it."""
    kind = next((bits for test, bits in _GO_MODES if test(mode)), 0)
    return mode & 0o777 | kind | sum(bits for bit, bits in _GO_BITS if mode & bit)


def _clean(path: str) -> str:
    if "\0" in path:
        raise InvalidArgument("a path cannot hold a NUL")
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def _absent(path: str, container: str, error: OSError) -> Exception:
    if error.errno in _ABSENT:
        return NotFound(f"Could not find the file {path} in container {container}")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidArgument(f"{path[:64]}…: file name too long")
    return SystemFault(f"{path}: {(error.strerror or '').lower()}")


def _evaluated(root: int, path: str) -> str:
    """Where the link ``path`` leads in the end, as a path inside ``root``; what is missing on the way is taken as
    written. Only told, never used to open anything."""
    waiting = [part for part in reversed(path.split("/")) if part]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in (".", ".."):
            del done[len(done) - (part == "..") :]
            continue
        target = ""
        try:
            entry = open_in_root(root, "/".join([*done, part]), os.O_PATH | os.O_NOFOLLOW)
            try:
                if stat.S_ISLNK(os.fstat(entry).st_mode):
                    target = os.readlink("", dir_fd=entry)
            finally:
                os.close(entry)
        except OSError:
            pass
        links += bool(target)
        if not target or links > _MOST_LINKS:
            done.append(part)
            continue
        if target.startswith("/"):
            done.clear()
        waiting += [part for part in reversed(target.split("/")) if part]
    return "/" + "/".join(done)


def _kernel_directories(root: int, top: int) -> list[str]:
    """What a copy of the whole tree leaves out, as Docker's does: the contents of /dev, /proc and /sys when the
    runtime has mounted them."""
    if not os.path.samestat(os.fstat(root), os.fstat(top)):
        return []
    found = []
    for name in ("dev", "proc", "sys"):
        try:
            directory = open_in_root(top, name)
        except OSError:
            continue
        try:
            if _mount_id(directory) != _mount_id(top):
                found.append(name)
        finally:
            os.close(directory)
    return found


def _check_writable(root: int, directory: int) -> None:
    if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        if _mount_id(root) == _mount_id(directory):
            raise Forbidden("container rootfs is marked read-only")
        raise Forbidden("mounted volume is marked read-only")


def _mount_id(descriptor: int) -> str:
    """Source: proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        return next(line for line in file if line.startswith("mnt_id:"))


def _owner(root: int, container: Container) -> tuple[int, int] | None:
    """The ids of the user that the container runs as; None when it names none."""
    from dockp.shim import users

    user = container.request.config.user
    if not user:
        return None
    found = users.resolve(root, user, [])
    return found.uid, found.gid
