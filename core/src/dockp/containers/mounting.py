"""``python -m dockp.containers.mounting REQUEST SOCKET``: put a container's files together where nobody else sees them.

REQUEST is ``{"mounts", "volumes", "staged", "target", "shim", "read_only"}``: mounts as [type, source, options], all on
the directory ``target``; volumes the same with a path inside as the fourth; staged as `dockp.shim.volumes` takes them,
below ``target``. With ``shim``, a pid, ``target`` is taken as mounted in its namespace, and ``mounts`` are none. The
answer, on the stream socket with the descriptor SOCKET, is one message of `dockp.shim.wire`: ``{"error": line}``, or
``{}`` with two descriptors, the root directory and the mount namespace. This process is then done; what it mounted
lives as long as those descriptors.
"""

from __future__ import annotations

import _socket
import os
import stat
import sys

from dockp.linux import mounts, namespaces
from dockp.linux.jsonlite import loads
from dockp.linux.paths import make_directories, open_or_make_file
from dockp.shim import wire
from dockp.spi.errors import DockpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    sock = _socket.socket(fileno=int(sys.argv[2]))
    try:
        wire.send_blocking(sock, {}, assemble(loads(sys.argv[1])))
    except BrokenPipeError:
        pass  # whoever asked was killed
    except DockpError as failure:
        wire.send_blocking(sock, {"error": str(failure)})
    except OSError as failure:
        where = f": {failure.filename}" if failure.filename else ""
        wire.send_blocking(sock, {"error": f"cannot mount the container's files: {failure.strerror or failure}{where}"})


def assemble(request: dict[str, Any]) -> tuple[int, int]:
    """Descriptors of the root directory and of the namespace, in which this process is afterwards. Raises OSError."""
    if request["shim"]:
        place = os.open(f"/proc/{request['shim']}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(place, namespaces.CLONE_NEWNS)
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.set_propagation("/", "rprivate")
    target = request["target"]
    if request["staged"]:
        from dockp.shim.volumes import stage

        mounts.apply_mount("tmpfs", "tmpfs", ["mode=0700"], target)
        for volume in request["staged"]:
            stage(volume)
    # Before the target is covered, since sources may lie below it.
    volumes = [(mounts.build(type, source, options), path) for type, source, options, path in request["volumes"]]
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


if __name__ == "__main__":
    main()
