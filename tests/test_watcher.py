"""A process that stays: it sees the ends of containers as they happen, whoever started them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
from harness import Dockp, wait_for

import dockp as package
from dockp.containers.model import Config, CreateRequest, HostConfig, RestartPolicy
from dockp.engine import LocalEngine, watcher
from dockp.interface import WaitResult


@pytest.fixture
def engine(dockp: Dockp) -> Iterator[LocalEngine]:
    with package.Engine(
        data_root=str(dockp.data_root), exec_root=str(dockp.exec_root), cgroup_parent=dockp.cgroup_parent
    ) as engine:
        engine.watch()
        yield engine


def create(engine: LocalEngine, *command: str, **host: object) -> str:
    request = CreateRequest(
        config=Config(image="busybox", cmd=command),
        host=HostConfig(network_mode="none", **host),  # type: ignore[arg-type]
    )
    return engine.containers.create(request).id


def when(engine: LocalEngine, container_id: str, condition: str) -> SimpleQueue[WaitResult]:
    found: SimpleQueue[WaitResult] = SimpleQueue()
    engine.watch().when(container_id, condition, found.put)
    return found


def test_each_condition_is_met_once_by_what_it_names(engine: LocalEngine) -> None:
    container_id = create(engine, "sh", "-c", "exit 3")
    stopped, ended, removed = (when(engine, container_id, word) for word in ("not-running", "next-exit", "removed"))
    assert stopped.get(timeout=5) == WaitResult(exit_code=0)
    assert ended.empty()
    engine.containers.start(container_id)
    assert ended.get(timeout=5) == WaitResult(exit_code=3)
    assert engine.containers.inspect(container_id)["State"]["Status"] == "exited"
    again = when(engine, container_id, "next-exit")
    assert when(engine, container_id, "not-running").get(timeout=5).exit_code == 3
    time.sleep(0.2)
    assert again.empty(), "an end that was before"
    assert removed.empty()
    engine.containers.start(container_id)
    assert again.get(timeout=5).exit_code == 3
    engine.containers.remove(container_id, force=True)
    assert removed.get(timeout=5).exit_code == 3
    for queue in (stopped, ended, again, removed):
        assert queue.empty()


def test_a_container_that_removes_itself_meets_every_condition(engine: LocalEngine) -> None:
    container_id = create(engine, "sh", "-c", "exit 4", auto_remove=True)
    ended, removed = (when(engine, container_id, word) for word in ("next-exit", "removed"))
    engine.containers.start(container_id)
    assert removed.get(timeout=5).exit_code == 4
    assert ended.get(timeout=5).exit_code == 4
    assert engine.containers.list(all=True) == []


def test_removing_ends_every_waiting(engine: LocalEngine) -> None:
    container_id = create(engine, "true")
    ended = when(engine, container_id, "next-exit")
    cancelled: SimpleQueue[WaitResult] = SimpleQueue()
    engine.watch().when(container_id, "next-exit", cancelled.put)()
    engine.containers.remove(container_id)
    assert ended.get(timeout=5) == WaitResult(exit_code=0)
    assert cancelled.empty()


def test_a_restart_by_policy_is_an_end_too(engine: LocalEngine) -> None:
    container_id = create(
        engine,
        "sh",
        "-c",
        "sleep 0.2; exit 5",
        restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=1),
    )
    engine.containers.start(container_id)
    first = when(engine, container_id, "not-running")
    assert first.get(timeout=5).exit_code == 5
    assert when(engine, container_id, "next-exit").get(timeout=5).exit_code == 5
    wait_for(lambda: not engine.containers.inspect(container_id)["State"]["Running"], "it has given up")
    assert engine.containers.inspect(container_id)["RestartCount"] == 1


def test_what_other_processes_start_and_remove_is_seen(engine: LocalEngine, dockp: Dockp) -> None:
    container_id = dockp.ok("create", "--name", "theirs", "--network", "none", "busybox", "sh", "-c", "exit 6")
    ended, removed = (when(engine, container_id, word) for word in ("next-exit", "removed"))
    dockp.ok("start", "theirs")
    assert ended.get(timeout=5).exit_code == 6
    dockp.ok("rm", "theirs")
    assert removed.get(timeout=5).exit_code == 6


def test_a_forced_removal_elsewhere_does_not_wait_for_the_watcher(engine: LocalEngine, dockp: Dockp) -> None:
    container_id = create(engine, "sleep", "60", auto_remove=True)
    removed = when(engine, container_id, "removed")
    engine.containers.start(container_id)
    began = time.monotonic()
    dockp.ok("rm", "-f", container_id)
    assert time.monotonic() - began < 5
    assert removed.get(timeout=5).exit_code == 137


def test_a_killed_shim_is_an_end(engine: LocalEngine, dockp: Dockp) -> None:
    container_id = create(engine, "sleep", "60")
    engine.containers.start(container_id)
    ended = when(engine, container_id, "next-exit")
    state = (dockp.exec_root / "containers" / container_id / "state.json").read_text()
    os.kill(int(state.partition('"shim_pid":')[2].partition(",")[0]), signal.SIGKILL)
    assert ended.get(timeout=5).exit_code == 137
    events = [event for event in engine._context.events.past() if event["Actor"]["ID"] == container_id]
    assert [event["Action"] for event in events] == ["create", "start", "die"]


def test_an_event_that_was_never_written_is_missed_not_for_long(dockp: Dockp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_ROUND", 0.2)
    settings = {"data_root": dockp.data_root, "exec_root": dockp.exec_root, "cgroup_parent": dockp.cgroup_parent}
    with package.Engine(**{name: str(value) for name, value in settings.items()}) as engine:
        engine.watch()
        container_id = create(engine, "true")
        waiting = [when(engine, container_id, condition) for condition in ("removed", "next-exit")]
        # As by a command that is killed between the removal and its event.
        monkeypatch.setattr(engine._context.events, "path", "/dev/null")
        engine.containers.remove(container_id)
        assert [queue.get(timeout=5).exit_code for queue in waiting] == [0, 0]


def test_no_reaper_is_started_beside_a_watcher(engine: LocalEngine, dockp: Dockp) -> None:
    container_id = create(engine, "true", auto_remove=True)
    removed = when(engine, container_id, "removed")
    engine.containers.start(container_id)
    removed.get(timeout=5)
    reapers = subprocess.run(
        ["pgrep", "-f", f"dockp.engine.reaper.*{container_id}"], capture_output=True, text=True, check=False
    )
    assert reapers.stdout == ""


def test_a_killed_watcher_loses_no_end(dockp: Dockp) -> None:
    program = (
        "import dockp, sys, time\n"
        f"engine = dockp.Engine(data_root={str(dockp.data_root)!r}, exec_root={str(dockp.exec_root)!r},"
        f" cgroup_parent={dockp.cgroup_parent!r})\n"
        "engine.watch()\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    ids = [dockp.ok("run", "-d", "--rm", "--network", "none", "busybox", "sleep", "1") for _ in range(3)]
    watching = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=dockp.environment)
    assert watching.stdout is not None
    assert watching.stdout.readline() == b"ready\n"
    watching.kill()
    watching.wait()
    watching.stdout.close()
    removed = f"SELECT count(*) FROM containers WHERE id IN ({','.join('?' * len(ids))})"

    def left() -> int:
        with sqlite3.connect(dockp.data_root / "state.db") as database:
            return int(database.execute(removed, ids).fetchone()[0])

    # Nobody looks: the shims start reapers.
    wait_for(lambda: left() == 0, "every container removed itself")


def test_many_start_and_end_at_once(engine: LocalEngine) -> None:
    codes: list[int] = []

    def one(number: int) -> None:
        container_id = create(engine, "sh", "-c", f"exit {number}", auto_remove=True)
        ended = when(engine, container_id, "removed")
        engine.containers.start(container_id)
        codes.append(ended.get(timeout=20).exit_code - number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 20
