"""dockpd beside dockerd, with the same clients."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.contestants import Docker, Dockpd, Failure, Served, shim_memory
from bench.report import MB, MS, SECONDS, Row, Section
from bench.turns import Samples, Turns, say

_CROWD = 100
_CLIENTS = 10
_KNOWN = 200
_SLEEP = ("busybox", "sleep", "600")
_NO_NETWORK = ("--network", "none")
_RESTS = 35.0
"""Seconds after which a daemon has given back what it needed while it was busy."""


class Daemons:
    """One run. Attributes: versions: (name, version) of the daemons, and of the command."""

    def __init__(self, home: Path, image: Path, cgroup: str, turns: Turns, quick: bool) -> None:
        self._home = home
        self._image = image
        self._cgroup = cgroup
        self._turns = turns
        self._quick = quick
        self._engines: list[Served] = []
        self.versions: list[tuple[str, str]] = []
        names = ["dockpd", "docker"]
        self._requests = Section(
            "The daemon: requests",
            "dockpd beside dockerd, each warm, with the same docker command; wall time of one command, or of one "
            "container's life through docker-py. `dockp run` is our own command with dockpd, beside docker's with "
            "dockerd.",
            names,
        )
        self._crowd = Section(
            f"The daemon: {_CROWD} containers",
            f"`docker run -d busybox sleep 600`, {_CLIENTS} clients at a time, on the default bridge; then one "
            "`docker rm -f` of all. Wall time.",
            names,
        )
        self._memory = Section(
            "The daemon: memory",
            "Proportional set size: of the daemon with all its processes but for those of containers (zygote, spare "
            "shim; containerd), and of the process that stays with each container.",
            names,
        )
        self._start = Section(
            "The daemon: start",
            f"From its start to its first answer, with {_KNOWN} containers known.",
            names,
        )

    def all(self) -> list[Section]:
        """Every section, in the order in which they are shown."""
        self._open()
        self._requests_in_turns()
        self._memory_of_few()
        self._crowds()
        self._starts()
        return [self._requests, self._crowd, self._memory, self._start]

    def close(self) -> None:
        for engine in self._engines:
            engine.close()

    def _open(self) -> None:
        for kind in (Dockpd, Docker):
            say(f"starting {kind.name}")
            engine = kind(self._home / f"served-{kind.name}", self._cgroup)
            self._engines.append(engine)
            engine.prepare(self._image)
            engine.ok("run", "--rm", "busybox", "true")
            self.versions.append((f"{engine.name}, for the daemons", engine.version()))
        self.versions.append(("docker's command", self._engines[0].ok("--version").split()[2].rstrip(",")))

    # --- the parts

    def _requests_in_turns(self) -> None:
        rounds = 8 if self._quick else 25
        bare, bridged = ("run", "--rm", *_NO_NETWORK, "busybox", "true"), ("run", "--rm", "busybox", "true")
        for command, limit, own in ((bare, 0.25, 0.4), (bridged, 0.22, 0.4)):
            samples = self._commands(command, rounds)
            self._row(f"`docker {' '.join(command)}`", MS, samples, limit)
            self._row(f"`dockp {' '.join(command)}`", MS, samples | {"dockpd": samples.get("dockp", [])}, own)
        for engine in self._engines:
            engine.ok("run", "-d", "--name", "steady", *_SLEEP)
        self._row(
            "`docker exec c true`", MS, self._each(lambda engine: engine.timed("exec", "steady", "true"), rounds), 0.4
        )
        for engine in self._engines:
            engine.remove(["steady"])
        title = "create, start, wait, remove by docker-py"
        self._row(title, MS, self._each(lambda engine: _life(engine), rounds), 0.15)

    def _commands(self, command: Sequence[str], rounds: int) -> Samples:
        """docker's command with each daemon, and our own with ours, as "dockp"."""
        say(f"docker {' '.join(command)}")
        calls: dict[str, Callable[[], float]] = {}
        for engine in self._engines:
            calls[engine.name] = partial(engine.timed, *command)
            if isinstance(engine, Dockpd):
                calls["dockp"] = partial(engine.own, *command)
        return self._turns.take(calls, rounds, warm=2)

    def _memory_of_few(self) -> None:
        """Idle, and one container."""
        say("memory when idle")
        time.sleep(1 if self._quick else _RESTS)
        self._row("idle, with one image, after the requests above", MB, self._each(Served.idle_memory, 1, 0), 0.6)
        say("memory of one shim")

        def one(engine: Served) -> float:
            engine.ok("run", "-d", "--name", "one", *_SLEEP)
            try:
                time.sleep(0.3)
                return statistics.mean(shim_memory(engine.shims))
            finally:
                engine.remove(["one"])

        self._row("the shim of one container", MB, self._each(one, 3, 0), 0.4)

    def _crowds(self) -> None:
        say(f"{_CROWD} containers by {_CLIENTS} clients")
        starts: Samples = {}
        ends: Samples = {}
        shims: Samples = {}
        daemons: Samples = {}

        def crowd(engine: Served) -> float:
            names = [f"c{number}" for number in range(_CROWD)]
            seconds = engine.burst([["run", "-d", "--name", name, *_SLEEP] for name in names], _CLIENTS)
            running = engine.ok("ps", "-q").split()
            if len(running) != _CROWD:
                raise Failure(f"{engine.name}: {len(running)} of {_CROWD} containers run")
            if engine.name not in shims:
                shims[engine.name] = [statistics.mean(shim_memory(engine.shims))]
                daemons[engine.name] = [engine.idle_memory()]
            starts.setdefault(engine.name, []).append(seconds)
            removal = engine.remove(names)
            ends.setdefault(engine.name, []).append(removal)
            return seconds + removal

        both = self._each(crowd, 1 if self._quick else 2, 0)
        self._crowd.rows += [
            Row("`docker run -d` of all", SECONDS, starts, "docker"),
            Row("`docker rm -f` of all", SECONDS, ends, "docker"),
            Row("both together", SECONDS, both, "docker", 0.2),
        ]
        self._row(f"a shim while {_CROWD} run, average", MB, shims, 0.4)
        self._row(f"the daemon while {_CROWD} run", MB, daemons, None)

    def _starts(self) -> None:
        say(f"start with {_KNOWN} containers")
        for engine in self._engines:
            engine.sdk("sdk_create", count=_KNOWN)
        listed: Samples = {}

        def start(engine: Served) -> float:
            engine.stop()
            answer = engine.start()
            listed.setdefault(engine.name, []).append(float(answer["listed"]))
            return float(answer["seconds"])

        samples = self._each(start, 3 if self._quick else 5, 0)
        self._start.rows += [
            Row("ready to answer", SECONDS, samples, limit=0.5),
            Row("has listed all containers", SECONDS, listed, "docker"),
        ]
        self._row(f"idle, with {_KNOWN} containers known", MB, self._each(Served.idle_memory, 1, 0), 0.6)

    # ---

    def _each(self, measure: Callable[[Served], float], rounds: int, warm: int = 1) -> Samples:
        return self._turns.take({engine.name: partial(measure, engine) for engine in self._engines}, rounds, warm)

    def _row(self, title: str, unit: str, samples: Samples, limit: float | None) -> None:
        section = self._memory if unit == MB else self._requests
        section.rows.append(Row(title, unit, samples, "docker", limit))


def _life(engine: Served) -> float:
    answer = engine.sdk("sdk_life")
    if answer["code"] != 0:
        raise Failure(f"{engine.name}: a container of docker-py ended with {answer['code']}")
    return float(answer["seconds"])
