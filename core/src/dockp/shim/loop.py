"""The shim's event loop: descriptors, timers and children, nothing else.

``selectors``, ``signal`` and ``heapq`` are left out for their weight; a shim has a handful of descriptors and timers.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR
"""Reported whether asked for or not (epoll_ctl(2))."""


_PATIENCE = 1000


class Timer:
    """A call in the future. `cancel` is safe at any time."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


def _caught(number: int, frame: object) -> None:
    """Do nothing: the wake-up descriptor has told the loop."""


def catch(*numbers: int) -> None:
    """Survive these signals. Caught and not ignored, since execve(2) resets what is caught, so that containers do
    not inherit it, while ignored signals stay ignored."""
    for number in numbers:
        _signal.signal(number, _caught)


class Loop:
    """One thread's epoll loop. Handlers may add and remove anything, themselves included.

    Args: report: called while the exception of a handler is being handled. A bug in one handler must not end the
        shim, and the container with it; a handler that never stops failing does, after `_PATIENCE` times.
    """

    def __init__(self, report: Callable[[], None]) -> None:
        self._report = report
        self._failures = 0
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []
        self._children: dict[int, Callable[[int], None]] = {}
        self._running = False
        awake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        catch(_signal.SIGCHLD)
        self._awake = awake
        self.watch(awake, READ, self._woken)

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler(events)`` when something happens on the descriptor, until `forget`."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Ask for other events of a watched descriptor."""
        self._poll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching; before the descriptor is closed. Not watched is success."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once in ``seconds``."""
        timer = Timer(time.monotonic() + seconds, call)
        self._timers.append(timer)
        return timer

    def child(self, pid: int, ended: Callable[[int], None]) -> None:
        """Call ``ended(exit code)`` when the child ``pid`` was reaped; 128 + n for a death by signal n."""
        self._children[pid] = ended

    def collect(self, pid: int, seconds: float) -> None:
        """Wait for a child that is dying, unannounced. One that takes longer is collected when it is done."""
        self._children[pid] = lambda code: None
        deadline = time.monotonic() + seconds
        while pid in self._children and time.monotonic() < deadline:
            self.reap()
            if pid in self._children:
                time.sleep(0.0005)

    def reap(self) -> None:
        """Collect every child that ended. Orphans of containers, which the sub-reaper inherits, go unannounced."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = self._children.pop(pid, None)
            if ended is not None:
                code = os.waitstatus_to_exitcode(status)
                self._guarded(ended, code if code >= 0 else 128 - code)

    def _woken(self, events: int) -> None:
        try:
            os.read(self._awake, 4096)
        except BlockingIOError:
            pass
        self.reap()

    def stop(self) -> None:
        """Let `run` return after the handler that is running."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            timeout = -1.0
            if self._timers:
                self._timers = [timer for timer in self._timers if timer.call is not None]
                if self._timers:
                    timeout = max(0.0, min([timer.due for timer in self._timers]) - time.monotonic())
            for descriptor, events in self._poll.poll(timeout):
                # An earlier handler of this round may have closed the descriptor.
                handler = self._handlers.get(descriptor)
                if handler is not None:
                    self._guarded(handler, events)
            if self._timers:
                now = time.monotonic()
                for timer in list(self._timers):
                    call = timer.call
                    if call is not None and timer.due <= now:
                        timer.call = None
                        self._guarded(call)

    def _guarded(self, call: Callable[..., None], *arguments: int) -> None:
        try:
            call(*arguments)
        except Exception:
            self._report()
            self._failures += 1
            if self._failures > _PATIENCE:
                raise
