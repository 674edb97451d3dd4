"""Much of everything: random operations by several processes at once, some killed in the middle, some shims too, leave
nothing behind; and a daemon that has done thousands of things is no bigger than it was.

``DOCKP_TEST_SOAK`` says for how many seconds a daemon is kept busy (a few, unless it is set).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from apiclient import Client, Size, answering, shell
from faults import Engine, done, spawn
from harness import Daemon, Dockp, processes_naming, remains

from dockp.containers import execs
from dockp.containers.model import Config, CreateRequest, ExecConfig, HostConfig, PortBinding
from dockp.spi.errors import Conflict, DockpError, NotFound, NotModified, Unavailable

_WORKERS = 4
_NAMES = [f"soak{n}" for n in range(6)]
_VOLUMES = ["vol0", "vol1"]
_TAGS = ["soak:a", "soak:b"]

# What may honestly be said about an object that others change, or whose shim was just killed.
_EXPECTED = (NotFound, Conflict, NotModified, Unavailable)


@pytest.fixture
def place(dockp: Dockp) -> Iterator[Dockp]:
    assert remains(dockp) == []
    yield dockp
    dockp.clear()


@pytest.mark.parametrize("seed", [11])
def test_two_hundred_random_operations_leave_nothing(place: Dockp, seed: int) -> None:
    _soak(place, seed, operations=200)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2024])
def test_a_thousand_random_operations_leave_nothing(place: Dockp, seed: int) -> None:
    _soak(place, seed, operations=1000)


def _soak(place: Dockp, seed: int, operations: int) -> None:
    """Every worker does its share; one that is killed is replaced by one that goes on from there."""
    chance = random.Random(seed)
    left = [operations // _WORKERS] * _WORKERS
    workers: dict[int, Any] = {}
    deadline = time.monotonic() + 60 + operations
    try:
        while any(left) or workers:
            assert time.monotonic() < deadline, "the workers hang"
            for number in range(_WORKERS):
                if number not in workers and left[number]:
                    workers[number] = spawn(place, _work(chance.randrange(1 << 30), left[number]))
            time.sleep(0.05)
            for number, worker in list(workers.items()):
                if chance.random() < 0.01:
                    worker.kill()
                if worker.ended():
                    left[number] = max(0, left[number] - max(1, worker.progress()))
                    del workers[number]
                    complaint = worker.complaint()
                    if complaint:
                        raise AssertionError(complaint)
            if chance.random() < 0.02:
                _kill_a_shim(place, chance)
    finally:
        for worker in workers.values():
            worker.kill()
            worker.join()
    done(place, _remove_everything)
    assert remains(place) == []
    assert place.ok("run", "--rm", "busybox", "echo", "well") == "well"
    assert remains(place) == []


def _kill_a_shim(place: Dockp, chance: random.Random) -> None:
    shims = sorted(pid for pid, name in processes_naming(str(place.exec_root / "containers")).items() if "-S" in name)
    if shims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(shims), signal.SIGKILL)


def _work(seed: int, operations: int) -> Callable[[Engine, Callable[[], object]], None]:
    def work(engine: Engine, progress: Callable[[], object]) -> None:
        chance = random.Random(seed)
        for _ in range(operations):
            operation = chance.choices(list(_OPERATIONS), list(_OPERATIONS.values()))[0]
            try:
                operation(engine, chance)
            except _EXPECTED:
                pass
            except DockpError as error:
                if not any(words in str(error) for words in _ALSO_EXPECTED):
                    raise AssertionError(f"{operation.__name__}: {type(error).__name__}: {error}") from error
            progress()

    return work


_ALSO_EXPECTED = (
    "failed to create shim task",  # its shim was killed, or it was stopped, during the start
    "exec failed",  # the same, during an exec
)


def _create(engine: Engine, chance: random.Random) -> None:
    networked = chance.random() < 0.6
    published = networked and chance.random() < 0.5
    engine.containers.create(
        CreateRequest(
            name=chance.choice(_NAMES),
            config=Config(
                image=chance.choice(["busybox"] * 4 + _TAGS),
                cmd=chance.choice([("sleep", "1000"), ("sleep", "0.2"), ("sh", "-c", "seq 100; exit 3"), ("nosuch",)]),
                stop_signal="KILL",
                volumes={"/anonymous": {}} if chance.random() < 0.3 else {},
            ),
            host=HostConfig(
                network_mode="bridge" if networked else "none",
                port_bindings={"80/tcp": (PortBinding(host_ip="", host_port=""),)} if published else {},
                binds=(f"{chance.choice(_VOLUMES)}:/named",) if chance.random() < 0.3 else (),
                auto_remove=chance.random() < 0.3,
            ),
        )
    )


def _run(engine: Engine, chance: random.Random) -> None:
    host = HostConfig(network_mode=chance.choice(["none", "bridge"]))
    try:
        said = engine.containers.run("busybox", ["echo", "said"], host=host).stdout
    except DockpError as error:
        if isinstance(error, _EXPECTED):
            return
        raise
    assert said in (b"said\n", b"")  # b"": its shim was killed


def _start(engine: Engine, chance: random.Random) -> None:
    engine.containers.start(chance.choice(_NAMES))


def _stop(engine: Engine, chance: random.Random) -> None:
    engine.containers.stop(chance.choice(_NAMES), 1)


def _restart(engine: Engine, chance: random.Random) -> None:
    engine.containers.restart(chance.choice(_NAMES), 1)


def _kill(engine: Engine, chance: random.Random) -> None:
    engine.containers.kill(chance.choice(_NAMES), chance.choice(["KILL", "TERM", "USR1"]))


def _pause(engine: Engine, chance: random.Random) -> None:
    engine.containers.pause(chance.choice(_NAMES))


def _unpause(engine: Engine, chance: random.Random) -> None:
    engine.containers.unpause(chance.choice(_NAMES))


def _remove(engine: Engine, chance: random.Random) -> None:
    engine.containers.remove(chance.choice(_NAMES), force=chance.random() < 0.8, volumes=True)


def _rename(engine: Engine, chance: random.Random) -> None:
    old, new = chance.sample(_NAMES, 2)
    engine.containers.rename(old, new)


def _exec(engine: Engine, chance: random.Random) -> None:
    config = ExecConfig(cmd=("echo", "said"), attach_stdout=True, attach_stderr=True)
    exec_id = engine.containers.exec_create(chance.choice(_NAMES), config)
    stream = engine.containers.exec_start(exec_id)
    assert stream is not None
    with contextlib.closing(stream):
        while stream.recv(4096):
            pass


def _look(engine: Engine, chance: random.Random) -> None:
    engine.containers.list(all=True)
    engine.containers.inspect(chance.choice(_NAMES))
    for _ in engine.containers.logs(chance.choice(_NAMES)):
        pass


def _tag(engine: Engine, chance: random.Random) -> None:
    engine.images.tag("busybox", chance.choice(_TAGS))


def _untag(engine: Engine, chance: random.Random) -> None:
    engine.images.remove(chance.choice(_TAGS))


def _volume(engine: Engine, chance: random.Random) -> None:
    engine.volumes.create(chance.choice(_VOLUMES))


def _remove_volume(engine: Engine, chance: random.Random) -> None:
    engine.volumes.remove(chance.choice(_VOLUMES))


_OPERATIONS: dict[Callable[[Engine, random.Random], None], int] = {
    _create: 6,
    _run: 2,
    _start: 6,
    _stop: 3,
    _restart: 1,
    _kill: 2,
    _pause: 1,
    _unpause: 2,
    _remove: 3,
    _rename: 1,
    _exec: 3,
    _look: 3,
    _tag: 1,
    _untag: 1,
    _volume: 1,
    _remove_volume: 1,
}


def _remove_everything(engine: Engine) -> None:
    for row in engine.containers.list(all=True):
        with contextlib.suppress(NotFound):
            engine.containers.remove(str(row["Id"]), force=True, volumes=True)
    for name in _VOLUMES:
        engine.volumes.remove(name, force=True)
    for tag in _TAGS:
        with contextlib.suppress(NotFound):
            engine.images.remove(tag)


# A daemon that is kept busy

_SECONDS = float(os.environ.get("DOCKP_TEST_SOAK", "6"))
_BOXES = 2


@pytest.mark.embedded
def test_a_daemon_stays_as_it_was(place: Dockp) -> None:
    with Daemon(place) as daemon:
        with Client(daemon.socket) as client:
            boxes = [str(client.ok("POST", "/containers/create", shell("sleep 1000000"))["Id"]) for _ in range(_BOXES)]
            for box in boxes:
                client.ok("POST", f"/containers/{box}/start")
        _keep_busy(daemon, boxes, 4.0 if _SECONDS < 60 else 60.0)
        before = Size.of(daemon)
        with answering(daemon):
            count = _keep_busy(daemon, boxes, _SECONDS)
        after = Size.of(daemon)
        print(f"in {_SECONDS} s: {dict(count)}; before: {before}; after: {after}")
        assert set(count) == {"exec", "run", "run with network"}
        # The shims remember how execs ended, up to a thousand each.
        assert after.memory < before.memory + 3000, (before, after)
        assert after.others < before.others + _BOXES * 500, (before, after)
        assert after.descriptors < before.descriptors + 20, (before, after)
        assert after.threads < before.threads + 5, (before, after)
        assert after.files < before.files + 10, (before, after)
        assert after.processes == before.processes, (before, after)
        assert after.database < before.database + 4_000_000, (before, after)
        place.clear()
        assert "Traceback" not in daemon.log


def _keep_busy(daemon: Daemon, boxes: list[str], seconds: float) -> Counter[str]:
    """How often each thing was done; and a second of rest."""
    until = time.monotonic() + seconds
    tasks = [*(partial(_execs, daemon, box) for box in boxes)]
    tasks += [partial(_runs, daemon, "none"), partial(_runs, daemon, "bridge")]
    with ThreadPoolExecutor(len(tasks)) as pool:
        counts = [pool.submit(task, until) for task in tasks]
        done = sum((count.result() for count in counts), Counter[str]())
    time.sleep(1)
    return done


def _execs(daemon: Daemon, box: str, until: float) -> Counter[str]:
    count = Counter[str]()
    with Client(daemon.socket) as client:
        while time.monotonic() < until:
            wish = {"Cmd": ["sh", "-c", "echo said; exit 3"], "AttachStdout": True}
            exec_id = client.ok("POST", f"/containers/{box}/exec", wish)["Id"]
            with Client(daemon.socket) as stream:
                stream.hijack(f"/exec/{exec_id}/start", {})
                assert stream.output() == b"said\n"
            assert client.ok("GET", f"/exec/{exec_id}/json")["ExitCode"] == 3
            count["exec"] += 1
    return count


def _runs(daemon: Daemon, network: str, until: float) -> Counter[str]:
    """As ``docker run --rm`` does it."""
    count = Counter[str]()
    wish = shell("echo said; exit 3", AutoRemove=True, NetworkMode=network)
    with Client(daemon.socket) as client:
        while time.monotonic() < until:
            box = client.ok("POST", "/containers/create", wish)["Id"]
            with Client(daemon.socket) as stream, Client(daemon.socket) as end:
                stream.hijack(f"/containers/{box}/attach", stream=1, stdout=1)
                end.send("POST", f"/containers/{box}/wait", condition="removed")
                end.head()
                client.ok("POST", f"/containers/{box}/start")
                assert stream.output() == b"said\n"
                assert json.loads(b"".join(end.chunks()))["StatusCode"] == 3
            assert client.ask("GET", f"/containers/{box}/json").status == 404
            count["run" if network == "none" else "run with network"] += 1
    return count


def test_of_execs_only_the_newest_and_those_that_run_are_remembered(place: Dockp) -> None:
    def work(engine: Engine) -> tuple[int, bool, bool, list[str]]:
        execs._REMEMBERED = 3
        box = engine.containers.create(
            CreateRequest(name="box", config=Config(image="busybox", cmd=("sleep", "1000")), host=HostConfig())
        ).id
        engine.containers.start(box)

        def run(*words: str) -> str:
            exec_id = engine.containers.exec_create(box, ExecConfig(cmd=words))
            engine.containers.exec_start(exec_id, detach=True)
            return exec_id

        running = run("sleep", "1000")
        for _ in range(10):
            newest = run("true")
            engine.containers.exec_wait(newest)
        known = engine._context.table.execs_of(box)
        listed = engine.containers.inspect(box)["ExecIDs"]
        return len(known), running in known, newest in known, listed == [running]

    count, *rest = done(place, work)
    assert 4 <= count <= 7
    assert rest == [True, True, True]
