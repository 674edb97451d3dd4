"""The ends of all containers, seen as they happen: for a process that stays.

One thread listens to the shim of every running container and to the event log. Each shim is told that this process
claims its container's end, so that none starts a reaper. An end is settled at once by a small pool of threads, and then
those are told who wait for it.

What other processes on the same roots do comes through the event log, a moment later: "start" makes the watcher connect
to a shim that it does not know, "die" tells of a container that was over before it could, "destroy" that one is gone.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

from attrs import define

from dockp.events.log import Follower
from dockp.interface import WaitResult
from dockp.shim import wire
from dockp.spi.errors import DockpError
from dockp.supervisor.launch import connect_in
from dockp.supervisor.state import TaskState

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.record import Task
    from dockp.events.log import Event

_log = logging.getLogger(__name__)

_SETTLERS = 8
"""Threads that settle. Most of the work waits for the database and for drivers."""


_ROUND = 20.0
"""Seconds after which the watcher looks after those for whom it heard nothing."""

_NEWS = 0.02
"""Seconds for which the event log is left to grow before it is read. Most of it was written on behalf of this process,
which knows; reading every line at once would only be in the way of who wrote it."""

_FIRST_LOOK, _LONGEST_LOOK = 0.001, 1.0
"""Seconds between looks at a container whose shim is neither there nor gone."""


@define(eq=False)
class _Waiter:
    """Somebody who waits.

    Attributes:
        past: the run that was over already, by the time it started; its end is not waited for. 0 for none.
        last: how the container ended last.
    """

    condition: str
    callback: Callable[[WaitResult], object]
    past: int
    last: WaitResult


@define(eq=False)
class _Shim:
    """A connection to one shim. ``over``: its container has ended, at ``finished`` (nanoseconds since the epoch)."""

    container_id: str
    sock: socket.socket
    receiver: wire.Receiver
    over: bool = False
    finished: int = 0


class Watcher:
    """See the module. Runs from `start` to `close`; every method may be called from any thread.

    Args: settle: takes a container's exit record, if it ended.
    """

    def __init__(self, context: Context, settle: Callable[[str], None]) -> None:
        self._context = context
        self._settle = settle
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._follower = Follower(context.events.path, past=False)
        self._guard = threading.Lock()  # of the three below
        self._shims: dict[int, _Shim] = {}  # by descriptor
        self._known: dict[str, _Shim] = {}  # the latest of each container
        self._waiters: dict[str, list[_Waiter]] = {}
        self._closing = False
        self._pool = ThreadPoolExecutor(_SETTLERS, "settle")
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> Watcher:
        """Begin with the containers that run now; those that ended while nobody looked are settled."""
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self._follower, select.EPOLLIN | select.EPOLLONESHOT)
        self._thread.start()
        for container in self._context.table.all(active_only=True):
            self.adopt(container.id)
        return self

    def close(self) -> None:
        """Give the claims back: from now on each shim sees to its container's end. Idempotent."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for shim in self._shims.values():
            shim.receiver.close()
        self._follower.close()
        self._epoll.close()
        os.close(self._wake)

    def adopt(self, container_id: str) -> None:
        """Claim the end of a container whose shim lives. Without a shim it is settled."""
        if not self._connect(container_id):
            self._pool.submit(self._deserted, container_id)

    def _connect(self, container_id: str) -> bool:
        sock = connect_in(self._context.run_dir(container_id), "shim.sock")
        if sock is None:
            return False
        shim = _Shim(container_id, sock, wire.Receiver(sock))
        with self._guard:
            self._shims[sock.fileno()] = self._known[container_id] = shim
        # One send for both, and no waiting for the answers: this is on the way of every start.
        with contextlib.suppress(OSError):
            sock.sendall(wire.pack({"op": "claim", "seq": 1}) + wire.pack({"op": "watch", "seq": 2}))
        self._epoll.register(sock, select.EPOLLIN)
        return True

    def when(self, container_id: str, condition: str, callback: Callable[[WaitResult], object]) -> Callable[[], object]:
        """Call back once, from another thread, when the container meets the condition; cancel with what is returned.

        Args:
            condition: as `dockp.interface.Containers.wait` has them; "not-running" may be met already. As with Docker
                each end counts, also one after which the container is restarted, and a removal ends every waiting.
            callback: must be quick, since others wait behind it.
        """
        runs, past, last = self._look(container_id)
        waiter = _Waiter(condition or "not-running", callback, past, last)
        with self._guard:
            self._waiters.setdefault(container_id, []).append(waiter)
        if self._context.table.peek(container_id) is None:
            self._pool.submit(self.removed, container_id)
        elif waiter.condition == "not-running" and not runs:
            self._pool.submit(self._tell_stopped, container_id, waiter)
        elif self._look(container_id)[1] != past:  # it has ended since, perhaps before the waiter was in its place
            self._pool.submit(self._settled, container_id)
        return lambda: self._cancel(container_id, waiter)

    def begin_wait(self, container_id: str, condition: str) -> Callable[[], WaitResult]:
        """`when`, for a thread that has nothing better to do: what is returned waits."""
        found: SimpleQueue[WaitResult] = SimpleQueue()
        cancel = self.when(container_id, condition, found.put)

        def end() -> WaitResult:
            try:
                return found.get()
            finally:
                cancel()

        return end

    # Waiters

    def _look(self, container_id: str) -> tuple[bool, int, WaitResult]:
        """Whether it runs, which run of it was the last to end (by the time it started), and how that ended."""
        state = self._context.supervisor.state(container_id)
        if state is None:  # not started, or settled
            container = self._context.table.peek(container_id)
            if container is None:
                return False, 0, WaitResult(exit_code=0)
            return False, container.task.started_at, _result(container.task)
        if state.running:
            return True, 0, WaitResult(exit_code=0)
        return state.status == "restarting", state.started_at, _result(state)

    def _tell_stopped(self, container_id: str, waiter: _Waiter) -> None:
        self._settle_quietly(container_id)
        if self._cancel(container_id, waiter):
            _call(container_id, waiter, waiter.last)

    def _tell(self, container_id: str, run: int, result: WaitResult) -> None:
        """Tell those who wait for an end that the run has ended which started at ``run``."""
        with self._guard:
            waiting = self._waiters.get(container_id, [])
            told = [waiter for waiter in waiting if waiter.condition != "removed" and waiter.past != run]
            for waiter in waiting:
                waiter.last = result
            self._leave(container_id, told)
        for waiter in told:
            _call(container_id, waiter, result)

    def removed(self, container_id: str) -> None:
        """Tell those who wait for a container that is no more. Idempotent."""
        with self._guard:
            told = self._waiters.pop(container_id, [])
        for waiter in told:
            _call(container_id, waiter, waiter.last)

    def _cancel(self, container_id: str, waiter: _Waiter) -> bool:
        """Whether it was still waiting."""
        with self._guard:
            found = waiter in self._waiters.get(container_id, ())
            self._leave(container_id, [waiter])
        return found

    def _leave(self, container_id: str, gone: Sequence[_Waiter]) -> None:
        left = [waiter for waiter in self._waiters.get(container_id, ()) if waiter not in gone]
        if left:
            self._waiters[container_id] = left
        else:
            self._waiters.pop(container_id, None)

    # The thread

    def _run(self) -> None:
        round, news = time.monotonic() + _ROUND, math.inf
        while not self._closing:
            for descriptor, _ in self._epoll.poll(max(0.0, min(round, news) - time.monotonic())):
                if descriptor == self._follower.fileno():
                    news = time.monotonic() + _NEWS
                elif descriptor in self._shims:
                    with self._reported():
                        self._hear(self._shims[descriptor])
            now = time.monotonic()
            if now >= news:
                news = math.inf
                with self._reported():
                    for event in self._follower.read():
                        self._happened(event)
                self._epoll.modify(self._follower, select.EPOLLIN | select.EPOLLONESHOT)
            if now >= round:
                round = now + _ROUND
                self._pool.submit(self._make_round)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """The thread goes on, whatever happens in here."""
        try:
            yield
        except Exception:
            _log.exception("the watcher failed")

    def _happened(self, event: Event) -> None:
        if event["Type"] != "container":
            return
        container_id = event["Actor"]["ID"]
        known = self._known.get(container_id)
        if event["Action"] == "start":
            if known is not None and not known.over:
                self._hear(known)  # it may have ended, and have been started anew by somebody else
            if known is None or (known.over and event["timeNano"] > known.finished):
                self.adopt(container_id)
        elif event["Action"] == "die":
            # A shim that is listened to tells of it itself, once its ports are free again.
            if known is None:
                self._pool.submit(self._settled, container_id)
        elif event["Action"] == "destroy":
            self.removed(container_id)

    def _hear(self, shim: _Shim) -> None:
        try:
            messages = shim.receiver.receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            messages = None
        for message, _ in messages or ():
            if message.get("event") == "exit" and not shim.over:
                state = TaskState.from_json(message["state"])
                shim.over, shim.finished = True, state.finished_at
                self._remember(shim.container_id, _result(state))
                self._pool.submit(self._ended, shim)
            elif message.get("action") == "die" and message["state"]["status"] == "restarting":
                state = TaskState.from_json(message["state"])
                self._pool.submit(self._tell, shim.container_id, state.started_at, _result(state))
        if messages is None:
            self._lost(shim)

    def _remember(self, container_id: str, result: WaitResult) -> None:
        """For those who wait for the removal, which may come first."""
        with self._guard:
            for waiter in self._waiters.get(container_id, ()):
                waiter.last = result

    def _lost(self, shim: _Shim) -> None:
        """The connection has ended: the container was cleaned up, or the shim was killed."""
        with self._guard:
            del self._shims[shim.sock.fileno()]
            if self._known.get(shim.container_id) is shim:
                del self._known[shim.container_id]
        shim.receiver.close()
        if not shim.over:
            shim.over = True
            self._pool.submit(self._deserted, shim.container_id)

    # In the pool

    def _make_round(self) -> None:
        """Look after all whom somebody waits for: whoever was to tell of it may have been killed just before."""
        for container_id in list(self._waiters):
            if self._context.table.peek(container_id) is None:
                self.removed(container_id)
            else:
                self._settled(container_id)

    def _deserted(self, container_id: str) -> None:
        """There is no connection to the shim of a container that was said to run."""
        pause = _FIRST_LOOK
        while not self._closing:
            self._settled(container_id)
            # A killed shim's lock may be held a little longer, by a child that it was about to part with.
            if not self._look(container_id)[0] or self._connect(container_id):
                return
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_LOOK)

    def _ended(self, shim: _Shim) -> None:
        self._settled(shim.container_id)
        # Not before: a claim that ends with this process makes the shim see to the rest.
        with contextlib.suppress(OSError):
            shim.sock.send(wire.pack({"op": "release", "seq": 3}), socket.MSG_NOSIGNAL)

    def _settled(self, container_id: str) -> None:
        self._settle_quietly(container_id)
        runs, past, last = self._look(container_id)
        if not runs and past:
            self._tell(container_id, past, last)

    def _settle_quietly(self, container_id: str) -> None:
        try:
            self._settle(container_id)
        except DockpError as error:
            _log.error("container %s: %s", container_id[:12], error)
        except Exception:
            _log.exception("container %s: cannot settle its end", container_id[:12])


def _result(task: Task | TaskState) -> WaitResult:
    # Why there was no start is the answer to whoever asked for it, not to those who wait for an end.
    return WaitResult(exit_code=task.exit_code or 0, error=task.error if task.started_at else "")


def _call(container_id: str, waiter: _Waiter, result: WaitResult) -> None:
    try:
        waiter.callback(result)
    except Exception:
        _log.exception("container %s: whoever waited for it failed", container_id[:12])
