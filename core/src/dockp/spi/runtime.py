"""The execution contract, the shim's half.

The shim is one small, single-threaded process a container. It imports the class that `ExecDriver.runtime` names and
drives it as below. This module therefore imports nothing; it describes, and gives the one error class.

Order of calls::

    runtime = Runtime(id, bundle, options)         # cheap
    pid = runtime.create(stdio, netns)             # everything up to, but not including, execve of the command
    runtime.start()                                # execve; returns when it has happened
    pid = runtime.exec(process, stdio)             # any number, also at the same time
    runtime.signal(...) pause() resume() update() stats() processes()
    runtime.remove()                               # after the init process was reaped; kills what is left

Children: every pid that `create` and `exec` return is, or becomes by way of the sub-reaper, a child of the shim. The
shim reaps all of them (``waitpid``); a runtime never waits for the ones it returned.

Descriptors: ``stdio`` is three descriptors (stdin, stdout, stderr) that become 0, 1, 2 of the process. With a terminal
they are the same pty replica; the runtime then makes it the controlling terminal (``setsid``, ``TIOCSCTTY``). The
shim owns and closes its own copies. Every other descriptor of the shim must be closed in the process.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    # Importing typing would cost every shim about a megabyte.
    Protocol = object


class RuntimeFailure(Exception):
    """What `create`, `start` and `exec` raise.

    Attributes:
        kind: ``"not-found"`` (the command does not exist: exit code 127), ``"not-executable"`` (permission, format,
            a directory: 126), or ``"failed"`` (anything else: 125 from ``run``, 126 from ``exec``).
    """

    def __init__(self, message: str, kind: str = "failed") -> None:
        super().__init__(message)
        self.kind = kind


class Runtime(Protocol):
    """One container. ``spec`` documents are OCI runtime-spec 1.x, read from ``<bundle>/config.json``."""

    def __init__(self, id: str, bundle: str, options: dict[str, str]) -> None: ...

    def create(self, stdio: tuple[int, int, int], netns: int | None) -> int:
        """Build the container up to the point before ``execve`` and return the pid of its init, seen from the host.

        The rootfs of the bundle is mounted already. ``netns`` is a network namespace to use instead of what the spec
        says, or None. Raises RuntimeFailure, having undone everything.
        """

    def start(self) -> None:
        """Let init execute its command; return when ``execve`` succeeded. Raises RuntimeFailure (init then dies)."""

    def exec(self, process: dict[str, Any], stdio: tuple[int, int, int]) -> int:
        """Run one more process in the container; ``process`` is the OCI ``process`` object. Raises RuntimeFailure."""

    def signal(self, signum: int, all: bool = False) -> None:
        """Signal init, or every process. A process that is gone already is success."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def update(self, resources: dict[str, Any]) -> list[str]:
        """Apply an OCI ``linux.resources`` object; return a warning for each part the host cannot do."""

    def stats(self) -> dict[str, Any]:
        """Raw counters, all integers in the kernel's base units (bytes, nanoseconds): ``cpu_ns``, ``cpu_user_ns``,
        ``cpu_system_ns``, ``cpu_per_cpu_ns`` (list), ``throttled_periods``, ``throttled_ns``, ``periods``,
        ``memory``, ``memory_limit``, ``memory_max``, ``memory_stat`` (dict), ``oom_kills``, ``pids``,
        ``pids_limit``, ``io`` (list of ``{major, minor, op, bytes, ios}``). What the host cannot count is absent."""

    def processes(self) -> list[int]:
        """Host pids of every process in the container."""

    def warnings(self) -> list[str]:
        """What the spec asked for and the host could not give, after `create`: one line each."""

    def oom_killed(self) -> bool:
        """True when the kernel killed a process of this container for lack of memory."""

    def remove(self) -> None:
        """Kill what is left, remove cgroups. Idempotent."""


class Transferable(Runtime, Protocol):
    """A runtime whose container another process than the shim may make. Optional: a runtime without ``handover`` is
    driven in the shim alone. See `dockp.shim.maker` for what it spares.

    Calls in the making process: the constructor with ``"siblings": "yes"`` among the options, `create`, `handover`,
    `start`. That process is a child of the shim and ends after `start`, or when `create` or `start` failed; what they
    make must be children of the shim all the same (clone(2), CLONE_PARENT), and must die with the shim, not with it.

    Calls in the shim: the constructor without that option, `adopt` after the other's `create`, and then whatever
    `Runtime` has but `create` and `start`. After a making process that died in the middle: ``adopt(0, {})`` and
    `remove`, which removes what can be found by the container's spec.
    """

    def handover(self) -> dict[str, Any]:
        """After `create`: what `adopt` needs, as a JSON object; small, since the shim keeps it."""

    def adopt(self, pid: int, handover: dict[str, Any]) -> None:
        """Go on with the container whose init is ``pid`` and which another process created. Raises RuntimeFailure."""
