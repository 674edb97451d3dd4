"""Snapshots as plain copies, made by cp(1).

Layout of the root: ``making/<id>`` while a copy is under way, ``snapshots/<id>`` when it is complete, ``sealed/<id>``
an empty file once it is sealed, ``removing/<id>`` while it is being deleted. A snapshot moves between them by rename,
so a crash at any point leaves something that the next call finishes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dockp.spi import InvalidArgument, Mount, NotFound, Probe, StorageDriver, SystemFault, Usage


class ToyDriver(StorageDriver):
    """Copies, with a label to show in ``dockp info``."""

    name: ClassVar[str] = "toy"
    summary: ClassVar[str] = "plain copies with a label, an example from outside"
    priority: ClassVar[int] = -10

    @classmethod
    def probe(cls, root: Path, options: Mapping[str, str]) -> Probe:
        _label(options)
        if shutil.which("cp") is None:
            return Probe(supported=False, reason="the command cp is missing: install coreutils")
        return Probe(supported=True, details={"Copies by": "cp"})

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        self._root = root
        self._label = _label(options)
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(0o710)
        for name in ("making", "snapshots", "sealed", "removing"):
            (root / name).mkdir(mode=0o700, exist_ok=True)

    def create(self, id: str, parent: str | None, options: Mapping[str, str]) -> None:
        if options:
            raise InvalidArgument(f'storage driver toy: unknown option "{next(iter(options))}"')
        final, making = self._root / "snapshots" / id, self._root / "making" / id
        if final.is_dir():
            return
        _delete(making)
        making.mkdir()
        if parent is None:
            making.chmod(0o755)
        else:
            source = self._existing(parent)
            # "source/." copies the attributes of the directory itself too.
            done = subprocess.run(
                ["cp", "-a", "--reflink=auto", f"{source}/.", str(making)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                _delete(making)
                raise SystemFault(f"storage driver toy: cannot copy {parent}: {done.stderr.strip().splitlines()[-1]}")
        making.rename(final)

    def mounts(self, id: str, read_only: bool = False) -> Sequence[Mount]:
        sealed = (self._root / "sealed" / id).exists()
        access = "ro" if read_only or sealed else "rw"
        return [Mount(type="bind", source=str(self._existing(id)), options=("rbind", access))]

    def seal(self, id: str) -> None:
        self._existing(id)
        os.sync()  # content first: a seal on disk promises that all of it is
        marker = self._root / "sealed" / id
        marker.touch()
        for path in (marker, marker.parent):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def remove(self, id: str) -> None:
        doomed = self._root / "removing" / id
        _delete(doomed)
        (self._root / "sealed" / id).unlink(missing_ok=True)
        for place in ("snapshots", "making"):
            try:
                (self._root / place / id).rename(doomed)
            except FileNotFoundError:
                continue
            _delete(doomed)

    def usage(self, id: str) -> Usage:
        size, inodes = 0, set()
        for folder, _, names in os.walk(self._existing(id)):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                st = os.lstat(path)
                if st.st_ino not in inodes:
                    inodes.add(st.st_ino)
                    size += st.st_blocks * 512
        return Usage(size=size, inodes=len(inodes))

    def inventory(self) -> frozenset[str]:
        places = ("making", "snapshots", "sealed", "removing")
        return frozenset(name for place in places for name in os.listdir(self._root / place))

    def status(self) -> Sequence[tuple[str, str]]:
        return [("Toy Label", self._label), ("Snapshots", str(len(os.listdir(self._root / "snapshots"))))]

    def _existing(self, id: str) -> Path:
        path = self._root / "snapshots" / id
        if not path.is_dir():
            raise NotFound(f"storage driver toy: no such snapshot: {id}")
        return path


def _label(options: Mapping[str, str]) -> str:
    unknown = sorted(set(options) - {"toy.label"})
    if unknown:
        raise InvalidArgument(f'storage driver toy: unknown option "{unknown[0]}" (it knows toy.label)')
    return options.get("toy.label", "none")


def _delete(path: Path) -> None:
    # rm rather than shutil.rmtree, which cannot remove a tree deeper than Python's stack.
    done = subprocess.run(["rm", "-rf", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemFault(f"storage driver toy: cannot remove {path}: {done.stderr.strip().splitlines()[-1]}")
