"""What is measured of whole engines and of the runtime alone; `bench.daemons` has what is measured of daemons."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.contestants import Bundles, Contestant, Docker, Dockp, Failure, Podman, Runc, shim_memory
from bench.report import MB, MS, SECONDS, Row, Section
from bench.turns import Samples, Turns, say
from bench.worker import Worker

_FLEET = 50
_FORKED = 20
_SLEEP = ("busybox", "sleep", "600")
# Ends at once on SIGTERM, which the first process of a pid namespace ignores unless it asks for it.
_OBEDIENT = ("busybox", "sh", "-c", 'trap "exit 0" TERM; sleep 600 & wait')


class Bench:
    """One run.

    Attributes:
        versions: (name, version) of the contestants.
    """

    def __init__(self, home: Path, image: Path, debian: Path | None, cgroup: str, turns: Turns, quick: bool) -> None:
        self._turns = turns
        self._home = home
        self._image = image
        self._debian = debian
        self._cgroup = cgroup
        self._quick = quick
        self.versions: list[tuple[str, str]] = []
        self._engines: list[Contestant] = []
        self._closing: list[Callable[[], None]] = []
        self._memory = Section(
            "Memory of a container's shim",
            "Proportional set size of the process that stays with each container. docker has dockerd and containerd "
            "besides.",
            ["dockp", "docker", "podman"],
        )

    def all(self) -> list[Section]:
        """Every section, in the order in which they are shown."""
        runtime = self._runtime_alone()
        self._open_engines()
        commands = self._whole_commands()
        self._memory_of_one()
        fleet = self._fleet()
        self._daily(commands)
        self._import_debian(commands)
        return [runtime, commands, fleet, self._memory]

    def close(self) -> None:
        for close in reversed(self._closing):
            close()

    # --- the parts

    def _runtime_alone(self) -> Section:
        """`runc run`, and dockp's runtime in a warm process and through a shim from a zygote, on the same bundles."""
        say("the runtime alone")
        section = Section(
            "The runtime alone",
            "An OCI bundle of `runc spec` running `true`: created, started, ended, cleaned up. For dockp, in a process "
            "that has the runtime loaded, as a shim has; and a whole shim with its log, from the zygote's fork until "
            "it is gone. For runc, `runc run`.",
            ["dockp", "runc"],
        )
        bundles = Bundles(self._home / "bundles", self._image, self._cgroup)
        cache = str(self._home / "seccomp")
        runc = Runc(self._home / "runc", self._cgroup)
        native, forking = Worker(), Worker()
        self._closing += [runc.close, native.close, forking.close]
        self.versions.append(("runc", runc.version()))
        forking.call("start_zygote", root="/run/dockp-bench")

        def once(worker: Worker, operation: str, bundle: Path) -> Callable[[], float]:
            def call() -> float:
                answer = worker.call(operation, bundle=str(bundle), cache=cache)
                if answer["code"] != 0:
                    raise Failure(f"{operation}: exit {answer['code']}: {answer['output']}")
                return float(answer["seconds"])

            return call

        for words, seccomp in (("Docker's seccomp profile", True), ("no seccomp", False)):
            theirs, ours, shims = (bundles.make(who, seccomp) for who in ("runc", "native", "shim"))
            samples = self._turns.take(
                {
                    "runc": partial(runc.once, theirs),
                    "runtime": once(native, "runtime_once", ours),
                    "shim": once(forking, "shim_once", shims),
                },
                rounds=10 if self._quick else 50,
                warm=3,
            )
            for kind, title in (("runtime", "runtime"), ("shim", "whole shim")):
                both = {"dockp": samples.get(kind, []), "runc": samples.get("runc", [])}
                section.rows.append(Row(f"{title}, {words}", MS, both, "runc", 0.4))
        pids = forking.call("hold_shims", bundle=str(shims), cache=cache, count=_FORKED)["pids"]
        sizes = shim_memory(pids=pids)
        self._memory.rows.append(
            Row(
                f"{_FORKED} containers, forked by the zygote, average",
                MB,
                {"dockp": [statistics.mean(sizes)]},
                limit=1.5,
            )
        )
        forking.call("hold_shims", bundle=str(shims), cache=cache, count=0)
        return section

    def _open_engines(self) -> None:
        for kind in (Dockp, Docker, Podman):
            say(f"starting {kind.name}")
            engine = kind(self._home / kind.name, self._cgroup)
            self._closing.append(engine.close)
            try:
                engine.prepare(self._image)
                self.versions.append((engine.name, engine.version()))
            except Failure as failure:
                self._turns.failed(failure)
            else:
                self._engines.append(engine)

    def _whole_commands(self) -> Section:
        """`run --rm` from the prompt to the prompt."""
        section = Section(
            "Whole commands",
            "Wall time of one command. dockp runs embedded: no daemon and no zygote, every command a new process. "
            "docker talks to a dockerd that is up.",
            ["dockp", "docker", "podman"],
        )
        for title, options, limit in (
            ("`run --rm --network none busybox true`", ("--rm", "--network", "none"), 1.0),
            ("`run --rm busybox true`", ("--rm",), None),
        ):
            say(title)
            samples = self._each_in_turns(
                partial(_true, options=options),
                rounds=5 if self._quick else 20,
                warm=2,
            )
            section.rows.append(Row(title, MS, samples, "docker", limit))
        return section

    def _memory_of_one(self) -> None:
        say("memory of one shim")

        def measure(engine: Contestant) -> float:
            engine.ok(*engine.run("-d", "--name", "one", *_SLEEP))
            try:
                time.sleep(0.3)
                return statistics.mean(shim_memory(engine.shims))
            finally:
                engine.remove(["one"])

        samples = self._each_in_turns(measure, rounds=1, warm=0)
        self._memory.rows.insert(0, Row("one container, started by its command", MB, samples, limit=9))

    def _fleet(self) -> Section:
        """Fifty containers at a time; with all of them running, `ps` and memory."""
        section = Section(
            f"{_FLEET} containers",
            "`run -d busybox sleep 600` on the default bridge, wall time until the last command has returned; every "
            "one must succeed.",
            ["dockp", "docker", "podman"],
        )
        sizes: Samples = {}
        listing: Samples = {}
        removal: Samples = {}

        def measure(engine: Contestant, clients: int) -> float:
            names = [f"c{number}" for number in range(_FLEET)]
            commands = [engine.run("-d", "--name", name, *_SLEEP) for name in names]
            try:
                seconds = engine.burst(commands, clients)
                running = engine.ok("ps", "-q").split()
                if len(running) != _FLEET:
                    raise Failure(f"{engine.name}: {len(running)} of {_FLEET} containers run")
                if engine.name not in sizes:
                    sizes[engine.name] = [statistics.mean(shim_memory(engine.shims))]
                    listing[engine.name] = [engine.timed("ps") for _ in range(5)]
            except Failure:
                engine.remove(names)
                raise
            removal.setdefault(engine.name, []).append(engine.remove(names))
            return seconds

        for clients in (10, _FLEET):
            title = f"started by {clients} clients at a time" if clients < _FLEET else "started all at once"
            say(f"{_FLEET} containers {title}")
            samples = self._each_in_turns(partial(measure, clients=clients), rounds=1 if self._quick else 2, warm=0)
            section.rows.append(Row(title, SECONDS, samples, "docker", 0.5))
        section.rows.append(Row(f"`ps` with {_FLEET} running", MS, listing, "docker"))
        section.rows.append(Row(f"`rm -f` of all {_FLEET}", SECONDS, removal, "docker"))
        self._memory.rows.append(Row(f"{_FLEET} containers, started by their commands, average", MB, sizes))
        return section

    def _daily(self, section: Section) -> None:
        rounds = 3 if self._quick else 8
        say("exec, stop, rm")
        ready = []
        for engine in self._engines:
            try:
                engine.ok(*engine.run("-d", "--name", "steady", *_SLEEP))
                ready.append(engine)
            except Failure as failure:
                self._turns.failed(failure)
        samples = self._each_in_turns(lambda engine: engine.timed("exec", "steady", "true"), rounds, warm=1)
        section.rows.append(Row("`exec c true`", MS, samples, "docker"))
        for engine in ready:
            engine.remove(["steady"])
        removing: Samples = {}

        def stop(engine: Contestant) -> float:
            engine.ok(*engine.run("-d", "--name", "brief", *_OBEDIENT))
            time.sleep(0.1)  # for its shell to set the trap
            try:
                seconds = engine.timed("stop", "brief")
                removing.setdefault(engine.name, []).append(engine.timed("rm", "brief"))
            except Failure:
                engine.remove(["brief"])
                raise
            return seconds

        section.rows.append(Row("`stop c`", MS, self._each_in_turns(stop, rounds, warm=0), "docker"))
        section.rows.append(Row("`rm c`", MS, removing, "docker"))

    def _import_debian(self, section: Section) -> None:
        if self._debian is None:
            return
        debian = self._debian
        say("importing Debian")
        samples = self._each_in_turns(lambda engine: engine.timed(*engine.import_(debian, "debian")), rounds=1, warm=0)
        size = debian.stat().st_size / 1e6
        section.rows.append(Row(f"import of a Debian tar, {size:.0f} MB", SECONDS, samples, "docker"))

    def _each_in_turns(self, measure: Callable[[Contestant], float], rounds: int, warm: int) -> Samples:
        return self._turns.take({engine.name: partial(measure, engine) for engine in self._engines}, rounds, warm)


def _true(engine: Contestant, options: Sequence[str]) -> float:
    return engine.timed(*engine.run(*options, "busybox", "true"))
