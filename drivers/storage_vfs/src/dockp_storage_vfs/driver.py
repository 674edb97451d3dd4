"""Snapshots as plain directories, each a full copy of its parent: slow, large, and right on any file system.

This is the driver to read before writing one. On disk, for every snapshot::

    <root>/<id>/fs        the tree
    <root>/<id>/sealed    empty file; present once the snapshot is immutable
    <root>/+new.<id>      a copy being made, ends by being renamed to <id>
    <root>/+old.<id>      being removed, begins by being renamed from <id>

A directory called ``<id>`` is therefore always complete, wherever a crash fell. Ids never begin with ``+``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dockp.linux.trees import disk_usage, remove_tree, sync_directory, sync_file_system
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.storage import StorageDriver
from dockp.spi.values import Mount, Probe, Usage
from dockp_storage_vfs.copying import copy_tree

_NEW, _OLD = "+new.", "+old."


class VfsDriver(StorageDriver):
    """Works wherever directories do. Copies share their data where the file system can (btrfs, xfs)."""

    name = "vfs"
    summary = "full copies of plain directories; works anywhere"
    priority = 0  # chosen unasked only where nothing better works

    @classmethod
    def probe(cls, root: Path, options: Mapping[str, str]) -> Probe:
        _refuse("option", options)
        place = os.path.abspath(root)
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        if not os.access(place, os.W_OK | os.X_OK):
            return Probe(supported=False, reason=f"cannot write to {place}: run as root or choose another data root")
        return Probe(supported=True)

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        _refuse("option", options)
        self._root = os.path.abspath(root)
        if not os.path.isdir(self._root):
            os.makedirs(self._root, exist_ok=True)
            os.chmod(self._root, 0o710)  # mkdir's mode is subject to the umask

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        _refuse("snapshot option", options)
        if os.path.isdir(self._path(id)):
            return
        if parent is not None:
            self._require(parent)
        new = self._path(_NEW + id)
        remove_tree(new)  # left by an attempt that was killed
        os.mkdir(new)
        os.chmod(new, 0o710)
        os.mkdir(f"{new}/fs")
        os.chmod(f"{new}/fs", 0o755)
        if parent is not None:
            copy_tree(self._path(parent, "fs"), f"{new}/fs")
            # A rename may reach the disk before the data it covers; a power cut would then leave empty files in what
            # looks like a complete copy.
            sync_file_system(new)
        os.rename(new, self._path(id))

    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        self._require(id)
        mode = "ro" if read_only or os.path.exists(self._path(id, "sealed")) else "rw"
        return (Mount(type="bind", source=self._path(id, "fs"), options=("bind", mode)),)

    def seal(self, id: str) -> None:
        self._require(id)
        if os.path.exists(self._path(id, "sealed")):
            return
        sync_file_system(self._path(id))  # before the mark, so that the mark proves the data
        os.close(os.open(self._path(id, "sealed"), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        sync_directory(self._path(id))

    def remove(self, id: str) -> None:
        old = self._path(_OLD + id)
        remove_tree(old)
        with suppress(FileNotFoundError):
            os.rename(self._path(id), old)  # from here on the id is free, whatever happens
        remove_tree(old)
        remove_tree(self._path(_NEW + id))

    def usage(self, id: str) -> Usage:
        self._require(id)
        size, inodes = disk_usage(self._path(id, "fs"))
        return Usage(size=size, inodes=inodes)

    def inventory(self) -> frozenset[str]:
        return frozenset(name.removeprefix(_NEW).removeprefix(_OLD) for name in os.listdir(self._root))

    def _path(self, id: str, part: str = "") -> str:
        return f"{self._root}/{id}/{part}" if part else f"{self._root}/{id}"

    def _require(self, id: str) -> None:
        if not os.path.isdir(self._path(id)):
            raise NotFound(f"storage driver vfs has no snapshot {id} in {self._root}")


def _refuse(what: str, options: Mapping[str, str]) -> None:
    for name in options:
        raise InvalidArgument(f"unknown {what} {name!r} for storage driver vfs: it has none")
