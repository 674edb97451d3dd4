"""Processes executed in a running container besides its own."""

from __future__ import annotations

from dockp.shim.record import start_time
from dockp.shim.streams import Stdio, give
from dockp.spi.errors import AlreadyExists, FailedPrecondition, NotFound
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dockp.shim.task import Task

REMEMBERED = 1000
"""Finished execs whose exit code is kept; the oldest is forgotten first."""
GRACE = 0.2
"""Seconds that output goes on for after an exec's process ended while a child of it still holds the output open."""


class Exec:
    """One executed process: ``exit_code`` is None while it runs, or while its output is not complete."""

    __slots__ = ("exit_code", "id", "pid", "start_time", "stdio", "waiters")

    def __init__(self, id: str, stdio: Stdio | None) -> None:
        self.id = id
        self.pid = 0
        self.start_time = 0
        self.stdio = stdio
        self.exit_code: int | None = None
        self.waiters: list[Callable[[], None]] = []


class Execs:
    """Every exec of one container."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._running: dict[str, Exec] = {}
        self._finished: dict[str, tuple[int, int]] = {}

    def run(
        self,
        id: str,
        process: dict[str, Any],
        user: dict[str, Any] | None,
        terminal: bool,
        console_size: list[int] | None,
        attach: Callable[[Stdio], None],
        open_stdin: bool,
        set_home: bool = True,
        sink: Any = None,
    ) -> Exec:
        """Start a process. ``attach`` may add a client before the first byte; ``sink`` takes output as a
        `dockp.shim.streams.LogFeed` does.

        Raises: RuntimeFailure, DockpError, OSError; then nothing is left of it.
        """
        task = self._task
        task.require_running()
        if id in self._running or id in self._finished:
            raise AlreadyExists(f"exec {id} exists already")
        if task.record.values["status"] == "paused":
            raise FailedPrecondition(f"container {task.config['id']} is paused, unpause the container before exec")
        owner = task.identify(process, user, set_home) if user is not None else None
        process["terminal"] = terminal
        process.setdefault("oomScoreAdj", task.spec["process"].get("oomScoreAdj", 0))
        stdio = Stdio(task.loop, terminal, open_stdin, True, sink)
        if console_size:
            stdio.resize(*console_size)
        entry = Exec(id, stdio)
        try:
            inner = stdio.open(task.open_ptmx() if terminal else None)
            give(inner, owner, open_stdin)
            entry.pid = task.runtime.exec(process, inner)
            stdio.close_inner()
            entry.start_time = start_time(entry.pid)
            attach(stdio)
        except BaseException as failure:
            if entry.pid:
                task.loop.child(entry.pid, lambda code: None)
            stdio.close()
            if isinstance(failure, OSError):
                raise RuntimeFailure(str(failure)) from failure
            raise
        self._running[id] = entry
        task.tell("exec_start: " + " ".join(process["args"]), execID=id)
        task.loop.child(entry.pid, lambda code: stdio.finish(lambda: self._done(entry, code), GRACE))
        return entry

    def _done(self, entry: Exec, code: int) -> None:
        entry.exit_code = code
        entry.stdio = None
        self._task.tell("exec_die", execID=entry.id, exitCode=str(code))
        self._running.pop(entry.id, None)
        self._finished[entry.id] = (code, entry.pid)
        while len(self._finished) > REMEMBERED:
            del self._finished[next(iter(self._finished))]
        waiters, entry.waiters = entry.waiters, []
        for waiter in waiters:
            waiter()

    def find(self, id: str) -> Exec:
        """A running exec. Raises NotFound."""
        entry = self._running.get(id)
        if entry is None:
            raise NotFound(f"No such exec instance: {id}")
        return entry

    def running(self) -> list[str]:
        return list(self._running)

    def inspect(self, id: str) -> dict[str, Any]:
        """``{"running", "pid", "exit_code"}``, the last None while it runs. Raises NotFound."""
        if id in self._running:
            return {"running": True, "pid": self._running[id].pid, "exit_code": None}
        if id in self._finished:
            code, pid = self._finished[id]
            return {"running": False, "pid": pid, "exit_code": code}
        raise NotFound(f"No such exec instance: {id}")

    def wait(self, id: str, ended: Callable[[dict[str, Any]], None]) -> None:
        """Call ``ended`` with the exec's inspection when it has finished, which may be now. Raises NotFound."""
        if id in self._finished:
            ended(self.inspect(id))
        else:
            self.find(id).waiters.append(lambda: ended(self.inspect(id)))

    def resize(self, id: str, rows: int, columns: int) -> None:
        stdio = self.find(id).stdio
        if stdio is not None:
            stdio.resize(rows, columns)

    def forget(self, id: str) -> None:
        """Drop what is remembered of a finished exec."""
        self._finished.pop(id, None)
