"""Images that a daemon has: taken out and in again, and listed. dockpd beside dockerd."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.contestants import Served
from bench.report import MS, SECONDS, Row, Section
from bench.turns import Turns, say

_LISTED = 1000


class Stored:
    """Measures of daemons that run. Args: home: for archives."""

    def __init__(self, home: Path, engines: Sequence[Served], turns: Turns) -> None:
        self._home = home
        self._engines = engines
        self._turns = turns

    def save_and_load(self, image: str, what: str) -> Section:
        """``image`` is there, and is there afterwards."""
        say(f"docker save and docker load, {what}")
        section = Section(
            "Save and load",
            "`docker save -o` and `docker load -q -i` of the image of the pulls, which is removed between the two. "
            "Wall time; the disk is the same for both, and only dockpd waits for it. dockpd saves layers as they came, "
            "compressed; dockerd keeps them unpacked only, and makes plain ones again.",
            [engine.name for engine in self._engines],
        )
        saves: dict[str, list[float]] = {}
        loads: dict[str, list[float]] = {}

        def both(engine: Served) -> float:
            archive = self._home / "saved.tar"
            saved = engine.timed("save", "-o", str(archive), image)
            engine.ok("rmi", image)
            loaded = engine.timed("load", "-q", "-i", str(archive))
            archive.unlink()
            saves.setdefault(engine.name, []).append(saved)
            loads.setdefault(engine.name, []).append(loaded)
            return saved + loaded

        calls = {engine.name: partial(both, engine) for engine in self._engines}
        together = self._turns.take(calls, rounds=3, warm=0)
        section.rows += [
            Row(f"save, {what}", SECONDS, saves, "docker"),
            Row(f"load, {what}", SECONDS, loads, "docker"),
            Row("both together", SECONDS, together, "docker", 0.7),
        ]
        return section

    def listing(self) -> Section:
        """Of many small images that share a layer."""
        say(f"docker images, of {_LISTED}")
        archive = self._home / "small.tar"
        write_small_images(archive, _LISTED)
        for engine in self._engines:
            engine.ok("load", "-q", "-i", str(archive))
        section = Section(
            "Many images",
            f"{_LISTED} images of a warm daemon, each with a name, a config and a label of its own: wall time.",
            [engine.name for engine in self._engines],
        )
        commands = {engine.name: partial(engine.timed, "images") for engine in self._engines}
        requests = {engine.name: partial(_listed, engine) for engine in self._engines}
        section.rows += [
            Row("`docker images`", MS, self._turns.take(commands, rounds=5, warm=1), limit=150),
            Row("`GET /images/json`", MS, self._turns.take(requests, rounds=5, warm=1), limit=150),
        ]
        return section


def _listed(engine: Served) -> float:
    answer = engine.worker.call("get", at=engine.SOCKET, target="/images/json")
    return float(answer["seconds"])


def write_small_images(archive: Path, count: int) -> None:
    """An archive as docker save writes it, of images ``small:0``, ``small:1`` and so on of one tiny layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    diff_id = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    entries: list[Mapping[str, Any]] = []
    with tarfile.open(archive, "w") as tar:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        add("layer.tar", layer.getvalue())
        for number in range(count):
            config = {
                "architecture": "amd64",
                "os": "linux",
                "created": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
                "config": {"Labels": {"number": str(number)}, "Env": ["PATH=/bin"], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                "history": [{"created_by": "the benchmark"}],
            }
            add(f"{number}.json", json.dumps(config).encode())
            entries.append({"Config": f"{number}.json", "RepoTags": [f"small:{number}"], "Layers": ["layer.tar"]})
        add("manifest.json", json.dumps(entries).encode())
