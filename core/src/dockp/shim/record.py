"""The state record of a container's process, kept in ``state.json`` for everybody who cannot ask the shim."""

from __future__ import annotations

import os
import time

from dockp.shim import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc_pid_stat(5), field 22): with the pid it names a
    process for ever. 0 when there is none."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(descriptor, 4096)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    # The command, field 2, is in parentheses and may itself contain spaces and parentheses.
    return int(text[text.rindex(b")") + 2 :].split()[19])


class Record:
    """The record in memory; `save` writes it. Times are nanoseconds since the epoch, 0 for "not yet"."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.values: dict[str, Any] = {
            "status": "created",
            "pid": 0,
            "pid_start_time": 0,
            "shim_pid": os.getpid(),
            "started_at": 0,
            "finished_at": 0,
            "exit_code": 0,
            "oom_killed": False,
            "error": "",
            "restart_count": 0,
            "stopped": False,  # by hand: a policy "unless-stopped" does not start it after a boot
            "health": None,
        }

    def save(self, **changes: Any) -> None:
        """Change values and write them all. A full disk loses the file, never the container."""
        self.values.update(changes)
        try:
            wire.write_file(self._path, self.values)
        except OSError:
            pass

    def began(self) -> None:
        self.save(status="running", started_at=time.time_ns(), finished_at=0, exit_code=0, oom_killed=False, error="")

    def ended(self, status: str, exit_code: int, oom_killed: bool = False, error: str = "") -> None:
        self.save(
            status=status,
            pid=0,
            pid_start_time=0,
            finished_at=time.time_ns(),
            exit_code=exit_code,
            oom_killed=oom_killed,
            error=error,
        )
