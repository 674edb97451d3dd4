"""What is known of a container's process, from its shim or from the record it left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from dockp.linux.jsonlite import loads
from dockp.spi.errors import SystemFault


@frozen(kw_only=True)
class TaskState:
    """The state of one container's process.

    Attributes:
        status: "created", "running", "paused", "restarting" or "exited".
        pid: of the init process on the host, 0 when there is none; ``pid_start_time`` (clock ticks since boot) tells
            it from a later process of the same number.
        started_at, finished_at: nanoseconds since the epoch, 0 when it has not happened.
        exit_code: 0-255, meaningful once something has ended; 128 + n for a death by signal n.
        error: why it could not be started, or "".
        lost: True when the shim died without recording an end; the other fields are then the best guess.
        stopped: somebody asked for its end, by stop or by a signal that is meant to end it.
        health: Docker's ``State.Health`` document, or None without a health check.
    """

    status: str
    pid: int = 0
    pid_start_time: int = 0
    shim_pid: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restart_count: int = 0
    stopped: bool = False
    health: Mapping[str, Any] | None = None
    lost: bool = False

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TaskState:
        """From the shim's record; what a newer shim adds is left out."""
        return cls(**{name: document[name] for name in _FIELDS if name in document})

    @property
    def running(self) -> bool:
        """Whether there is a started process, paused or not."""
        return self.status in ("running", "paused")


_FIELDS = tuple(TaskState.__annotations__)


def read_state(directory: Path) -> TaskState | None:
    """The record in a container's run folder; None without one. Raises SystemFault when it makes no sense."""
    try:
        with open(f"{directory}/state.json", "rb", buffering=0) as file:
            return TaskState.from_json(loads(file.readall()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as failure:
        raise SystemFault(f"the state record {directory / 'state.json'} is damaged: {failure}") from failure
