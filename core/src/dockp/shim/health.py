"""Health checks: a command run in the container now and then, judged as Docker judges it.

The configuration is Docker's own document (``Test``, ``Interval``, ``Timeout``, ``StartPeriod``, ``StartInterval`` in
nanoseconds, ``Retries``; image-spec's ``Healthcheck``), with ``Shell`` for CMD-SHELL; so is the result, the record's
``health``: ``Status``, ``FailingStreak`` and ``Log``.
"""

from __future__ import annotations

import os
import time

from dockp.spi.errors import DockpError
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dockp.shim.loop import Timer
    from dockp.shim.task import Task

_SECOND = 1_000_000_000
_KEPT_RESULTS = 5
_KEPT_OUTPUT = 4096
_UNITS = ((3600 * _SECOND, "h"), (60 * _SECOND, "m"))


class _Output:
    """Keeps the beginning of what a check prints; has the face of a log feed."""

    def __init__(self) -> None:
        self.data = b""
        self.cut = False

    def feed(self, stream: str, data: bytes) -> None:
        room = _KEPT_OUTPUT - len(self.data)
        self.cut = self.cut or len(data) > room
        self.data += data[:room]

    def end(self) -> None:
        """Nothing is held back."""

    def text(self) -> str:
        return self.data.decode(errors="replace") + ("..." if self.cut else "")


class Health:
    """The checks of one container. `begin` and `end` follow its process, `suspend` and `resume` its pauses."""

    def __init__(self, task: Task, config: dict[str, Any]) -> None:
        self._task = task
        kind, *words = config["Test"]
        self._command = [*config.get("Shell", ["/bin/sh", "-c"]), *words] if kind == "CMD-SHELL" else words
        self._interval = config.get("Interval") or 30 * _SECOND
        self._timeout = config.get("Timeout") or 30 * _SECOND
        self._start_period = config.get("StartPeriod") or 0
        self._start_interval = config.get("StartInterval") or 5 * _SECOND
        self._retries = config.get("Retries") or 3
        self._timer: Timer | None = None
        self._current = ""
        self._log: list[dict[str, Any]] = []
        self._status = "starting"
        self._streak = 0
        self._publish()

    def begin(self) -> None:
        """The container's process has started."""
        self._status, self._streak = "starting", 0
        self._publish()
        self._schedule()

    def end(self) -> None:
        """It has ended; as with Docker what is not watched any more counts as unhealthy."""
        self.suspend()
        self._status = "unhealthy"
        self._publish()

    def suspend(self) -> None:
        self._current = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        self._schedule()

    def _publish(self) -> None:
        self._task.record.values["health"] = {
            "Status": self._status,
            "FailingStreak": self._streak,
            "Log": list(self._log),
        }

    def _in_start_period(self, now: int) -> bool:
        return self._status == "starting" and now - self._task.record.values["started_at"] < self._start_period

    def _schedule(self) -> None:
        early = self._in_start_period(time.time_ns())
        wait = self._start_interval if early else self._interval
        self._timer = self._task.loop.after(wait / _SECOND, self._check)

    def _check(self) -> None:
        self._timer = None
        id = self._current = os.urandom(32).hex()
        began = time.time_ns()
        self._task.tell("exec_create: " + " ".join(self._command), execID=id)
        output = _Output()
        process = {**self._task.spec["process"], "args": self._command}
        execs = self._task.execs
        try:
            entry = execs.run(id, process, None, False, None, lambda stdio: None, False, sink=output)
        except (DockpError, RuntimeFailure, OSError) as failure:
            self._judge(id, began, -1, str(failure))
            return

        def late() -> None:
            if self._current != id:
                return
            text = f"Health check exceeded timeout ({duration(self._timeout)})"
            if output.data:
                text += ": " + output.text()
            self._kill(entry.pid)
            self._judge(id, began, -1, text)

        timer = self._task.loop.after(self._timeout / _SECOND, late)

        def ended(answer: dict[str, Any]) -> None:
            timer.cancel()
            execs.forget(id)
            self._judge(id, began, answer["exit_code"], output.text())

        execs.wait(id, ended)

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, 9)  # ours to reap, so the number cannot mean another process yet
        except ProcessLookupError:
            pass

    def _judge(self, id: str, began: int, code: int, output: str) -> None:
        if self._current != id:
            return
        self._current = ""
        self._log.append({"Start": _stamp(began), "End": _stamp(time.time_ns()), "ExitCode": code, "Output": output})
        del self._log[:-_KEPT_RESULTS]
        before = self._status
        if code == 0:
            self._status, self._streak = "healthy", 0
        elif not self._in_start_period(began):
            self._streak += 1
            if self._streak >= self._retries:
                self._status = "unhealthy"
        self._publish()
        self._task.record.save()
        if self._status != before:
            self._task.announce(f"health_status: {self._status}")
        self._schedule()


def _stamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with all nine digits."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def duration(nanoseconds: int) -> str:
    """A length of time as Go prints it: "1m30s", "1.5s", "200ms"."""
    if nanoseconds < 1000:
        return f"{nanoseconds}ns"
    if nanoseconds < _SECOND:
        unit, name = (1000, "µs") if nanoseconds < 1_000_000 else (1_000_000, "ms")
        return f"{_decimal(nanoseconds, unit)}{name}"
    text = ""
    for unit, name in _UNITS:
        if nanoseconds >= unit or text:
            text += f"{nanoseconds // unit}{name}"
            nanoseconds %= unit
    return f"{text}{_decimal(nanoseconds, _SECOND)}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    fraction = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{fraction}" if fraction else str(whole)
