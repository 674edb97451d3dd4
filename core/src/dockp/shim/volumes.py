"""Volumes that have to be mounted before the container can bind them.

They are mounted in the shim's own mount namespace: the host sees nothing of it, and it is gone with the shim. That is
done in the host's network namespace, so that a file server is asked by the host and not by the container. Loaded only
by containers that have such a volume.
"""

from __future__ import annotations

import os
import stat

from dockp.linux import mounts
from dockp.linux.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, open_in_root
from dockp.spi.errors import SystemFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def stage(volume: dict[str, Any]) -> None:
    """Mount the layers of ``volume`` one upon the other at ``<path>/whole``, and its ``subpath`` at ``<path>/part``.

    Raises: SystemFault in Docker's words; OSError.
    """
    whole = volume["path"] + "/whole"
    os.makedirs(whole, 0o700, exist_ok=True)
    for type, source, options in volume["mounts"]:
        try:
            mounts.apply_mount(type, source, options, whole)
        except OSError as failure:
            why = (failure.strerror or "").lower()
            words = ",".join([word for word in options if not word.startswith("password=")])
            raise SystemFault(
                f"error while mounting volume '{volume['shown']}': failed to mount local volume: "
                f"mount {source}:{volume['shown']}, type: {type}, data: {words}: {why}"
            ) from failure
    if volume["subpath"]:
        _mount_part(whole, volume)


def _mount_part(whole: str, volume: dict[str, Any]) -> None:
    root = os.open(whole, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Held by a descriptor from here on: whoever writes in the volume may put a link there, but not get us out.
        part = open_in_root(root, volume["subpath"], resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except OSError as failure:
        path = f"{volume['shown']}/{volume['subpath']}"
        why = (failure.strerror or "").lower()
        raise SystemFault(f"cannot access path {path}: lstat {path}: {why}") from failure
    finally:
        os.close(root)
    try:
        target = volume["path"] + "/part"
        if stat.S_ISDIR(os.fstat(part).st_mode):
            os.makedirs(target, 0o700, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o600))
        tree = mounts.open_tree(part, recursive=True)
        try:
            mounts.attach(tree, target)
        finally:
            os.close(tree)
    finally:
        os.close(part)
