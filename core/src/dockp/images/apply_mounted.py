"""``python -m dockp.images.apply_mounted REQUEST``: unpack a plain tar from standard input into a mounted snapshot.

REQUEST is ``{"target": directory, "mounts": [[type, source, [option, ...]], ...]}``. The answer is one JSON object on
standard output: ``{"size": bytes, "entries": count}`` or ``{"kind": error class, "error": line}``. The mounts live in a
private namespace and go with this process, however it ends.
"""

from __future__ import annotations

import json
import sys

from dockp.archive.apply import apply_layer
from dockp.linux.mounts import apply_mount, set_propagation
from dockp.linux.namespaces import CLONE_NEWNS, unshare
from dockp.linux.trees import sync_file_system
from dockp.spi.errors import DockpError


def main() -> None:
    request = json.loads(sys.argv[1])
    target = request["target"]
    try:
        unshare(CLONE_NEWNS)
        set_propagation("/", "rprivate")
        for type, source, options in request["mounts"]:
            apply_mount(type, source, options, target)
        applied = apply_layer(sys.stdin.buffer, target, "delete")
        sync_file_system(target)
        answer: dict[str, object] = {"size": applied.size, "entries": applied.entries}
    except DockpError as error:
        answer = {"kind": type_name(error), "error": str(error)}
    except OSError as error:
        answer = {"kind": "SystemFault", "error": f"unpacking a layer: {error.strerror}: {error.filename or target}"}
    json.dump(answer, sys.stdout)


def type_name(error: Exception) -> str:
    """The name of the error's class."""
    return error.__class__.__name__


if __name__ == "__main__":
    main()
