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
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dockp.spi.values import ChangesDirectory

ADDED, CHANGED, DELETED = "A", "C", "D"
_OPAQUE_XATTR = "trusted.overlay.opaque"
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


class Change(NamedTuple):
    """One line of ``diff``: ``kind`` is "A", "C" or "D"; ``path`` begins with a slash."""

    kind: str
    path: str


def between(lower: str | None, upper: str) -> list[Change]:
    """The changes that make tree ``lower`` (None: nothing) into tree ``upper``, sorted by path."""
    found: list[Change] = []
    _compare(lower, upper, "", found)
    return sorted(found, key=_order)


def in_directory(changes: ChangesDirectory, lowers: Sequence[str]) -> list[Change]:
    """The changes that a snapshot's directory holds, sorted by path.

    Args: lowers: what lies below, nearest first: the ``path`` of each ancestor's `ChangesDirectory`, or just the
        mounted parent. Only looked up, never walked, save below a directory that was replaced as a whole.
    """
    found: list[Change] = []
    _collect(changes.path, "", [lower for lower in lowers if os.path.isdir(lower)], found)
    return sorted(found, key=_order)


def _compare(lower: str | None, upper: str, path: str, found: list[Change]) -> None:
    old = _entries(lower) if lower is not None else {}
    new = _entries(upper)
    for name in old.keys() - new.keys():
        found.append(Change(DELETED, f"{path}/{name}"))
    for name, info in new.items():
        inner = f"{path}/{name}"
        before = old.get(name)
        is_directory = stat.S_ISDIR(info.st_mode)
        position = len(found)
        if is_directory:
            merges = before is not None and stat.S_ISDIR(before.st_mode)
            _compare(f"{lower}/{name}" if merges else None, f"{upper}/{name}", inner, found)
        if before is None:
            found.append(Change(ADDED, inner))
        elif len(found) > position or _differs(f"{lower}/{name}", before, f"{upper}/{name}", info):
            found.append(Change(CHANGED, inner))


def _collect(upper: str, path: str, lowers: list[str], found: list[Change]) -> None:
    """Args: lowers: the directories that ``path`` shows merged, from below ``upper``, nearest first."""
    for name, info in _entries(upper).items():
        inner = f"{path}/{name}"
        below, old = _look_up(lowers, name)
        if is_whiteout(info):
            if old is not None:
                found.append(Change(DELETED, inner))
            continue
        found.append(Change(ADDED if old is None else CHANGED, inner))
        if not stat.S_ISDIR(info.st_mode):
            continue
        if is_opaque(f"{upper}/{name}"):
            kept = _entries(f"{upper}/{name}").keys()
            found += [Change(DELETED, f"{inner}/{gone}") for gone in _merged_names(below) - kept]
        # Names that an opaque directory shares with what it hides are changes, not additions, as `between` sees it.
        _collect(f"{upper}/{name}", inner, below, found)


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


def _differs(old: str, before: os.stat_result, new: str, after: os.stat_result) -> bool:
    if (before.st_mode, before.st_uid, before.st_gid, before.st_rdev) != (
        after.st_mode,
        after.st_uid,
        after.st_gid,
        after.st_rdev,
    ):
        return True
    if not stat.S_ISDIR(after.st_mode) and (before.st_size != after.st_size or before.st_mtime_ns != after.st_mtime_ns):
        return True
    if stat.S_ISLNK(after.st_mode) and os.readlink(old) != os.readlink(new):
        return True
    return xattrs(old) != xattrs(new)


def xattrs(path: str) -> dict[str, bytes]:
    """The xattrs of ``path`` (not followed) that belong to the tree: all but those by which overlay keeps its books."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}  # a file system without xattrs
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in sorted(names)
        if not name.startswith(_OVERLAY_XATTRS)
    }


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


def walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every path below ``top`` relative to it, with its lstat; sorted, directories before what they hold."""
    pending: list[tuple[str, os.stat_result]] = []
    _push(top, "", pending)
    while pending:
        path, info = pending.pop()
        yield path, info
        if stat.S_ISDIR(info.st_mode):
            _push(top, path, pending)


def _push(top: str, path: str, pending: list[tuple[str, os.stat_result]]) -> None:
    entries = _entries(f"{top}/{path}" if path else top)
    prefix = f"{path}/" if path else ""
    for name in sorted(entries, key=os.fsencode, reverse=True):
        pending.append((prefix + name, entries[name]))
