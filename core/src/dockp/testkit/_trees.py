"""Directory trees for tests: make them by lists of edits, and tell all about them so that they can be compared.

An edit is applied to a snapshot and to a flat directory alike, and both must then have the same manifest. Edits name
what they work on by number: ``pick % len(candidates)``. So any list of edits fits any tree, which lets hypothesis draw
and shrink them freely, and equal trees are edited equally.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

_TIME = 1_600_000_000_000_000_000
_NAMES = ("a", "b", "c.d", "ünï", "x" * 64, os.fsdecode(b"\xff\xfe"), "with space", "-")
_MODES = (0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0o000)
_OWNERS = ((0, 0), (1000, 1000), (0, 65534), (2**31, 7))
_SIZES = (0, 1, 511, 512, 513, 70_000)


class Edit(NamedTuple):
    """One change: what to do, and three numbers that say to whom and how."""

    verb: str
    pick: int
    where: int
    value: int


class Node(NamedTuple):
    """All that is compared of one path. ``links``: every name of the same file, when it has several."""

    kind: str
    mode: int
    owner: tuple[int, int]
    content: str
    device: int
    mtime_ns: int | None
    xattrs: tuple[tuple[str, bytes], ...]
    links: tuple[str, ...]


def manifest(top: str, directory_times: bool = False) -> dict[str, Node]:
    """Everything below ``top`` by relative path; the top itself is ``"."`` and has no time.

    Args: directory_times: compare those too. They change with every edit, so only where no edit came after.
    """
    found: dict[str, os.stat_result] = {".": os.lstat(top)}
    pending = [""]
    while pending:
        path = pending.pop()
        with os.scandir(os.path.join(top, path)) as entries:
            for entry in entries:
                inner = os.path.join(path, entry.name)
                found[inner] = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found[inner].st_mode):
                    pending.append(inner)
    names: dict[tuple[int, int], list[str]] = {}
    for path, info in sorted(found.items()):
        if not stat.S_ISDIR(info.st_mode):
            names.setdefault((info.st_dev, info.st_ino), []).append(path)
    result = {}
    for path, info in sorted(found.items()):
        is_directory = stat.S_ISDIR(info.st_mode)
        group = names.get((info.st_dev, info.st_ino), []) if not is_directory else []
        timed = path != "." and (directory_times or not is_directory)
        result[path] = _node(os.path.join(top, path), info, tuple(group) if len(group) > 1 else (), timed)
    return result


def _node(full: str, info: os.stat_result, links: tuple[str, ...], timed: bool) -> Node:
    content = ""
    if stat.S_ISREG(info.st_mode):
        with open(full, "rb") as file:
            content = f"{info.st_size}:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    elif stat.S_ISLNK(info.st_mode):
        content = os.readlink(full)
    return Node(
        kind=stat.filemode(info.st_mode)[0],
        mode=stat.S_IMODE(info.st_mode),
        owner=(info.st_uid, info.st_gid),
        content=content,
        device=info.st_rdev,
        mtime_ns=info.st_mtime_ns if timed else None,
        xattrs=tuple(
            (name, os.getxattr(full, name, follow_symlinks=False))
            for name in sorted(os.listxattr(full, follow_symlinks=False))
            if not name.startswith("trusted.overlay.")
        ),
        links=links,
    )


def difference(expected: dict[str, Node], actual: dict[str, Node]) -> list[str]:
    """One line for each path in which two manifests differ."""
    lines = []
    for path in sorted(expected.keys() | actual.keys()):
        wanted, found = expected.get(path), actual.get(path)
        if wanted == found:
            continue
        if wanted is None:
            lines.append(f"{path!r} is there, and should not be: {found}")
        elif found is None:
            lines.append(f"{path!r} is missing: {wanted}")
        else:
            parts = [
                f"{name} is {have!r}, should be {want!r}"
                for name, want, have in zip(Node._fields, wanted, found, strict=True)
                if want != have
            ]
            lines.append(f"{path!r}: {'; '.join(parts)}")
    return lines


def edit_tree(top: str, edits: Iterable[Edit], step: int = 0) -> None:
    """Apply ``edits`` in order. Args: step: distinct in each call on one tree, so that times differ."""
    for number, edit in enumerate(edits):
        _VERBS[edit.verb](top, edit, _TIME + (step * 10_000 + number) * 1_000_000_007)


def _paths(top: str) -> list[tuple[str, os.stat_result]]:
    """Every relative path below ``top`` with its stat, sorted."""
    found = []
    pending = [""]
    while pending:
        path = pending.pop()
        with os.scandir(os.path.join(top, path)) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                inner = os.path.join(path, entry.name)
                found.append((inner, info))
                if stat.S_ISDIR(info.st_mode):
                    pending.append(inner)
    return sorted(found)


def _pick(top: str, edit: Edit, wanted: Callable[[os.stat_result], bool], linked: bool = False) -> str | None:
    """The ``edit.pick``-th path whose stat is wanted.

    Args: linked: also files with several names. What happens when a lower one is changed is a check of its own.
    """
    every = _paths(top)
    # Counted here, since overlay shows the lower file's number of links even where a name was deleted above.
    names = Counter((info.st_dev, info.st_ino) for _, info in every)
    candidates = [path for path, info in every if wanted(info) and (linked or names[info.st_dev, info.st_ino] == 1)]
    return os.path.join(top, candidates[edit.pick % len(candidates)]) if candidates else None


def _free_place(top: str, edit: Edit) -> str | None:
    """A path at which nothing is, in a directory chosen by ``edit.where``, or None when the name is taken."""
    directories = ["", *(path for path, info in _paths(top) if stat.S_ISDIR(info.st_mode))]
    place = os.path.join(top, directories[edit.where % len(directories)], _NAMES[edit.pick % len(_NAMES)])
    return None if os.path.lexists(place) else place


def _is_plain(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode)


def _is_no_link(info: os.stat_result) -> bool:
    return not stat.S_ISLNK(info.st_mode)


def _is_anything(info: os.stat_result) -> bool:
    return True


def _content(value: int) -> bytes:
    return (b"%d\n" % value) * (_SIZES[value % len(_SIZES)] // 2 + 1)


def _stamp(path: str, time: int) -> None:
    os.utime(path, ns=(time, time), follow_symlinks=False)


def _make_file(top: str, edit: Edit, time: int) -> None:
    place = _free_place(top, edit)
    if place is not None:
        with open(place, "xb") as file:
            file.write(_content(edit.value))
        os.chmod(place, _MODES[edit.value % len(_MODES)])
        _stamp(place, time)


def _make_directory(top: str, edit: Edit, time: int) -> None:
    place = _free_place(top, edit)
    if place is not None:
        os.mkdir(place)
        os.chmod(place, 0o755)


def _make_symlink(top: str, edit: Edit, time: int) -> None:
    place = _free_place(top, edit)
    if place is not None:
        os.symlink(("a", "/etc/passwd", "../../b", "gone")[edit.value % 4], place)
        _stamp(place, time)


def _make_fifo(top: str, edit: Edit, time: int) -> None:
    place = _free_place(top, edit)
    if place is not None:
        os.mkfifo(place)
        os.chmod(place, 0o640)
        _stamp(place, time)


def _make_device(top: str, edit: Edit, time: int) -> None:
    place = _free_place(top, edit)
    if place is not None:
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 1 + edit.value % 9))
        os.chmod(place, 0o666)
        _stamp(place, time)


def _link(top: str, edit: Edit, time: int) -> None:
    place, target = _free_place(top, edit), _pick(top, edit, _is_plain)
    if place is not None and target is not None:
        os.link(target, place)
        _stamp(target, time)


def _write(top: str, edit: Edit, time: int) -> None:
    path = _pick(top, edit, _is_plain)
    if path is not None:
        with open(path, "r+b") as file:
            file.seek(edit.value % 100)
            file.write(_content(edit.value))
        _stamp(path, time)


def _truncate(top: str, edit: Edit, time: int) -> None:
    path = _pick(top, edit, _is_plain)
    if path is not None:
        os.truncate(path, edit.value % 1000)
        _stamp(path, time)


def _change_mode(top: str, edit: Edit, time: int) -> None:
    path = _pick(top, edit, _is_no_link)
    if path is not None:
        os.chmod(path, _MODES[edit.value % len(_MODES)])


def _change_owner(top: str, edit: Edit, time: int) -> None:
    path = _pick(top, edit, _is_anything)
    if path is not None:
        os.chown(path, *_OWNERS[edit.value % len(_OWNERS)], follow_symlinks=False)


def _change_xattr(top: str, edit: Edit, time: int) -> None:
    path = _pick(top, edit, _is_no_link)
    if path is not None:
        name = f"trusted.dockp.{edit.where % 3}"
        if name in os.listxattr(path):
            os.removexattr(path, name)
        else:
            os.setxattr(path, name, b"\x00\xff=\n%d" % edit.value)


def _remove(top: str, edit: Edit, time: int) -> None:
    path = _pick(top, edit, _is_anything, linked=True)
    if path is not None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _replace(top: str, edit: Edit, time: int) -> None:
    """Remove something and put something of another kind, or an empty directory, into its place."""
    path = _pick(top, edit, _is_anything, linked=True)
    if path is None:
        return
    _remove(top, edit, time)
    if edit.value % 2:
        os.mkdir(path)
        os.chmod(path, 0o711)
    else:
        with open(path, "xb") as file:
            file.write(b"instead")
        os.chmod(path, 0o640)
        _stamp(path, time)


def _rename(top: str, edit: Edit, time: int) -> None:
    place, path = _free_place(top, edit), _pick(top, edit, _is_plain)
    if place is not None and path is not None:
        os.rename(path, place)


_VERBS: dict[str, Callable[[str, Edit, int], None]] = {
    "make file": _make_file,
    "make directory": _make_directory,
    "make symlink": _make_symlink,
    "make fifo": _make_fifo,
    "make device": _make_device,
    "link": _link,
    "write": _write,
    "truncate": _truncate,
    "change mode": _change_mode,
    "change owner": _change_owner,
    "change xattr": _change_xattr,
    "remove": _remove,
    "replace": _replace,
    "rename": _rename,
}
VERBS = tuple(_VERBS)
MAKING = ("make file", "make directory", "make symlink", "make fifo", "make device", "link")
