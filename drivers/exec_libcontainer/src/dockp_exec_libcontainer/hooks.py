"""Hooks of the OCI runtime spec: programs run at moments of a container's life, with its state on their stdin.

Source: OCI runtime-spec config.md "POSIX-platform Hooks".
"""

from __future__ import annotations

import os
import select
import time

from dockp.linux import namespaces
from dockp.linux.jsonlite import dumps
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SIGKILL = 9
_LONGEST_COMPLAINT = 1000


def state(spec: dict[str, Any], id: str, bundle: str, pid: int, status: str) -> dict[str, Any]:
    """The state document that hooks and ``state`` commands get, OCI runtime-spec runtime.md "State"."""
    return {
        "ociVersion": spec["ociVersion"],
        "id": id,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": spec.get("annotations") or {},
    }


def run(hooks: list[dict[str, Any]] | None, moment: str, document: dict[str, Any]) -> None:
    """Run the hooks of one moment in order, each to its end. Raises RuntimeFailure for the first that fails."""
    for hook in hooks or []:
        _run_one(hook, moment, document)


def _run_one(hook: dict[str, Any], moment: str, document: dict[str, Any]) -> None:
    path = hook.get("path") or ""
    if not path.startswith("/"):
        raise RuntimeFailure(f"{moment} hook {path!r}: the path is not absolute")
    arguments = hook.get("args") or [path]
    environment = dict(entry.partition("=")[::2] for entry in hook.get("env") or [])
    state_file = os.memfd_create("state", os.MFD_CLOEXEC)
    complaint = os.memfd_create("complaint", os.MFD_CLOEXEC)
    try:
        os.write(state_file, dumps(document).encode())
        os.lseek(state_file, 0, os.SEEK_SET)
        redirect = [
            (os.POSIX_SPAWN_DUP2, state_file, 0),
            (os.POSIX_SPAWN_DUP2, complaint, 1),
            (os.POSIX_SPAWN_DUP2, complaint, 2),
        ]
        try:
            pid = os.posix_spawn(path, arguments, environment, file_actions=redirect, setsigmask=())
        except OSError as failure:
            raise RuntimeFailure(f"{moment} hook {path}: {failure.strerror}") from failure
        code = _wait(pid, hook.get("timeout"), f"{moment} hook {path}")
        if code:
            size = os.fstat(complaint).st_size
            said = os.pread(complaint, _LONGEST_COMPLAINT, max(0, size - _LONGEST_COMPLAINT))
            text = said.decode(errors="replace").strip()
            raise RuntimeFailure(f"{moment} hook {path} failed with status {code}" + (f": {text}" if text else ""))
    finally:
        os.close(state_file)
        os.close(complaint)


def _wait(pid: int, timeout: float | None, subject: str) -> int:
    pidfd = namespaces.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not poll.poll(None if deadline is None else max(0, (deadline - time.monotonic()) * 1000)):
            if deadline is not None and time.monotonic() >= deadline:
                namespaces.pidfd_signal(pidfd, _SIGKILL)
                os.waitpid(pid, 0)
                raise RuntimeFailure(f"{subject} did not end within {timeout} s")
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
