"""The ``local`` volume driver: a directory a volume, or a file system that is mounted for whoever uses it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dockp.linux.jsonlite import dumps, loads
from dockp.linux.trees import discard_tree
from dockp.spi.errors import InvalidArgument, NotFound, Unavailable
from dockp.spi.values import Mount
from dockp.spi.volumes import VolumeDriver

_OPTIONS = frozenset({"type", "o", "device", "size"})
_NEEDED = (("type", "device"), ("device", "type"), ("o", "device"), ("o", "type"))
"""Options that make no sense without others."""
_NETWORKED = ("nfs", "nfs4", "cifs")


class LocalVolumes(VolumeDriver):
    """Volumes as ``<root>/<name>/_data``, the layout that Docker's users know; options are in ``opts.json`` beside it.

    With the options ``type``, ``device`` and ``o`` (mount(8)) a volume is that file system. It is mounted where the
    container is made, and never at ``_data``: nothing appears in the host's mount table. So a tmpfs is each
    container's own; everything that has a device, such as a directory, a disk or a server, is the same for all.
    """

    name: ClassVar[str] = "local"
    summary: ClassVar[str] = "a directory on this host"

    def __init__(self, root: Path, options: Mapping[str, str]) -> None:
        if options:
            raise InvalidArgument(f'volume driver local has no option "{sorted(options)[0]}"')
        self._root = root

    def create(self, name: str, options: Mapping[str, str]) -> None:
        _check(name, options)
        data = self._root / name / "_data"
        data.parent.mkdir(mode=0o701, parents=True, exist_ok=True)
        data.mkdir(mode=0o755, exist_ok=True)
        os.chmod(data, 0o755)  # whatever the umask was
        if options:
            unfinished = data.parent / "opts.json.new"
            unfinished.write_text(dumps(dict(options)))
            unfinished.rename(data.parent / "opts.json")

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
        try:
            options = loads((self._root / name / "opts.json").read_text())
        except FileNotFoundError:
            return [Mount(type="bind", source=path, options=("rbind",))]
        kind, words = options["type"], [word for word in options.get("o", "").split(",") if word]
        if "bind" in words or "rbind" in words:
            kind = "bind"
        if kind in _NETWORKED:
            words = [_with_address(word) for word in words]
        return [Mount(type=kind, source=options["device"], options=tuple(words))]

    def mountpoint(self, name: str) -> str:
        return str(self._root / name / "_data")

    def inventory(self) -> frozenset[str]:
        try:
            return frozenset(entry for entry in os.listdir(self._root) if not entry.startswith("."))
        except FileNotFoundError:
            return frozenset()


def _check(name: str, options: Mapping[str, str]) -> None:
    for option in sorted(options):
        if option not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    if "size" in options:
        raise InvalidArgument(f"create {name}: quota size requested but no quota support")
    for option, needed in _NEEDED:
        if option in options and not options.get(needed):
            raise InvalidArgument(f'create {name}: missing required option: "{needed}"')


def _with_address(word: str) -> str:
    """``addr=server`` with the server's address, since the kernel asks no name server. Raises: Unavailable."""
    key, _, host = word.partition("=")
    if key != "addr" or not host:
        return word
    import socket

    try:
        return f"addr={socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]}"
    except OSError as error:
        raise Unavailable(
            f"error resolving passed in network volume address: lookup {host}: {error.strerror}"
        ) from None
