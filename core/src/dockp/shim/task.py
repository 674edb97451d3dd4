"""The container's process: made, started, stopped, restarted, and its end written down.

::

    prepare ──► create ──► start ──► running ◄──► paused
                  │          │          │
                  ▼          ▼          ▼   restart due
               exited     exited     ended ────────────► restarting ──► create, start
                                        │                    │ stop
                                        └──► exited ◄────────┘
"""

from __future__ import annotations

import os
import time

from dockp.linux.paths import open_in_root
from dockp.shim import eventlog, maker, rootfs, users, wire
from dockp.shim.execs import Execs
from dockp.shim.maker import load_class
from dockp.shim.record import Record, start_time
from dockp.shim.streams import LogFeed, Stdio
from dockp.spi.errors import DockpError, FailedPrecondition, InvalidArgument, NotModified
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dockp.shim.health import Health
    from dockp.shim.loop import Loop, Timer
    from dockp.shim.maker import Ahead, Maker, MakerApart

SIGKILL = 9
EXIT_CODES = {"not-found": 127, "not-executable": 126}
OTHER_FAILURE = 128
"""What Docker records for a container that failed to start for any other reason."""

FIRST_DELAY, LONGEST_DELAY, STEADY = 0.1, 60.0, 10.0
"""Docker's back-off between restarts in seconds; after running for STEADY it begins anew."""

_DYING = 2.0
"""Seconds that a process which was killed may take to go before its end is recorded all the same."""

_MEANT_TO_END = frozenset((2, 3, 15, SIGKILL))
"""Signals after which a container is not restarted: whoever sends INT, QUIT, TERM or KILL wants it to end."""


