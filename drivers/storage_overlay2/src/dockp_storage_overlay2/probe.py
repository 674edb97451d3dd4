"""Find out whether overlay works on a directory by trying it, in a child process with a mount namespace of its own.

Run as a program (``python -m dockp_storage_overlay2.probe DIRECTORY METACOPY VOLATILE``) this module is that
child. It must be executed, not forked: the engine may have threads, and unshare in a thread would leave the rest of
the process in another namespace.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from dockp.linux.trees import remove_tree
from dockp.spi.values import Probe
from dockp_storage_overlay2 import plan
from dockp_storage_overlay2.options import Overlay2Options

_SECONDS = 20
_MAGIC_NAMES = {"ext2": "extfs", "ext3": "extfs", "ext4": "extfs"}
"""Docker names file systems by their magic number, which these share."""


def probe(root: Path, options: Overlay2Options) -> Probe:
    """Try the driver on ``root`` or its nearest existing parent. Leaves nothing behind, mounts nothing on the host."""
    place = os.path.abspath(root)
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    backing = file_system(place)
    if backing in ("overlay", "aufs", "ecryptfs"):
        return Probe(
            supported=False,
            reason=f"{place} is on {backing}, which cannot hold overlay's upper directories: put the data root on "
            "ext4, xfs, btrfs or tmpfs (in a container: on a volume), or use storage driver vfs",
        )
    try:
        scratch = tempfile.mkdtemp(prefix="+probe.", dir=place)
    except OSError as error:
        return Probe(supported=False, reason=f"cannot write to {place}: {error.strerror}")
    try:
        if not _supports_d_type(scratch):
            return Probe(
                supported=False,
                reason=f"{backing} on {place} does not support d_type, which overlay needs: for xfs, "
                "make the file system with ftype=1",
            )
        problem = _trial_in_child(scratch, options)
        if problem:
            return Probe(supported=False, reason=f"overlay does not work on {place} ({backing}): {problem}")
        details = facts(place, options)
    finally:
        remove_tree(scratch)
    return Probe(
        supported=True,
        features=frozenset() if options.metacopy else frozenset({"native-diff"}),
        details=details,
    )


def facts(place: str, options: Overlay2Options) -> dict[str, str]:
    """What ``info`` prints, in Docker's words and order."""
    scratch = tempfile.mkdtemp(prefix="+probe.", dir=place)
    try:
        d_type = _supports_d_type(scratch)
    finally:
        remove_tree(scratch)
    backing = file_system(place)
    return {
        "Backing Filesystem": _MAGIC_NAMES.get(backing, backing),
        "Supports d_type": _word(d_type),
        "Using metacopy": _word(options.metacopy),
        "Native Overlay Diff": _word(not options.metacopy),
        "userxattr": "false",  # layers are written with trusted.* attributes, since the engine runs as root
    }


def file_system(place: str) -> str:
    """The type of the file system that holds ``place``, by mountinfo. Source: proc_pid_mountinfo(5)."""
    real = os.path.realpath(place)
    best, found = "", "unknown"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            point = before.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):  # of several on one point the last covers the others
                best, found = point, after.split(" ", 1)[0]
    return found


def _supports_d_type(scratch: str) -> bool:
    """Whether directory listings tell the type of entries.

    `os.DirEntry` falls back to stat only when the listing did not tell. With the entry gone that stat fails, so the
    answer then is False.
    """
    inner = f"{scratch}/entry"
    os.mkdir(inner)
    with os.scandir(scratch) as entries:
        entry = next(entry for entry in entries if entry.name == "entry")
    os.rmdir(inner)
    return entry.is_dir(follow_symlinks=False)


def _trial_in_child(scratch: str, options: Overlay2Options) -> str:
    """Run the trial; return what went wrong in one line, or ""."""
    flags = [_word(options.metacopy), _word(options.volatile)]
    # -P: the directory the user happens to stand in must not be searched for modules by a process of root.
    command = [sys.executable, "-P", "-m", __name__, scratch, *flags]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        child = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"the trial mount did not end within {_SECONDS} seconds"
    if child.returncode == 0:
        return ""
    lines = (child.stderr or child.stdout).strip().splitlines()
    return lines[-1] if lines else f"the trial mount ended with status {child.returncode}"


def _trial(scratch: str, options: Overlay2Options) -> None:
    """Mount two lower directories and check that deletions are recorded the way `ChangesDirectory` promises."""
    from dockp.linux.mounts import apply_mount, set_propagation
    from dockp.linux.namespaces import CLONE_NEWNS, unshare

    unshare(CLONE_NEWNS)
    set_propagation("/", "rprivate")
    for name in ("lower1/gone", "lower2/replaced/inner", "upper", "work", "merged"):
        os.makedirs(f"{scratch}/{name}")
    lowers = [f"{scratch}/lower1", f"{scratch}/lower2"]
    mount = plan.writable(f"{scratch}/upper", f"{scratch}/work", lowers, options)
    apply_mount(mount.type, mount.source, mount.options, f"{scratch}/merged")
    os.rmdir(f"{scratch}/merged/gone")
    os.rmdir(f"{scratch}/merged/replaced/inner")
    os.rmdir(f"{scratch}/merged/replaced")
    os.mkdir(f"{scratch}/merged/replaced")
    whiteout = os.lstat(f"{scratch}/upper/gone")
    if not stat.S_ISCHR(whiteout.st_mode) or whiteout.st_rdev != 0:
        raise OSError("deletions are not recorded as whiteouts")
    if os.getxattr(f"{scratch}/upper/replaced", "trusted.overlay.opaque") != b"y":
        raise OSError("replaced directories are not marked opaque")


def _word(value: bool) -> str:
    return "true" if value else "false"


def _main() -> int:
    scratch, *flags = sys.argv[1:]
    metacopy, volatile = (flag == "true" for flag in flags)
    try:
        _trial(scratch, Overlay2Options(metacopy=metacopy, volatile=volatile))
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
