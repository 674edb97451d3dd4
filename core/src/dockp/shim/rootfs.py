"""The container's root file system, mounted where only this shim and its container see it."""

from __future__ import annotations

import os

from dockp.linux import mounts, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def enter_private_namespace() -> None:
    """Leave the host's mount table. Mounts of the host still arrive here (a volume's later ones too), none of ours
    go back. Source: mount_namespaces(7)."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.set_propagation("/", "rslave")


def assemble(bundle: str, rootfs: dict[str, Any]) -> str:
    """Mount the serialized mounts of ``rootfs`` at ``<bundle>/rootfs``, in order; returns that path.

    Without mounts the directory is taken as it is. Raises OSError.
    """
    target = bundle + "/rootfs"
    try:
        os.mkdir(target, 0o755)
    except FileExistsError:
        pass
    for mount in rootfs["mounts"]:
        mounts.apply_mount(mount["type"], mount["source"], mount["options"], target)
    if rootfs["mounts"]:
        # A shared root would let mounts made in the container's namespace travel back to this one.
        mounts.set_propagation(target, "rprivate")
    return target


def mark(root: int) -> None:
    """Make ``/.dockerenv``, an empty file by which many programs tell that they are in a container."""
    try:
        os.close(os.open(".dockerenv", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o755, dir_fd=root))
    except OSError:
        pass  # it is there already, or nothing can be written there: nobody depends on it


def keep_shared(bundle: str, spec: dict[str, Any]) -> list[tuple[str, int]]:
    """Hold the sources of shared bind mounts before the host's mount table is left.

    Behind `enter_private_namespace` every mount is a slave, and a bind of a slave cannot share with the host again
    (``-v /x:/y:rshared``). A clone taken before is still a peer. Returns (path to attach it at, descriptor) pairs and
    changes the spec's sources to those paths; `attach_shared` does the rest.
    """
    held: list[tuple[str, int]] = []
    for mount in spec.get("mounts") or ():
        words = mount.get("options") or ()
        if ("shared" in words or "rshared" in words) and ("bind" in words or "rbind" in words):
            path = f"{bundle}/shared-{len(held)}"
            held.append((path, mounts.open_tree(mount["source"], recursive="rbind" in words)))
            directory = os.path.isdir(mount["source"])
            if directory:
                os.makedirs(path, 0o700, exist_ok=True)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
            mount["source"] = path
    return held


def attach_shared(held: list[tuple[str, int]]) -> None:
    """Attach what `keep_shared` holds, in the private namespace."""
    for path, descriptor in held:
        mounts.attach(descriptor, path)
        os.close(descriptor)


def own_terminals(spec: dict[str, Any]) -> str:
    """Mount the container's devpts here already, and have its spec bind it; returns the path of its multiplexer.

    The terminal of the container's first process has to exist before the container's own mounts do. It is taken from
    this devpts, mounted on this namespace's /dev/pts, so that it has the same name here and inside: /dev/pts/0. One
    of the host's would have none inside. Returns "" where the spec has no devpts to take over, or one that belongs to
    a user namespace not made yet.
    """
    namespaced = [entry["type"] for entry in (spec.get("linux") or {}).get("namespaces") or ()]
    for mount in spec.get("mounts") or ():
        if mount["destination"] == "/dev/pts" and mount.get("type") == "devpts" and "user" not in namespaced:
            try:
                mounts.apply_mount("devpts", "devpts", mount.get("options") or (), "/dev/pts")
            except FileNotFoundError:
                return ""  # a host without terminals of its own
            mount.update(type="bind", source="/dev/pts", options=["bind", "nosuid", "noexec"])
            return "/dev/pts/ptmx"
    return ""


def dismantle(bundle: str) -> None:
    """Let the root file system go while the shim lives on. Failing is harmless: the namespace's end does it too."""
    try:
        mounts.unmount(bundle + "/rootfs", mounts.MNT_DETACH)
    except OSError:
        pass