class Task:
    """One container, over all its restarts.

    Args:
        announce: called with an action ("create", "start", "die", "restart", "oom", "pause", "unpause",
            "health_status: …") after the record was saved. All but "create" and "restart" are Docker's events.
        over: called once, when the container has exited and will not be restarted.
        report: writes the exception being handled to the shim's own log.
        ahead: a maker that was forked already.
    """

    def __init__(
        self,
        loop: Loop,
        directory: str,
        config: dict[str, Any],
        announce: Callable[[str], None],
        over: Callable[[], None],
        report: Callable[[], None],
        ahead: Ahead | None = None,
    ) -> None:
        # First of all, since it prepares the container while the rest of the shim is made.
        self._maker: Maker | MakerApart | None = maker.begin(config, report, ahead=ahead)
        self.loop = loop
        self.config = config
        self.announce = announce
        self.over = over
        self.record = Record(directory + "/state.json")
        self.restart = config["restart"]
        self._events: dict[str, Any] | None = config.get("events")
        self.ended = False
        self.created = False
        self.started = False
        self.manually_stopped = False
        self.netns: int | None = None
        self.runtime: Any = None
        self._spec: dict[str, Any] | None = None
        self._report = report
        self.waiters: list[Callable[[], None]] = []
        self._log: LogFeed | None = None
        self.stdio = Stdio(loop, config["terminal"], config["open_stdin"], config["stdin_once"], None)
        if config["console_size"]:
            self.stdio.resize(*config["console_size"])
        self.execs = Execs(self)
        self.health: Health | None = None
        if config["health"] and config["health"].get("Test", ["NONE"])[:1] not in ([], ["NONE"]):
            from dockp.shim.health import Health

            self.health = Health(self, config["health"])
        self._delay = 0.0
        self._began = 0.0
        self._back_off: Timer | None = None
        self._deadline: Timer | None = None
        self._ptmx = ""

    def _open_log(self) -> LogFeed | None:
        log = self.config["log"]
        if not log:
            return None
        return LogFeed(load_class(log["class"])(log["path"], log["options"], log["info"]))

    # --- before the start

    def prepare(self) -> None:
        """Log, and everything of the container that needs no network yet (`dockp.shim.maker`).

        Raises: DockpError, OSError, RuntimeFailure.
        """
        self._log = self.stdio.log = self._open_log()
        assert self._maker is not None
        self._ptmx = self._maker.prepare()

    @property
    def spec(self) -> dict[str, Any]:
        """The container's OCI spec, as it was made; read when it is first needed, since it is large."""
        if self._spec is None:
            self._spec = wire.read_file(self.config["bundle"] + "/config.json")
        return self._spec

    def create(self, netns: int | None) -> dict[str, Any]:
        """Build the container; the shim keeps ``netns`` for restarts. Raises RuntimeFailure."""
        if self.created:
            raise FailedPrecondition("the container is created already")
        self.created = True
        self.netns = netns
        try:
            pid = self._build()
        except RuntimeFailure as failure:
            self._failed(failure)
            raise
        self.record.save(status="created", pid=pid, pid_start_time=start_time(pid))
        self.announce("create")
        return {"pid": pid, "warnings": self.runtime.warnings()}

    def _build(self) -> int:
        try:
            if self._maker is None:  # not the first time
                self._maker = maker.begin(self.config, self._report, "resume")
                self._maker.resume()
            ptmx = os.open(self._ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC) if self._ptmx else None
            stdio = self.stdio.open(ptmx)
            self.runtime, pid = self._maker.create(stdio, self.netns)
        except (OSError, DockpError) as failure:
            raise RuntimeFailure(str(failure)) from failure
        finally:
            self.stdio.close_inner()
        self.loop.child(pid, self._exited)
        self.record.values["pid"] = pid
        return pid

    def start(self) -> dict[str, Any]:
        """Let the command run. Raises RuntimeFailure, FailedPrecondition."""
        if not self.created or self.ended:
            raise FailedPrecondition("the container is not created")
        if self.started:
            raise NotModified("the container is started already")
        try:
            self._launch()
        except RuntimeFailure as failure:
            self._failed(failure)
            raise
        return {"pid": self.record.values["pid"], "started_at": self.record.values["started_at"]}

    def _launch(self) -> None:
        assert self._maker is not None
        try:
            self._maker.start()
        except DockpError as failure:
            raise RuntimeFailure(str(failure)) from failure
        self._end_maker()
        self.started = True
        self._began = time.monotonic()
        self.record.began()
        if self.health is not None:
            self.health.begin()
        self.announce("start")

    def _failed(self, failure: RuntimeFailure) -> None:
        """Creating or starting went wrong: what was made goes, and the record says why."""
        code = EXIT_CODES.get(failure.kind, OTHER_FAILURE)
        self._remove()
        if self.record.values["pid"]:
            self.loop.collect(self.record.values["pid"], _DYING)
        self.stdio.finish(lambda: self._finished(code, error=str(failure)))

    def abandon(self) -> None:
        """Whoever was to start the container is gone: undo."""
        if self.created and self.runtime is not None and self.record.values["pid"]:
            self.manually_stopped = True
            self._failed(RuntimeFailure("the container was never started"))
        elif not self.ended:
            self.refuse("the container was never created")

    def refuse(self, reason: str) -> None:
        """The container cannot be made at all (`prepare` failed): end with that on record."""
        self.created = True
        self._remove()
        self._finished(OTHER_FAILURE, error=reason)

    # --- the end

    def _exited(self, code: int) -> None:
        if not self.started:  # killed between create and start
            self._remove()
            self.stdio.finish(lambda: self._finished(code))
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        oom = bool(self.runtime.oom_killed())
        if self.health is not None:
            self.health.end()
        # Whatever is left of the container holds its output open; it has to go before the output can end.
        self._remove()
        self.stdio.finish(lambda: self._finished(code, oom))

    def _end_maker(self) -> None:
        made, self._maker = self._maker, None
        if made is not None:
            made.close()

    def _remove(self) -> None:
        self._end_maker()
        if self.runtime is None:
            return
        try:
            self.runtime.remove()
        except (OSError, RuntimeFailure):
            pass  # what is left is listed by the driver's inventory; the exit record must not wait for it

    def _finished(self, code: int, oom: bool = False, error: str = "") -> None:
        ran = time.monotonic() - self._began
        began, self.started = self.started, False
        due = began and not error and self._restart_due(code)
        self.record.ended("restarting" if due else "exited", code, oom, error)
        if oom:
            self.announce("oom")
        if began:
            self.tell("die", exitCode=str(code), execDuration=str(int(ran)))
        self.announce("die")
        if due:
            self._delay = FIRST_DELAY if ran >= STEADY or not self._delay else min(self._delay * 2, LONGEST_DELAY)
            self._back_off = self.loop.after(self._delay, self._restart)
        else:
            self._end()
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        """Last of all: who waited may start the container again at once, and needs its ports for that."""
        for waiter in self.waiters[:]:
            waiter()

    def _end(self) -> None:
        self.ended = True
        if self.netns is not None:
            os.close(self.netns)
            self.netns = None
        if self._log is not None:
            self._log.close()
        # Once all who wait know: what the container wrote goes to the disk first, which takes its time.
        self.loop.after(0, lambda: rootfs.dismantle(self.config["bundle"]))
        self.over()

    def _restart_due(self, code: int) -> bool:
        name = self.restart["name"]
        if self.manually_stopped or name in ("", "no"):
            return False
        if name == "on-failure":
            most = self.restart["max"]
            return code != 0 and (most == 0 or self.record.values["restart_count"] < most)
        return True

    def _restart(self) -> None:
        self._back_off = None
        self.record.values["restart_count"] += 1
        try:
            pid = self._build()
            self.record.values.update(pid=pid, pid_start_time=start_time(pid))
            self._launch()
        except RuntimeFailure as failure:
            self._failed(failure)
            return
        self.announce("restart")

    # --- while it lives

    def tell(self, action: str, **attributes: str) -> None:
        """Write one of Docker's events of this container to the event log."""
        if self._events:
            told = {**self._events["attributes"], **attributes}
            eventlog.append(self._events["path"], "container", action, self.config["id"], told)

    def rename(self, name: str) -> None:
        """Tell of the container by another name from now on."""
        if self._events:
            self._events["attributes"]["name"] = name

    @property
    def running(self) -> bool:
        """Whether there is a started process, paused or not."""
        return self.started

    def require_running(self) -> None:
        if not self.started:
            raise FailedPrecondition(f"container {self.config['id']} is not running")

    def kill(self, signum: int, everyone: bool = False) -> None:
        """Send a signal. Raises FailedPrecondition when nothing runs."""
        if signum in _MEANT_TO_END or signum == self.config["stop_signal"]:
            self._stopped_by_hand()
            if self._back_off is not None:
                self._give_up_restarting()
                return
        if not self.created or self.ended or self.runtime is None:
            raise FailedPrecondition(f"container {self.config['id']} is not running")
        self.runtime.signal(signum, everyone)
        self.tell("kill", signal=str(signum))
        if self.record.values["status"] == "paused" and self.manually_stopped:
            self.unpause()  # a frozen process would never see the signal that is to end it

    def _stopped_by_hand(self) -> None:
        if not self.manually_stopped:
            self.manually_stopped = True
            self.record.save(stopped=True)

    def stop(self, signum: int | None, timeout: float | None) -> None:
        """Ask the container to end, and kill it when it has not in ``timeout`` seconds (-1: never)."""
        if self.ended:
            raise NotModified("the container is stopped already")
        self._stopped_by_hand()
        if self._back_off is not None:
            self._give_up_restarting()
            return
        if timeout is None:
            timeout = self.config["stop_timeout"]
        first = signum or self.config["stop_signal"]
        self.kill(first)
        if timeout >= 0 and first != SIGKILL and not self.ended:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self.loop.after(timeout, self._overdue)

    def _overdue(self) -> None:
        self._deadline = None
        if not self.ended:
            self.kill(SIGKILL)

    def _give_up_restarting(self) -> None:
        if self._back_off is not None:
            self._back_off.cancel()
            self._back_off = None
        self.record.save(status="exited")
        self._end()
        self._tell_waiters()

    def pause(self) -> None:
        self.require_running()
        if self.record.values["status"] == "paused":
            raise FailedPrecondition(f"container {self.config['id']} is already paused")
        self.runtime.pause()
        if self.health is not None:
            self.health.suspend()
        self.record.save(status="paused")
        self.announce("pause")

    def unpause(self) -> None:
        self.require_running()
        if self.record.values["status"] != "paused":
            raise FailedPrecondition(f"container {self.config['id']} is not paused")
        self.runtime.resume()
        self.record.save(status="running")
        if self.health is not None:
            self.health.resume()
        self.announce("unpause")

    def update(self, resources: dict[str, Any] | None, restart: dict[str, Any] | None) -> list[str]:
        """Change limits and the restart policy of the living container; returns warnings."""
        if restart is not None:
            self.restart = restart
        if not resources:
            return []
        self.require_running()
        warnings: list[str] = self.runtime.update(resources)
        return warnings

    def flush_log(self) -> None:
        if self._log is not None:
            self._log.flush()

    def identify(self, process: dict[str, Any], user: dict[str, Any], set_home: bool) -> tuple[int, int] | None:
        """Resolve the user of a process to be executed, inside the running container; returns its host owner."""
        root = self.open_root()
        try:
            users.apply(process, users.resolve(root, user["user"], user["groups"]), set_home)
        finally:
            os.close(root)
        return users.host_owner(process, self.spec)

    def open_root(self) -> int:
        """The running container's root directory, as its init sees it."""
        try:
            return os.open(f"/proc/{self.record.values['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as failure:
            raise FailedPrecondition(f"container {self.config['id']} is not running") from failure

    def open_ptmx(self) -> int | None:
        """The terminal multiplexer of the container's own devpts, so that its processes can name their terminal;
        None when it has none that can be trusted."""
        root = self.open_root()
        try:
            # Flags with O_NOCTTY, and a device check after: the container may have put anything there.
            place = open_in_root(root, "dev/pts/ptmx")
            try:
                if os.fstat(place).st_rdev != os.makedev(5, 2):
                    return None
                return os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            finally:
                os.close(place)
        except OSError:
            return None
        finally:
            os.close(root)


def check_message(value: object, kind: type, what: str) -> Any:
    """A field of a request, or InvalidArgument when it is not of ``kind``."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidArgument(f"{what} must be {kind.__name__}, not {type(value).__name__}")
    return value


EXPECTED = (DockpError, RuntimeFailure, OSError)
"""What a request may fail with; anything else is a bug in the shim and must not end it."""
