"""Deadlines and a circuit breaker for calls into drivers.

A driver is somebody else's code: it may hang, or fail in ways its contract does not know. `guarded` wraps one so that

- every call has a deadline. A driver that misses one is *set aside*: calls fail at once with Unavailable, until a
  resting time is over and one trial call may go through, or until the late answer arrives after all;
- an exception outside the contract (neither DockpError nor OSError) becomes one SystemFault line that names driver and
  verb. A verb that fails so several times in a row is set aside for a while, the driver's other verbs are not;
- calls are counted, for ``dockp info``.

Calls run in worker threads, kept and used again, so that a call costs some tens of microseconds more. A hung call keeps
its thread: Python cannot stop one. The threads are daemons and do not keep the process from ending.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar, cast

from attrs import frozen, mutable

from dockp.plugins.model import KINDS
from dockp.spi.errors import DockpError, SystemFault, Unavailable

DEADLINE: Final = 60.0
"""Seconds for one call, unless the verb is known to be slow."""
SLOW: Final = 10.0
"""How many times longer verbs get that move or free data in bulk."""
SLOW_VERBS: Final = frozenset(
    {("storage", verb) for verb in ("create", "seal", "seal_all", "remove")} | {("volume", "remove")}
)
FAILURES: Final = 5
"""So many exceptions outside the contract, in a row, set a verb aside."""
REST: Final = 30.0
"""Seconds for which a driver or verb is first set aside; doubled each time it hangs again, up to `REST_MAX`."""
REST_MAX: Final = 600.0

T = TypeVar("T")
P = ParamSpec("P")
log = logging.getLogger(__name__)


@frozen(kw_only=True)
class VerbReport:
    """Counts for one verb.

    ``refused`` calls failed with an error of the contract, ``faults`` with another, ``timeouts`` missed the deadline;
    ``seconds`` is the time of all finished calls together.
    """

    calls: int = 0
    refused: int = 0
    faults: int = 0
    timeouts: int = 0
    seconds: float = 0.0


@frozen(kw_only=True)
class GuardReport:
    """The state of one guarded driver. ``set_aside`` is the reason, or "" when it works."""

    kind: str
    name: str
    verbs: Mapping[str, VerbReport]
    set_aside: str = ""


def guarded(
    driver: T,
    kind: str,
    name: str,
    deadline: float = DEADLINE,
    *,
    failures: int = FAILURES,
    rest: float = REST,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """A stand-in for ``driver`` whose public methods run under a deadline.

    Args:
        driver: the object; ``isinstance`` of the result answers as for it.
        kind, name: for messages (a key of `dockp.plugins.KINDS`; the driver's name).
        deadline: seconds for one call; verbs that move data in bulk get `SLOW` times as much.
        failures, rest: see `FAILURES`, `REST`. clock: seconds, monotonic.

    Calls raise what the driver raises of DockpError and OSError; Unavailable when the driver is set aside or missed the
    deadline; SystemFault for anything else it raised.
    """
    return cast(T, _Stand(driver, _Breaker(kind, name, deadline, failures, rest, clock)))


def report(stand_in: object) -> GuardReport:
    """The counters of what `guarded` returned. Raises: TypeError for anything else."""
    if type(stand_in) is not _Stand:
        raise TypeError(f"{stand_in!r} is not a guarded driver")
    return stand_in._breaker.report()


def call(
    kind: str, name: str, verb: str, deadline: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """One guarded call that has no driver object yet: a ``probe``, a constructor, an import."""
    return _Breaker(kind, name, deadline, 1, 0.0, time.monotonic).run(verb, function, args, kwargs)


class _Stand:
    """The stand-in. Methods are wrapped when first used and then found in the instance like any attribute."""

    def __init__(self, driver: object, breaker: _Breaker) -> None:
        self._driver = driver
        self._breaker = breaker

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._driver)

    def __repr__(self) -> str:
        return f"<guarded {self._driver!r}>"

    def __getattr__(self, verb: str) -> Any:
        value = getattr(self._driver, verb)
        if verb.startswith("_") or not callable(value):
            return value
        breaker = self._breaker

        def guarded_verb(*args: Any, **kwargs: Any) -> Any:
            return breaker.run(verb, value, args, kwargs)

        guarded_verb.__name__ = verb
        guarded_verb.__doc__ = value.__doc__
        self.__dict__[verb] = guarded_verb
        return guarded_verb


@mutable(kw_only=True)
class _Verb:
    """Counters of one verb; ``row`` faults in a row, ``until`` when it may be called again."""

    calls: int = 0
    refused: int = 0
    faults: int = 0
    timeouts: int = 0
    seconds: float = 0.0
    row: int = 0
    until: float = 0.0
    reason: str = ""


class _Breaker:
    """The state behind one stand-in. ``_lock`` guards every attribute and is never held across a driver call."""

    def __init__(
        self, kind: str, name: str, deadline: float, failures: int, rest: float, clock: Callable[[], float]
    ) -> None:
        self._kind = kind
        self._name = name
        self._label = f'{KINDS[kind].noun if kind in KINDS else kind} "{name}"'
        self._deadline = deadline
        self._failures = failures
        self._rest = rest
        self._clock = clock
        self._lock = threading.Lock()
        self._verbs: dict[str, _Verb] = {}
        self._until = 0.0
        self._reason = ""
        self._next_rest = rest

    def report(self) -> GuardReport:
        with self._lock:
            now = self._clock()
            verbs = {
                name: VerbReport(
                    calls=verb.calls,
                    refused=verb.refused,
                    faults=verb.faults,
                    timeouts=verb.timeouts,
                    seconds=verb.seconds,
                )
                for name, verb in self._verbs.items()
            }
            reasons = [self._reason, *(verb.reason for verb in self._verbs.values() if now < verb.until)]
        return GuardReport(
            kind=self._kind,
            name=self._name,
            verbs=verbs,
            set_aside="; ".join(reason for reason in reasons if reason),
        )

    def run(self, name: str, function: Callable[..., T], args: Any, kwargs: Any) -> T:
        deadline = self._deadline * (SLOW if (self._kind, name) in SLOW_VERBS else 1)
        verb, trial = self._admit(name, deadline)
        task = _Task(contextvars.copy_context(), function, args, kwargs)
        if not _hand_over(task).wait(deadline):
            with self._lock:
                # First `late`, then a look at `done`; the worker does the reverse, so none of us misses the other.
                task.late = self._recovered
                if not task.done:
                    raise self._hung(name, verb, deadline)
        return cast(T, self._settle(name, verb, task, trial))

    def _admit(self, name: str, deadline: float) -> tuple[_Verb, bool]:
        """Count the call in, or refuse it. Returns the verb, and whether this is the trial of a driver set aside."""
        with self._lock:
            verb = self._verbs.setdefault(name, _Verb())
            now = self._clock()
            trial = bool(self._reason)
            if trial:
                if now < self._until:
                    raise Unavailable(f"{self._label} is set aside: {self._reason}")
                # Its rest is over: this call is the trial, and until it ends the others are still refused.
                self._until = now + deadline
            if now < verb.until:
                raise Unavailable(f'"{name}" of {self._label} is set aside: {verb.reason}')
            verb.calls += 1
            return verb, trial

    def _hung(self, name: str, verb: _Verb, deadline: float) -> Unavailable:
        verb.timeouts += 1
        rest = self._next_rest
        self._next_rest = min(rest * 2, REST_MAX)
        self._until = self._clock() + rest
        self._reason = f'it did not answer "{name}" within {deadline:g} s'
        log.warning("driver set aside: %s, %s", self._label, self._reason)
        line = f'{self._label} did not answer "{name}" within {deadline:g} s'
        if rest:
            line += f"; it is set aside and tried again in {rest:g} s"
        return Unavailable(line)

    def _recovered(self) -> None:
        """A late answer arrived: whatever the driver was waiting for is over."""
        with self._lock:
            self._reason = ""
            log.info("driver answers again: %s", self._label)

    def _settle(self, name: str, verb: _Verb, task: _Task, trial: bool) -> Any:
        error = task.error
        fault = error is not None and not isinstance(error, DockpError | OSError)
        with self._lock:
            verb.seconds += task.seconds
            if trial:  # other calls may have begun before the driver was set aside, and prove nothing
                self._reason = ""
                self._next_rest = self._rest
            if not fault:
                verb.row = 0
                verb.refused += error is not None
            else:
                verb.faults += 1
                verb.row += 1
                if verb.row >= self._failures:
                    verb.row = 0
                    verb.until = self._clock() + self._rest
                    verb.reason = f"it failed {self._failures} times in a row, last with {type(error).__name__}"
        if error is None:
            return task.result
        try:
            if not fault:
                raise error
            log.debug("%s failed in %s", self._label, name, exc_info=error)
            text = " ".join(str(error).split())
            raise SystemFault(
                f'{self._label} failed in "{name}": {type(error).__name__}{": " if text else ""}{text}'
            ) from error
        finally:
            del error, task  # an exception in a frame of its own traceback is a reference cycle


class _Task:
    """One call on its way through a worker."""

    __slots__ = ("args", "context", "done", "error", "finished", "function", "kwargs", "late", "result", "seconds")

    def __init__(self, context: contextvars.Context, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.context = context
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.done = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.late: Callable[[], None] | None = None
        self.seconds = 0.0
        # A bare lock rather than an Event: half the cost, and all that one waiter needs.
        self.finished = threading.Lock()
        self.finished.acquire()

    def wait(self, seconds: float) -> bool:
        return self.finished.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def run(self, before_waking: Callable[[], None]) -> None:
        started = time.monotonic()
        try:
            self.result = self.context.run(self.function, *self.args, **self.kwargs)
        except BaseException as exc:
            self.error = exc
        self.seconds = time.monotonic() - started
        self.done = True
        before_waking()
        self.finished.release()
        if self.late is not None:
            self.late()


class _Worker:
    """A daemon thread that runs one task after the other."""

    def __init__(self) -> None:
        self._task: _Task | None = None
        self._wake = threading.Lock()
        self._wake.acquire()
        threading.Thread(target=self._loop, name="dockp-driver", daemon=True).start()

    def give(self, task: _Task) -> None:
        self._task = task
        self._wake.release()

    def _loop(self) -> None:
        while True:
            self._wake.acquire()
            task, self._task = self._task, None
            assert task is not None
            # Idle again before the caller wakes, so that its next call finds this worker and starts no second one.
            task.run(lambda: _idle.append(self))
            del task  # or its result would live until the next call


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # a child has none of its parent's threads


def _hand_over(task: _Task) -> _Task:
    try:
        worker = _idle.pop()  # list.pop and append are atomic
    except IndexError:
        try:
            worker = _Worker()
        except RuntimeError:
            # No more threads (pids limit), or the interpreter is ending: better without a deadline than not at all.
            task.run(lambda: None)
            return task
    worker.give(task)
    return task
