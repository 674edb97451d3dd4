"""What one engine that stays, as a daemon's does, takes for each step: ``python -m bench.resident [--profile]``.

No client and no HTTP: the engine is called in this process, in namespaces of its own and on roots of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import pstats
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import worker
from dockp.containers.model import Config, CreateRequest, ExecConfig, HostConfig
from dockp.engine import LocalEngine
from dockp.linux import cgroups

_IMAGE = Path(__file__).resolve().parent.parent / ".cache" / "images" / "busybox.tar"
_THREADS = 10


class Steps:
    """Times by step, in milliseconds."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._times.setdefault(name, []).append((time.perf_counter() - began) * 1000)

    def show(self, title: str) -> None:
        print(title)
        for name, times in self._times.items():
            print(f"  {name:18} median {statistics.median(times):7.2f} ms   best {min(times):7.2f}")


def _request(mode: str, *command: str) -> CreateRequest:
    return CreateRequest(config=Config(image="busybox", cmd=command), host=HostConfig(network_mode=mode))


def lives(engine: LocalEngine, mode: str, count: int) -> Steps:
    """So many containers, one after the other, from creation to removal."""
    steps, containers = Steps(), engine.containers
    for _ in range(count):
        with steps.step("all"):
            with steps.step("create"):
                id = containers.create(_request(mode, "true")).id
            with steps.step("attach"):
                stream = containers.attach(id, stdin=False, stdout=True, stderr=True)
            with steps.step("start"):
                containers.start(id)
            with steps.step("output"), contextlib.closing(stream):
                while stream.recv(65536):
                    pass
            with steps.step("wait"):
                containers.wait(id)
            with steps.step("remove"):
                containers.remove(id)
    return steps


def execs(engine: LocalEngine, count: int) -> Steps:
    """So many commands in a container that runs."""
    steps, containers = Steps(), engine.containers
    id = containers.create(_request("none", "sleep", "600")).id
    containers.start(id)
    for _ in range(count):
        with steps.step("all"):
            with steps.step("create"):
                exec_id = containers.exec_create(id, ExecConfig(cmd=("true",), attach_stdout=True, attach_stderr=True))
            with steps.step("start"):
                stream = containers.exec_start(exec_id)
            assert stream is not None
            with steps.step("output"), contextlib.closing(stream):
                while stream.recv(65536):
                    pass
            with steps.step("inspect"):
                containers.exec_inspect(exec_id)
    containers.remove(id, force=True)
    return steps


def crowd(engine: LocalEngine, mode: str, count: int) -> Steps:
    """So many containers started by ten threads at once and left running, then removed by force."""
    steps = Steps()
    ids: list[str] = []

    def start(_: int) -> None:
        id = engine.containers.create(_request(mode, "sleep", "600")).id
        engine.containers.start(id)
        ids.append(id)

    with steps.step("run -d"):
        _spread(start, count)
    with steps.step("rm -f"):
        _spread(lambda number: engine.containers.remove(ids[number], force=True), count)
    return steps


def _spread(work: Callable[[int], None], count: int) -> None:
    numbers = iter(range(count))
    guard = threading.Lock()
    failures: list[BaseException] = []

    def loop() -> None:
        while True:
            with guard:
                number = next(numbers, None)
            if number is None:
                return
            try:
                work(number)
            except BaseException as failure:
                failures.append(failure)

    threads = [threading.Thread(target=loop) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["none", "bridge", "exec", "crowd", "crowd-bridge"])
    parser.add_argument("-n", type=int, default=40, help="how many of each")
    parser.add_argument("--profile", action="store_true", help="show where this process spends its own time")
    parser.add_argument("--sort", default="tottime")
    options = parser.parse_args()
    parts: dict[str, Callable[[LocalEngine], Steps]] = {
        "none": lambda engine: lives(engine, "none", options.n),
        "bridge": lambda engine: lives(engine, "bridge", options.n),
        "exec": lambda engine: execs(engine, options.n),
        "crowd": lambda engine: crowd(engine, "none", options.n),
        "crowd-bridge": lambda engine: crowd(engine, "bridge", options.n),
    }
    worker.enter()
    parent = f"dockp-resident-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="dockp-resident.") as base:
        os.environ["DOCKP_CACHE_DIR"] = f"{base}/cache"
        with LocalEngine(data_root=f"{base}/data", exec_root="/run/dockp", cgroup_parent=parent) as engine:
            with _IMAGE.open("rb") as tar:
                engine.images.import_(tar, reference="busybox")
            warm = engine.keep_warm()
            lives(engine, "bridge", 3)
            for name in options.parts:
                profile = cProfile.Profile() if options.profile else None
                before = _cpu()
                if profile is not None:
                    profile.enable()
                steps = parts[name](engine)
                if profile is not None:
                    profile.disable()
                used = (_cpu() - before) * 1000 / options.n
                steps.show(f"{name}: {options.n} times; this process used {used:.2f} ms of CPU for each")
                if profile is not None:
                    pstats.Stats(profile, stream=sys.stdout).sort_stats(options.sort).print_stats(45)
            warm.close()
    cgroups.Cgroup(f"/{parent}").remove()


if __name__ == "__main__":
    main()
