"""Who a process runs as: ``--user`` and ``--group-add`` against the image's own /etc/passwd and /etc/group.

The rules and words are Docker's. The files belong to the image, so they are opened confined to its root, and nothing
about them is trusted: they may be missing, huge, a device or full of nonsense.
"""

from __future__ import annotations

import os
import stat

from dockp.linux.paths import open_in_root
from dockp.spi.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LARGEST_FILE = 16 << 20
_LARGEST_ID = (1 << 31) - 1


class Identity:
    """What the process gets. ``groups`` starts with the primary one, so that no process can shed a group it is
    denied by (CVE-2022-36109)."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def resolve(root: int, user: str, extra_groups: list[str]) -> Identity:
    """Look ``user`` (``name|uid[:group|gid]``, or "" for root) up in the tree under the descriptor ``root``.

    Raises: InvalidArgument in Docker's words.
    """
    name, _, group = user.partition(":")
    uid, gid, home, known = 0, 0, "/", ""
    number = _number(name)
    for fields in _records(root, "etc/passwd", 7):
        entry_uid, entry_gid = _number(fields[2]), _number(fields[3])
        if entry_uid is None or entry_gid is None:
            continue
        wanted = fields[0] == name
        if number is not None or not name:
            wanted = entry_uid == (number or 0)
        if wanted:
            uid, gid, home, known = entry_uid, entry_gid, fields[5] or "/", fields[0]
            break
    else:
        if number is not None:
            uid = _checked(number)
        elif name:
            raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    groups: list[int] = []
    if group or known or extra_groups:
        by_name, membership = _groups(root, known)
        if group:
            gid = _group(group, by_name)
        else:
            groups = membership
        groups = groups + [_group(extra, by_name) for extra in extra_groups]
    return Identity(uid, gid, list(dict.fromkeys([gid, *groups])), home)


def _groups(root: int, user: str) -> tuple[dict[str, int], list[int]]:
    """Group numbers by name, and the numbers of the groups that list ``user``."""
    by_name: dict[str, int] = {}
    membership = []
    for fields in _records(root, "etc/group", 4):
        gid = _number(fields[2])
        if gid is None:
            continue
        by_name.setdefault(fields[0], gid)
        if user and user in fields[3].split(","):
            membership.append(gid)
    return by_name, membership


def _group(wanted: str, by_name: dict[str, int]) -> int:
    number = _number(wanted)
    if wanted in by_name:
        return by_name[wanted]
    if number is None:
        raise InvalidArgument(f"unable to find group {wanted}: no matching entries in group file")
    return _checked(number)


def _number(text: str) -> int | None:
    """Decimal digits as a number. `int` alone would also take "1_0" and other scripts' digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _checked(number: int) -> int:
    if number > _LARGEST_ID:
        raise InvalidArgument(f"uids and gids must be in range 0-{_LARGEST_ID}")
    return number


def _records(root: int, path: str, fields: int) -> list[list[str]]:
    """The lines of a colon-separated file, padded to ``fields``; nothing when it cannot be read as a file."""
    try:
        # Not blocking: the image may have put a FIFO there.
        descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return []
        pieces, size = [], 0
        while size < _LARGEST_FILE:
            piece = os.read(descriptor, 65536)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    finally:
        os.close(descriptor)
    records = []
    for line in b"".join(pieces).decode(errors="surrogateescape").split("\n"):
        line = line.strip()
        if line and not line.startswith("#"):
            parts = line.split(":")
            records.append(parts + [""] * (fields - len(parts)))
    return records


def apply(process: dict[str, object], identity: Identity, set_home: bool) -> None:
    """Write an identity into an OCI ``process`` object, keeping what else its ``user`` says (umask)."""
    user = process.get("user")
    user = dict(user) if isinstance(user, dict) else {}
    user.update(uid=identity.uid, gid=identity.gid, additionalGids=identity.groups)
    process["user"] = user
    env = process.get("env")
    env = list(env) if isinstance(env, list) else []
    if set_home and not any(entry.startswith("HOME=") for entry in env):
        env.append("HOME=" + identity.home)
    process["env"] = env


def host_owner(process: dict[str, Any], spec: dict[str, Any]) -> tuple[int, int] | None:
    """The process's uid and gid as the host sees them, through the spec's id maps; None when they have none there."""
    user = process.get("user") or {}
    linux = spec.get("linux") or {}
    ids = []
    for kind, wanted in (("uidMappings", user.get("uid", 0)), ("gidMappings", user.get("gid", 0))):
        maps = linux.get(kind)
        if maps:
            for entry in maps:
                first = entry["containerID"]
                if first <= wanted < first + entry["size"]:
                    wanted += entry["hostID"] - first
                    break
            else:
                return None
        ids.append(wanted)
    return (ids[0], ids[1])
