"""What one file system tree changed against another: the list that ``diff`` prints, and what a layer is packed from.

Two ways lead to the same list. `between` walks two whole trees. `in_directory` walks only the directory that holds the
changes of a snapshot, whatever the size of what lies below.

The rules are Docker's: an entry that is new is *added*; one whose kind, owner, mode, device number or, unless it is a
directory, size or modification time differs is *changed*, and so is every directory above a change; of what was deleted
only the topmost directory is named; the root itself never is. A difference in xattrs or in a link's target counts as a
change too, which Docker misses in part.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from dockp.archive.tree import Tree
from dockp.spi.values import ChangesDirectory

ADDED, CHANGED, DELETED = "A", "C", "D"
_OPAQUE_XATTR = "trusted.overlay.opaque"


class Change(NamedTuple):
    """One line of ``diff``: ``kind`` is "A", "C" or "D"; ``path`` begins with a slash."""

    kind: str
    path: str


def between(lower: str | int | None, upper: str | int) -> list[Change]:
    """The changes that make tree ``lower`` (None: nothing) into tree ``upper``, sorted by path.

    Trees are paths or descriptors. ``upper`` may change meanwhile; nothing outside of it is looked at then.
    """
    found: list[Change] = []
    with Tree(upper) as new:
        if lower is None:
            _compare(None, new, "", found)
        else:
            with Tree(lower) as old:
                _compare(old, new, "", found)
    return sorted(found, key=_order)


def in_directory(changes: ChangesDirectory, lowers: Sequence[str]) -> list[Change]:
    """The changes that a snapshot's directory holds, sorted by path. It may change meanwhile, as in `between`.

    Args: lowers: what lies below, nearest first: the ``path`` of each ancestor's `ChangesDirectory`, or just the
        mounted parent. Only looked up, never walked, save below a directory that was replaced as a whole.
    """
    found: list[Change] = []
    with Tree(changes.path) as upper:
        _collect(upper, "", [lower for lower in lowers if os.path.isdir(lower)], found)
    return sorted(found, key=_order)


def _compare(lower: Tree | None, upper: Tree, path: str, found: list[Change]) -> None:
    old = lower.entries(path) if lower is not None else {}
    new = upper.entries(path)
    for name in old.keys() - new.keys():
        found.append(Change(DELETED, f"{path}/{name}"))
    for name, info in new.items():
        inner = f"{path}/{name}"
        before = old.get(name)
        position = len(found)
        if stat.S_ISDIR(info.st_mode):
            merges = before is not None and stat.S_ISDIR(before.st_mode)
            _compare(lower if merges else None, upper, inner, found)
        if lower is None or before is None:
            found.append(Change(ADDED, inner))
        elif len(found) > position or _differs(before, info, lower, upper, inner):
            found.append(Change(CHANGED, inner))


def _collect(upper: Tree, path: str, lowers: list[str], found: list[Change]) -> None:
    """Args: lowers: the directories that ``path`` shows merged, from below ``upper``, nearest first."""
    for name, info in upper.entries(path).items():
        inner = f"{path}/{name}"
        below, old = _look_up(lowers, name)
        if is_whiteout(info):
            if old is not None:
                found.append(Change(DELETED, inner))
            continue
        found.append(Change(ADDED if old is None else CHANGED, inner))
        if not stat.S_ISDIR(info.st_mode):
            continue
        if upper.is_opaque(inner):
            kept = upper.entries(inner).keys()
            found += [Change(DELETED, f"{inner}/{gone}") for gone in _merged_names(below) - kept]
        # Names that an opaque directory shares with what it hides are changes, not additions, as `between` sees it.
        _collect(upper, inner, below, found)


def _look_up(lowers: list[str], name: str) -> tuple[list[str], os.stat_result | None]:
    """What ``name`` was below: the directories it shows merged, nearest first, and its nearest incarnation."""
    merged: list[str] = []
    nearest: os.stat_result | None = None
    for lower in lowers:
        try:
            info = os.lstat(f"{lower}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        if is_whiteout(info):
            break
        if not stat.S_ISDIR(info.st_mode):
            nearest = nearest or info
            break
        nearest = nearest or info
        merged.append(f"{lower}/{name}")
        if is_opaque(f"{lower}/{name}"):
            break
    return merged, nearest


def _merged_names(lowers: list[str]) -> set[str]:
    names: set[str] = set()
    hidden: set[str] = set()
    for lower in lowers:
        for name, info in _entries(lower).items():
            if name in names or name in hidden:
                continue
            (hidden if is_whiteout(info) else names).add(name)
    return names


def _differs(before: os.stat_result, after: os.stat_result, lower: Tree, upper: Tree, path: str) -> bool:
    if (before.st_mode, before.st_uid, before.st_gid, before.st_rdev) != (
        after.st_mode,
        after.st_uid,
        after.st_gid,
        after.st_rdev,
    ):
        return True
    if not stat.S_ISDIR(after.st_mode) and (before.st_size != after.st_size or before.st_mtime_ns != after.st_mtime_ns):
        return True
    if stat.S_ISLNK(after.st_mode) and lower.readlink(path) != upper.readlink(path):
        return True
    return lower.xattrs(path) != upper.xattrs(path)


def is_whiteout(info: os.stat_result) -> bool:
    """Whether a file of a `ChangesDirectory` stands for a deletion. Source: kernel doc filesystems/overlayfs."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(directory: str) -> bool:
    """Whether a directory of a `ChangesDirectory` hides what is below it."""
    try:
        return os.getxattr(directory, _OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _entries(directory: str) -> dict[str, os.stat_result]:
    with os.scandir(directory) as entries:
        return {entry.name: entry.stat(follow_symlinks=False) for entry in entries}


def _order(change: Change) -> list[bytes]:
    # By components, so that a directory comes right before what it holds ("/a", "/a/b", "/a.c").
    return [os.fsencode(part) for part in change.path.split("/")]
