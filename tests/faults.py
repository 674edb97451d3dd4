"""Engine commands in forked children of the test process, which can be killed at any chosen step.

The test process itself opens no engine and stays single-threaded, so a fork is as good as a new ``dockp`` process, and
a hundred milliseconds cheaper. What counts as a step is patched in the child alone: the engine has no switches for it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from attrs import frozen
from harness import Dockp

import dockp.engine.local
from dockp.containers import creation, launch, removal, settling
from dockp.linux import netlink, netns
from dockp.networks import ports
from dockp.store.database import Database
from dockp.supervisor.client import ShimClient
from dockp.supervisor.launch import Supervisor
from dockp.volumes.local import LocalVolumes

Engine = dockp.engine.local.LocalEngine
Action = Callable[[Engine], Any]


@frozen(kw_only=True)
class Outcome:
    """How a command ended.

    Attributes:
        value: what the action returned (JSON). error: the name of the exception's class and its text.
        killed_at: the step after which it was killed, or "".
        steps: how many steps it did, or got to.
    """

    value: Any = None
    error: str = ""
    killed_at: str = ""
    steps: int = 0


class Failed(AssertionError):
    """A command that was to succeed raised."""


def command(place: Dockp, action: Action, *, kill_at: int | None = None, timeout: float = 60.0) -> Outcome:
    """Run ``action`` with an engine on ``place`` in a process of its own, and kill that at step ``kill_at``, counted
    from 0 (None: never).

    Raises: AssertionError when it does not end in ``timeout`` seconds or dies some other way.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.close(reading)
            _complain_to(errors)
            _be_command(place, action, kill_at, writing)
        os.close(writing)
        try:
            text = _read_all(reading, timeout)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"a command did not end within {timeout} s") from None
        finally:
            os.close(reading)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    outcome = Outcome(**json.loads(text)) if text else Outcome()
    if status == (-signal.SIGKILL if outcome.killed_at else 0) and text:
        return outcome
    raise AssertionError(f"a command ended with {status}: {said}")


def done(place: Dockp, action: Action, timeout: float = 60.0) -> Any:
    """As `command`, for one that must succeed; its value."""
    outcome = command(place, action, timeout=timeout)
    if outcome.error:
        raise Failed(outcome.error)
    return outcome.value


class Worker:
    """A process with an engine, doing many things; made by `spawn`."""

    def __init__(self, child: int, reading: int, errors: BinaryIO) -> None:
        self._child = child
        self._reading = reading
        self._errors = errors
        self._status: int | None = None
        self._killed = False

    def kill(self) -> None:
        if self._status is None:
            self._killed = True
            os.kill(self._child, signal.SIGKILL)

    def ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is not None

    def join(self) -> None:
        while not self.ended():
            time.sleep(0.01)

    def progress(self) -> int:
        """How many operations it ended. For one that ended."""
        os.set_blocking(self._reading, False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._reading, 65536):
                count += len(piece)
        os.close(self._reading)
        return count

    def complaint(self) -> str:
        """What went wrong, "" when nothing did. For one that ended."""
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        self._errors.close()
        return "" if self._status == 0 or (self._killed and self._status == -signal.SIGKILL) else text or "killed"


def spawn(place: Dockp, action: Callable[[Engine, Callable[[], object]], None]) -> Worker:
    """Run ``action`` with an engine on ``place`` in a process of its own, and do not wait. It gets a function to call
    after each operation."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - the worker's, which closes it
    child = os.fork()
    if child == 0:
        os.close(reading)
        _complain_to(errors)
        try:
            with _engine(place) as engine:
                action(engine, lambda: os.write(writing, b"."))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
    os.close(writing)
    return Worker(child, reading, errors)


def _complain_to(errors: BinaryIO) -> None:
    os.dup2(errors.fileno(), 2)
    sys.stderr = os.fdopen(2, "w")  # and not what pytest has put there


def _engine(place: Dockp) -> Engine:
    # What pytest has put there for itself must see nothing of this process.
    signal.set_wakeup_fd(-1)
    os.environ.clear()
    os.environ.update(place.environment)
    return Engine(data_root=str(place.data_root), exec_root=str(place.exec_root), cgroup_parent=place.cgroup_parent)


def _read_all(reading: int, timeout: float) -> bytes:
    # The descriptor is close-on-exec and shims are executed, so its end is the end of the child.
    text = b""
    while True:
        if not select.select([reading], [], [], timeout)[0]:
            raise TimeoutError
        piece = os.read(reading, 65536)
        if not piece:
            return text
        text += piece


def _be_command(place: Dockp, action: Action, kill_at: int | None, writing: int) -> None:
    steps = _Steps(kill_at, writing)
    try:
        outcome: dict[str, Any]
        if kill_at is not None:
            steps.patch()
        with _engine(place) as engine:
            try:
                outcome = {"value": action(engine)}
            except Exception as error:
                traceback.print_exc()
                outcome = {"error": f"{type(error).__name__}: {error}"}
        steps.over = True
        os.write(writing, json.dumps({**outcome, "steps": steps.count}).encode())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)


class _Steps:
    """Counts steps, and kills the process after one of them. (After a step is before the next: nothing that lasts is
    done in between.)"""

    def __init__(self, kill_at: int | None, writing: int) -> None:
        self.count = 0
        self.over = False
        self._kill_at = kill_at
        self._writing = writing
        self._lock = threading.Lock()

    def step(self, name: str) -> None:
        with self._lock:
            if self.count == self._kill_at and not self.over:
                os.write(self._writing, json.dumps({"killed_at": name, "steps": self.count}).encode())
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1

    def around(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)
        label = f"after {getattr(owner, '__name__', owner)}.{name}"

        @functools.wraps(original)
        def counted(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            self.step(label)
            return result

        setattr(owner, name, counted)

    def patch(self) -> None:
        from dockp_exec_libcontainer.driver import LibcontainerDriver
        from dockp_net_bridge.driver import BridgeDriver
        from dockp_storage_overlay2.driver import Overlay2Driver

        for owner, names in (
            (Overlay2Driver, ("create", "remove")),
            (BridgeDriver, ("create_network", "join", "leave", "publish")),
            (LocalVolumes, ("create", "remove")),
            (LibcontainerDriver, ("prepare", "clean")),
            (Supervisor, ("launch",)),
            (ShimClient, ("create", "start", "stop", "release")),
            (netlink.Netlink, ("run",)),
            (netns, ("new",)),
            (ports, ("reserve",)),
            (shutil, ("rmtree",)),
            (creation, ("discard_tree",)),
            (launch, ("discard_tree",)),
            (removal, ("discard_tree",)),
            (settling, ("discard_tree",)),
            (os, ("mkdir", "rename", "symlink")),
            (Path, ("write_text",)),
        ):
            for name in names:
                self.around(owner, name)
        self._around_transactions()

    def _around_transactions(self) -> None:
        original = Database.write
        steps = self

        @contextlib.contextmanager
        def write(self: Database) -> Iterator[Any]:
            outermost = not self._connection().in_transaction
            with original(self) as connection:
                yield connection
            if outermost:
                steps.step(f"after the commit of {_caller()}")

        Database.write = write  # type: ignore[method-assign]


def _caller() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.endswith(("faults.py", "contextlib.py")):
        frame = frame.f_back
    return frame.f_code.co_qualname
