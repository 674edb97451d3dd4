"""The ``local`` volume driver: a directory a volume."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dockp.linux.trees import discard_tree
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.values import Mount
from dockp.spi.volumes import VolumeDriver


class LocalVolumes(VolumeDriver):
    """Volumes as ``<root>/<name>/_data``, the layout that Docker's users know."""

    name: ClassVar[str] = "local"
    summary: ClassVar[str] = "a directory on this host"

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        if options:
            raise InvalidArgument(f'volume driver local has no option "{sorted(options)[0]}"')
        self._root = root

    def create(self, name: str, options: Mapping[str, str]) -> None:
        if options:
            # type=, o= and device= mount other file systems; accepting them here without doing so would lose data.
            raise InvalidArgument(f'create {name}: invalid option: "{sorted(options)[0]}"')
        data = self._root / name / "_data"
        data.parent.mkdir(mode=0o701, parents=True, exist_ok=True)
        data.mkdir(mode=0o755, exist_ok=True)
        os.chmod(data, 0o755)  # whatever the umask was

    def remove(self, name: str) -> None:
        doomed = self._root / f".removing-{name}"
        try:
            # Away under its name in one step, so that a kill in between leaves no half-empty volume.
            os.rename(self._root / name, doomed)
        except FileNotFoundError:
            pass
        except OSError:
            discard_tree(doomed)  # an earlier removal was cut short
            os.rename(self._root / name, doomed)
        discard_tree(doomed)

    def mounts(self, name: str) -> Sequence[Mount]:
        path = self.mountpoint(name)
        if not os.path.isdir(path):
            raise NotFound(f"get {name}: no such volume")
        return [Mount(type="bind", source=path, options=("rbind",))]

    def mountpoint(self, name: str) -> str:
        return str(self._root / name / "_data")

    def inventory(self) -> frozenset[str]:
        try:
            return frozenset(entry for entry in os.listdir(self._root) if not entry.startswith("."))
        except FileNotFoundError:
            return frozenset()
