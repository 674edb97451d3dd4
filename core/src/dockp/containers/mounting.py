"""``python -m dockp.containers.mounting REQUEST SOCKET``: put a container's files together where nobody else sees them.

REQUEST is ``{"mounts", "volumes", "target", "shim", "read_only"}``: mounts as [type, source, options], all on the
directory ``target``, and volumes the same with the part of the volume as the fourth and a path inside as the fifth.
With ``shim``, a pid, ``target`` is taken as mounted in its namespace, and ``mounts`` are none. The answer, on the
stream socket with the descriptor SOCKET, is one message of `dockp.shim.wire`: ``{"error": line}``, or ``{}`` with two
descriptors, the root directory and the mount namespace. This process is then done; what it mounted lives as long as
those descriptors.
"""

from __future__ import annotations

import _socket
import os
import stat
import sys

from dockp.linux import mounts, namespaces
from dockp.linux.jsonlite import loads
from dockp.linux.paths import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    make_directories,
    open_in_root,
    open_or_make_file,
)
from dockp.shim import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RO = ("ro", "rro")


def main() -> None:
    sock = _socket.socket(fileno=int(sys.argv[2]))
    try:
        wire.send_blocking(sock, {}, assemble(loads(sys.argv[1])))
    except OSError as failure:
        where = f": {failure.filename}" if failure.filename else ""
        wire.send_blocking(sock, {"error": f"cannot mount the container's files: {failure.strerror or failure}{where}"})


def assemble(request: dict[str, Any]) -> tuple[int, int]:
    """Descriptors of the root directory and of the namespace, in which this process is afterwards. Raises OSError."""
    # Sources first: their paths mean something where this process comes from, and may lie below the target.
    volumes = [(_volume(*volume), target) for *volume, target in request["volumes"]]
    if request["shim"]:
        place = os.open(f"/proc/{request['shim']}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(place, namespaces.CLONE_NEWNS)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.set_propagation("/", "rprivate")
    target = request["target"]
    for type, source, options in request["mounts"]:
        mounts.apply_mount(type, source, options, target)
    root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for volume, path in volumes:
        directory = stat.S_ISDIR(os.fstat(volume).st_mode)
        mounts.attach(volume, make_directories(root, path) if directory else open_or_make_file(root, path))
    if request["mounts"]:
        mounts.set_propagation(target, "rprivate")
    if request["read_only"]:
        mounts.set_attributes(target, mounts.MOUNT_ATTR_RDONLY)
    return root, os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def _volume(type: str, source: str, options: list[str], subpath: str) -> int:
    """A detached mount of a volume, or of a part of it; no link in the volume leads out of it."""
    if not subpath:
        return mounts.build(type, source, options)
    # What is not attached anywhere cannot be cloned before Linux 6.15, so a directory is taken where it is.
    bind = type == "bind"
    whole = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if bind else mounts.build(type, source, options)
    try:
        part = open_in_root(whole, subpath, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(whole)
    try:
        return mounts.build("bind", f"/proc/self/fd/{part}", ["rbind", *(word for word in options if word in _RO)])
    finally:
        os.close(part)


if __name__ == "__main__":
    main()
