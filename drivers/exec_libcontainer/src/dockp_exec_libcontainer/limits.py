"""Limits of a process that its parent sets from outside: rlimits and the OOM score.

Both can need CAP_SYS_RESOURCE, which containers and virtual machines often lack: what can be given is given, and what
cannot is told.
"""

from __future__ import annotations

import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def set_rlimits(pid: int, process: dict[str, Any]) -> list[str]:
    """Set ``process.rlimits`` on ``pid``; returns a warning for each one cut down."""
    notes: list[str] = []
    for entry in process.get("rlimits") or []:
        _rlimit(pid, entry, notes)
    return notes


def set_oom_score(pid: str, process: dict[str, Any]) -> list[str]:
    """Set ``process.oomScoreAdj`` on ``pid``, or "self"; returns a warning when it is not what was asked for."""
    notes: list[str] = []
    if process.get("oomScoreAdj") is not None:
        _oom_score(pid, int(process["oomScoreAdj"]), notes)
    return notes


def _rlimit(pid: int, entry: dict[str, Any], notes: list[str]) -> None:
    name = entry["type"]
    which = getattr(resource, name, None)
    if which is None:
        notes.append(f"{name} is not a resource limit of this system")
        return
    soft, hard = _known(entry["soft"]), _known(entry["hard"])
    try:
        resource.prlimit(pid, which, (soft, hard))
        return
    except (PermissionError, ValueError) as failure:
        if isinstance(failure, ValueError) and _above(soft, hard):
            notes.append(f"{name} is not set: its soft limit {soft} is above its hard limit {hard}")
            return
    try:
        _, top = resource.prlimit(pid, which)
        if _above(hard, top):
            hard = top
        if _above(soft, hard):
            soft = hard
        resource.prlimit(pid, which, (soft, hard))
    except (PermissionError, ValueError) as failure:
        notes.append(f"{name} is not set: {failure}")
        return
    notes.append(f"{name} is limited to {soft}:{hard}: raising it needs CAP_SYS_RESOURCE, which this host lacks")


def _known(value: int) -> int:
    # The spec's numbers are unsigned 64 bit, with infinity as the largest; Python's infinity is -1.
    return resource.RLIM_INFINITY if value < 0 or value >= (1 << 63) - 1 else value


def _above(one: int, other: int) -> bool:
    if other == resource.RLIM_INFINITY:
        return False
    return one == resource.RLIM_INFINITY or one > other


def _oom_score(pid: str, score: int, notes: list[str]) -> None:
    path = f"/proc/{pid}/oom_score_adj"
    try:
        _write(path, score)
        return
    except PermissionError:
        pass
    except OSError as failure:
        notes.append(f"oomScoreAdj {score} is not set: {failure.strerror}")
        return
    # Lowering below what a privileged process last set is refused: stay as near as the kernel lets us.
    with open(path, encoding="ascii") as file:
        current = int(file.read())
    low, high = score, current
    while low < high:
        middle = (low + high) // 2
        try:
            _write(path, middle)
            high = middle
        except PermissionError:
            low = middle + 1
    notes.append(f"oomScoreAdj is {high} instead of {score}: lowering it needs CAP_SYS_RESOURCE, which this host lacks")


def _write(path: str, score: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)
