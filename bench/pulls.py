"""Pulls, and what is done with images then: dockpd beside dockerd, each with a registry on its own loopback over the
same blobs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.contestants import Docker, Dockpd, Served
from bench.report import MB, SECONDS, Row, Section
from bench.stored import Stored
from bench.turns import Turns, say

_REGISTRY = "127.0.0.1:5000"
_MANY, _ONE = f"{_REGISTRY}/many:1", f"{_REGISTRY}/one:1"
_LAYERS = 10
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Pulls:
    """One run. ``debian``: the tar of a root file system, cut into layers. Attributes: versions: as of `Daemons`."""

    def __init__(self, home: Path, debian: Path, cgroup: str, turns: Turns) -> None:
        self._home = home
        self._debian = debian
        self._cgroup = cgroup
        self._turns = turns
        self._engines: list[Served] = []
        self.versions: list[tuple[str, str]] = []
        names = ["dockpd", "docker"]
        size = debian.stat().st_size // 10**6
        self._section = Section(
            "Pulls",
            f"`docker pull -q` with dockpd and with dockerd, from a registry on loopback, without the image before: a "
            f"Debian of {size} MB unpacked, in {_LAYERS} layers and in one. Wall time; the disk is the same for both, "
            "and only dockpd waits for it.",
            names,
        )
        self._memory = Section(
            "Pulls: memory", "The most that the daemon's own process ever had, after these pulls: resident.", names
        )

    def all(self) -> list[Section]:
        """Every section, in the order in which they are shown."""
        self._open()
        for title, image, limit in (
            (f"{_LAYERS} layers", _MANY, 0.6),
            ("one layer", _ONE, 0.9),
        ):
            say(f"docker pull, {title}")
            calls = {engine.name: partial(self._pull, engine, image) for engine in self._engines}
            samples = self._turns.take(calls, rounds=3, warm=0)
            self._section.rows.append(Row(title, SECONDS, samples, rival="docker", limit=limit))
        peaks = {engine.name: [_peak(engine.pid)] for engine in self._engines}
        self._memory.rows.append(Row("at most", MB, peaks, limit=150))
        for engine in self._engines:
            engine.ok("pull", "-q", _MANY)
        stored = Stored(self._home, self._engines, self._turns)
        return [self._section, self._memory, stored.save_and_load(_MANY, f"{_LAYERS} layers"), stored.listing()]

    def close(self) -> None:
        for engine in self._engines:
            engine.close()

    def _open(self) -> None:
        say("making images to pull")
        store = self._home / "registry"
        many, one = self._home / "many", self._home / "one"
        _write_image(many, _cut(self._debian, _LAYERS))
        _write_image(one, [self._debian.read_bytes()])
        config = self._home / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {store}}}}}\n"
            f"http: {{addr: '{_REGISTRY}'}}\n"
        )
        for kind in (Dockpd, Docker):
            engine = kind(self._home / f"pulling-{kind.name}", self._cgroup)
            self._engines.append(engine)
            engine.start()
            # It ends with the namespaces of the run.
            _in(engine, "sh", "-c", f"setsid docker-registry serve {config} >/dev/null 2>&1 </dev/null &")
            time.sleep(1)
            if len(self._engines) == 1:
                for folder, name in ((many, _MANY), (one, _ONE)):
                    _in(engine, "skopeo", "copy", "-q", "--dest-tls-verify=false", f"dir:{folder}", f"docker://{name}")

    def _pull(self, engine: Served, image: str) -> float:
        seconds = engine.timed("pull", "-q", image)
        engine.ok("rmi", image)
        return seconds


def _in(engine: Served, *argv: str) -> None:
    """Run a command where the engine is."""
    answer = engine.worker.call("run", argv=list(argv), env=engine.env, timeout=120)
    if answer["code"] != 0:
        raise RuntimeError(f"{argv[0]}: exit {answer['code']}: {answer['output']}")


def _cut(tar: Path, count: int) -> list[bytes]:
    """A root file system as several layers, each with the directories that its files are in."""
    with tarfile.open(tar) as whole:
        members = [member for member in whole.getmembers() if not member.islnk()]
        directories = {member.name: member for member in members if member.isdir()}
        share = sum(member.size for member in members) / count
        layers: list[bytes] = []
        pending = iter(members)
        member = next(pending, None)
        taken = 0
        while member is not None:
            out, seen = io.BytesIO(), set()
            with tarfile.open(fileobj=out, mode="w") as layer:
                while member is not None and (taken < share * (len(layers) + 1) or len(layers) == count - 1):
                    parts = member.name.split("/")
                    for name in ("/".join(parts[:end]) for end in range(1, len(parts) + 1)):
                        if name in directories and name not in seen:
                            seen.add(name)
                            layer.addfile(directories[name])
                    if not member.isdir():
                        layer.addfile(member, whole.extractfile(member) if member.isreg() else None)
                    taken += member.size
                    member = next(pending, None)
            layers.append(out.getvalue())
    return layers


def _write_image(folder: Path, layers: Sequence[bytes]) -> None:
    """Put an image into a directory as skopeo's ``dir:`` has it."""
    folder.mkdir()

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (folder / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    described = [put(gzip.compress(layer, 6, mtime=0), _LAYER) for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]},
        "history": [],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": put(json.dumps(config).encode(), _CONFIG),
        "layers": described,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "version").write_text("Directory Transport Version: 1.1\n")


def _peak(pid: int) -> float:
    """Bytes that a process had resident at most. Source: proc(5), ``VmHWM``."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmHWM")
