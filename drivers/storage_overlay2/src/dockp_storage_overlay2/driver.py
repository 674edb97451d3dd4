"""Snapshots as directories of changes, stacked by the kernel's overlay file system.

On disk, for every snapshot::

    <root>/<id>/diff      what this snapshot changed against its parent (overlay's upper directory)
    <root>/<id>/work      overlay's scratch space
    <root>/<id>/parent    symbolic link to ../<parent id>; absent in a base
    <root>/<id>/sealed    empty file; present once the snapshot is immutable
    <root>/+new.<id>      being created, ends by being renamed to <id>
    <root>/+old.<id>      being removed, begins by being renamed from <id>

Ids never begin with ``+``. The chain is kept in links because a link lives in its inode: journaling file systems write
it in one transaction with the rename that completes the snapshot, so create needs no fsync.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dockp.linux.trees import disk_usage, remove_tree, scatter, sync_directory, sync_file_system
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.storage import StorageDriver
from dockp.spi.values import ChangesDirectory, Mount, Usage
from dockp_storage_overlay2 import plan
from dockp_storage_overlay2.options import Overlay2Options

if TYPE_CHECKING:
    from dockp.spi.values import Probe

_NEW, _OLD = "+new.", "+old."


class Overlay2Driver(StorageDriver):
    """The default where the kernel has overlay: starting a container costs a few directories, whatever the image."""

    name = "overlay2"
    summary = "layers stacked by the kernel's overlay file system"
    priority = 100

    @classmethod
    def probe(cls, root: Path, options: Mapping[str, str]) -> Probe:
        from dockp_storage_overlay2.probe import probe

        return probe(root, Overlay2Options.parse(options))

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        self._options = Overlay2Options.parse(options)
        self.rebases = not self._options.metacopy  # which has no changes() to fill
        self._root = os.path.abspath(root)
        if not os.path.isdir(self._root):
            os.makedirs(self._root, exist_ok=True)
            os.chmod(self._root, 0o710)  # mkdir's mode is subject to the umask
            scatter(self._root)

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        for name in options:
            if name == "size":
                raise InvalidArgument("--storage-opt size is not supported by storage driver overlay2 on this root")
            raise InvalidArgument(f"unknown snapshot option {name!r} for storage driver overlay2")
        if os.path.isdir(self._path(id)):
            return
        if parent is not None:
            self._require(parent)
        new = self._path(_NEW + id)
        remove_tree(new)  # left by an attempt that was killed
        os.mkdir(new)
        os.chmod(new, 0o710)
        for directory in ("diff", "work"):
            os.mkdir(f"{new}/{directory}")
            os.chmod(f"{new}/{directory}", 0o755)
        if parent is not None:
            os.symlink(f"../{parent}", f"{new}/parent")
            _copy_attributes(self._path(parent, "diff"), f"{new}/diff")
        os.rename(new, self._path(id))

    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        self._require(id)
        upper, *lowers = (self._path(layer, "diff") for layer in self._chain(id))
        if read_only or self._is_sealed(id):
            return (plan.read_only([upper, *lowers], self._options),)
        if self._options.volatile:
            # The kernel leaves this mark so that a torn upper directory is not reused unknowingly; whoever asked for
            # volatile knows, and wants to start the container a second time.
            remove_tree(self._path(id, "work/work/incompat"))
        return (plan.writable(upper, self._path(id, "work"), lowers, self._options),)

    def seal(self, id: str) -> None:
        self.seal_all([id])

    def seal_all(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._require(id)
        unsealed = [id for id in ids if not self._is_sealed(id)]
        if unsealed and not self._options.volatile:
            sync_file_system(self._root)  # before the marks, so that they prove the data
        for id in unsealed:
            os.close(os.open(self._path(id, "sealed"), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        if not self._options.volatile:
            for id in unsealed:
                sync_directory(self._path(id))

    def rebase(self, id: str, parent: str, inherit_root: bool) -> None:
        self._require(id)
        self._require(parent)
        with suppress(FileExistsError):
            os.symlink(f"../{parent}", self._path(id, "parent"))
        if inherit_root:
            _copy_attributes(self._path(parent, "diff"), self._path(id, "diff"))

    def remove(self, id: str) -> None:
        old = self._path(_OLD + id)
        remove_tree(old)
        with suppress(FileNotFoundError):
            os.rename(self._path(id), old)  # from here on the id is free, whatever happens
        remove_tree(old)
        remove_tree(self._path(_NEW + id))

    def usage(self, id: str) -> Usage:
        self._require(id)
        size, inodes = disk_usage(self._path(id, "diff"))
        return Usage(size=size, inodes=inodes)

    def inventory(self) -> frozenset[str]:
        names = os.listdir(self._root)
        half_made = {name[len(_NEW) :] for name in names if name.startswith((_NEW, _OLD))}
        return frozenset({name for name in names if not name.startswith("+")} | half_made)

    def changes(self, id: str) -> ChangesDirectory | None:
        self._require(id)
        if self._options.metacopy:
            return None  # redirects and files without data say too little to be read as plain files
        whiteouts = "overlay" if os.path.lexists(self._path(id, "parent")) else "none"
        return ChangesDirectory(path=self._path(id, "diff"), whiteouts=whiteouts)

    def status(self) -> Sequence[tuple[str, str]]:
        from dockp_storage_overlay2.probe import facts

        return tuple(facts(self._root, self._options).items())

    def _path(self, id: str, part: str = "") -> str:
        return f"{self._root}/{id}/{part}" if part else f"{self._root}/{id}"

    def _require(self, id: str) -> None:
        if not os.path.isdir(self._path(id)):
            raise NotFound(f"storage driver overlay2 has no snapshot {id} in {self._root}")

    def _is_sealed(self, id: str) -> bool:
        return os.path.exists(self._path(id, "sealed"))

    def _chain(self, id: str) -> list[str]:
        """``id`` and its ancestors, nearest first."""
        chain = [id]
        with suppress(FileNotFoundError):
            while True:
                chain.append(os.path.basename(os.readlink(self._path(chain[-1], "parent"))))
        return chain


def _copy_attributes(source: str, target: str) -> None:
    """Give one directory owner, mode, xattrs and times of another.

    The root of an overlay shows the attributes of its upper directory, so a child must begin with its parent's.
    """
    info = os.stat(source)
    os.chown(target, info.st_uid, info.st_gid)
    os.chmod(target, info.st_mode & 0o7777)
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
