"""A driver that hangs or fails costs its own calls, for a while, and nobody else's."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dockp import guard
from dockp.guard import guarded, report
from dockp.spi.errors import NotFound, SystemFault, Unavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Driver:
    """Does what the test says."""

    name = "sample"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.action: Callable[[], Any] = lambda: "done"

    def act(self, value: Any = None, *, word: str = "") -> Any:
        """Act."""
        return (value, word) if value or word else self.action()

    def hang(self) -> str:
        assert self.gate.wait(60)
        return "late"

    def _private(self) -> int:
        return threading.get_ident()


def refused(verb: Callable[[], Any]) -> None:
    """``verb`` is not answered; for use in a thread."""
    with pytest.raises(Unavailable):
        verb()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver() -> Any:
    made = Driver()
    yield made
    made.gate.set()  # lets the threads of hung calls end their call


@pytest.fixture
def safe(driver: Driver, clock: Clock) -> Driver:
    return guarded(driver, "storage", "sample", 0.05, failures=3, rest=30, clock=clock)


def test_a_guarded_driver_looks_like_the_driver(driver: Driver, safe: Driver) -> None:
    assert isinstance(safe, Driver)
    assert safe.name == "sample"
    assert safe.act(1, word="x") == (1, "x")
    assert safe.act.__doc__ == "Act."
    assert safe._private() == threading.get_ident()
    assert "Driver object" in repr(safe)
    with pytest.raises(AttributeError):
        safe.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_errors_of_the_contract_arrive_as_they_are(driver: Driver, safe: Driver) -> None:
    for error in (NotFound("no such snapshot: 1"), OSError(28, "No space left on device")):

        def fail(error: Exception = error) -> None:
            raise error

        driver.action = fail
        for _ in range(10):
            with pytest.raises(type(error)) as caught:
                safe.act()
            assert caught.value is error
    assert report(safe).verbs["act"].refused == 20
    assert report(safe).set_aside == ""


def test_any_other_exception_is_one_line_naming_driver_and_verb(driver: Driver, safe: Driver) -> None:
    driver.action = lambda: {}["key\nover two lines"]
    with pytest.raises(SystemFault, match=r'^storage driver "sample" failed in "act": KeyError: .*$') as caught:
        safe.act()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_driver_cannot_end_the_engine(driver: Driver, safe: Driver) -> None:
    def leave() -> None:
        raise SystemExit(4)

    driver.action = leave
    with pytest.raises(SystemFault, match="SystemExit: 4"):
        safe.act()


def test_a_missed_deadline_sets_the_whole_driver_aside_at_once(safe: Driver) -> None:
    with pytest.raises(
        Unavailable,
        match=r'^storage driver "sample" did not answer "hang" within 0.05 s; it is set aside and tried again in 30 s$',
    ):
        safe.hang()
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r'is set aside: it did not answer "hang" within 0.05 s$'):
        safe.act()
    assert time.monotonic() - started < 0.04
    assert report(safe).verbs["hang"].timeouts == 1
    assert report(safe).set_aside == 'it did not answer "hang" within 0.05 s'


def test_after_its_rest_one_trial_goes_through_and_success_brings_the_driver_back(safe: Driver, clock: Clock) -> None:
    with pytest.raises(Unavailable):
        safe.hang()
    clock.now += 31
    assert safe.act() == "done"
    assert safe.act() == "done"
    assert report(safe).set_aside == ""


def test_only_one_call_at_a_time_tries_a_driver_that_hung(driver: Driver, clock: Clock) -> None:
    safe = guarded(driver, "storage", "sample", 5, rest=30, clock=clock)
    breaker = safe._breaker  # type: ignore[attr-defined]
    breaker._reason, breaker._until = "it hung", clock.now
    trial = threading.Thread(target=safe.hang)
    trial.start()
    while not report(safe).verbs:
        time.sleep(0.001)
    with pytest.raises(Unavailable, match="set aside"):
        safe.act()
    driver.gate.set()
    trial.join()
    assert safe.act() == "done"


def test_each_hang_doubles_the_rest(safe: Driver, clock: Clock) -> None:
    for rest in (30, 60, 120):
        with pytest.raises(Unavailable, match=f"tried again in {rest} s"):
            safe.hang()
        clock.now += rest + 1


def test_a_late_answer_brings_the_driver_back_at_once(driver: Driver, safe: Driver) -> None:
    with pytest.raises(Unavailable):
        safe.hang()
    driver.gate.set()
    deadline = time.monotonic() + 5
    while report(safe).set_aside and time.monotonic() < deadline:
        time.sleep(0.001)
    assert safe.act() == "done"


def test_a_call_that_began_before_the_hang_does_not_bring_the_driver_back(driver: Driver, clock: Clock) -> None:
    safe = guarded(driver, "storage", "sample", 0.3, rest=30, clock=clock)
    driver.action = lambda: time.sleep(0.45) or "slow"
    hung = threading.Thread(target=refused, args=(safe.hang,))
    hung.start()
    time.sleep(0.15)
    driver.action = lambda: time.sleep(0.25) or "done"
    assert safe.act() == "done"
    hung.join()
    with pytest.raises(Unavailable, match="set aside"):
        safe.act()


def test_a_verb_that_keeps_failing_is_set_aside_and_the_others_are_not(
    driver: Driver, safe: Driver, clock: Clock
) -> None:
    driver.action = lambda: 1 / 0
    for _ in range(3):
        with pytest.raises(SystemFault):
            safe.act()
    with pytest.raises(
        Unavailable, match=r'^"act" of storage driver "sample" is set aside: it failed 3 times in a row'
    ):
        safe.act()
    driver.gate.set()
    assert safe.hang() == "late"
    driver.action = lambda: "mended"
    clock.now += 31
    assert safe.act() == "mended"


def test_failures_that_are_not_in_a_row_set_nothing_aside(driver: Driver, safe: Driver) -> None:
    for _ in range(4):
        driver.action = lambda: 1 / 0
        for _ in range(2):
            with pytest.raises(SystemFault):
                safe.act()
        driver.action = lambda: "fine"
        assert safe.act() == "fine"
    assert report(safe).set_aside == ""


def test_a_hung_driver_delays_no_other_driver(driver: Driver, safe: Driver) -> None:
    other = guarded(Driver(), "storage", "other", 5)
    waiting = threading.Thread(target=refused, args=(safe.hang,))
    waiting.start()
    started = time.monotonic()
    for _ in range(10):
        other.act()
    assert time.monotonic() - started < 1
    waiting.join()


def test_many_threads_at_once_all_get_their_own_answers() -> None:
    safe = guarded(Driver(), "network", "sample")
    wrong = []

    def work(number: int) -> None:
        for step in range(200):
            if safe.act((number, step)) != ((number, step), ""):
                wrong.append((number, step))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert report(safe).verbs["act"].calls == 1600


def test_context_variables_reach_the_driver(driver: Driver, safe: Driver) -> None:
    variable = contextvars.ContextVar("request", default="")
    variable.set("42")
    driver.action = variable.get
    assert safe.act() == "42"


def test_verbs_that_move_data_get_longer(clock: Clock) -> None:
    class Storage(Driver):
        def create(self) -> str:
            time.sleep(0.15)
            return "made"

        def usage(self) -> None:
            time.sleep(0.15)

    safe = guarded(Storage(), "storage", "sample", 0.05, clock=clock)
    assert safe.create() == "made"
    with pytest.raises(Unavailable):
        safe.usage()


def test_a_forked_child_has_working_guards_of_its_own(driver: Driver) -> None:
    safe = guarded(driver, "storage", "sample", 5)
    safe.act()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if safe.act() == "done" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_where_no_thread_can_be_started_the_call_is_made_without_a_deadline(
    safe: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(guard, "_idle", [])
    monkeypatch.setattr(threading.Thread, "start", cannot)
    assert safe.act() == "done"


def test_a_call_costs_less_than_150_microseconds() -> None:
    safe = guarded(Driver(), "storage", "sample")
    best = 1.0
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(200):
            safe.act()
        best = min(best, (time.perf_counter() - started) / 200)
    assert best < 150e-6


def test_a_single_call_may_be_guarded_without_an_object() -> None:
    assert guard.call("storage", "sample", "probe", 5, lambda value, *, word: value + word, "a", word="b") == "ab"
    with pytest.raises(Unavailable, match=r'^storage driver "sample" did not answer "probe" within 0.05 s$'):
        guard.call("storage", "sample", "probe", 0.05, time.sleep, 0.3)


def test_only_guarded_drivers_have_a_report() -> None:
    with pytest.raises(TypeError):
        report(Driver())
