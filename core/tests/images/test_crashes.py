"""kill -9 at every step of getting and removing images: only garbage is left, and the collector finds it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dockp.spi.errors import NotFound

TESTS = Path(__file__).parent.parent
Tar = Callable[[Mapping[str, bytes | None]], bytes]

# For each number on standard input, a child counts every change of the outside world, and dies before that one. It
# answers with the child's wait status; forking saves starting an interpreter for every step.
SCRIPT = """
import contextlib, os, signal, sys, threading, traceback
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import open_store
from dockp.archive import apply, compression
from dockp.images import arrival, layers
from dockp.images.sources.oci_layout import OciLayoutSource
from dockp.store import gc
from dockp.store.database import Database
from dockp_storage_overlay2.driver import Overlay2Driver
from dockp_storage_vfs.driver import VfsDriver

left = 0
turn = threading.Lock()

def step():
    global left
    with turn:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

def counted(owner, name):
    original = getattr(owner, name)
    def wrapper(*args, **named):
        step()
        return original(*args, **named)
    setattr(owner, name, wrapper)

original_write = Database.write

@contextlib.contextmanager
def write(self):
    outer = self._connection().in_transaction
    with original_write(self) as connection:
        yield connection
        if not outer:
            step()  # before the commit
    if not outer:
        step()

def run():
    store = open_store(Path({root!r}))
    with store.database.read():
        pass
    for owner, name in (
        (os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "unlink"), (Path, "rename"), (Path, "unlink"),
        (Path, "mkdir"), (VfsDriver, "create"), (VfsDriver, "seal"), (VfsDriver, "remove"),
        (Overlay2Driver, "create"), (Overlay2Driver, "seal"), (Overlay2Driver, "remove"), (Overlay2Driver, "rebase"),
        (os, "write"), (os, "symlink"), (os, "open"),
    ):
        counted(owner, name)
    Database.write = write
    {action}

for line in sys.stdin:
    left = int(line)
    child = os.fork()
    if child == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(os.waitpid(child, 0)[1], flush=True)
"""
PULL = "store.images.add_from(OciLayoutSource, {layout!r}, tag='crash', driver={driver!r})"
IMPORT = "store.images.import_(open({tar!r}, 'rb'), reference='crash', driver={driver!r})"
REMOVE = "store.images.remove('crash'); store.collector.collect()"


class Dying:
    """Runs an action up to a step, again and again."""

    def __init__(self, store: Any, action: str) -> None:
        script = SCRIPT.format(tests=str(TESTS), root=str(store.path), action=action)
        self._server = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def at(self, step: int) -> bool:
        """Whether it came to its end."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{step}\n")
        status = os.waitstatus_to_exitcode(int(self._server.stdout.readline()))
        assert status in (0, -signal.SIGKILL)
        return status == 0

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()


def check_whole_or_absent(store: Any, driver: str = "vfs") -> bool:
    """The tag leads to a complete image or nowhere; whether it is there. Left may be what a pull can go on from."""
    store.collector.collect()
    try:
        image = store.images.get("crash")
    except NotFound:
        assert store.images.list(all=True) == []
        assert list(store.content.walk()) == []
        assert store.snapshots.list() == []
        present = False
    else:
        assert all(store.content.verify(digest) for digest, _ in store.content.walk())
        assert store.images.unpack(image, driver) is not None
        present = True
    found = store.snapshots.reconcile(driver)
    assert (found.removed, found.missing) == ((), ())
    for folder in ("ingest", "scratch"):
        path = store.path / "content" / folder
        assert not path.exists() or [entry for entry in path.iterdir() if len(entry.name) != 64] == []
    with store.database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM leases").fetchone()[0] == 0
    return present


@pytest.mark.parametrize("driver", ["vfs", "overlay2", ""])
@pytest.mark.parametrize("kind", ["pull", "import"])
def test_a_killed_pull_or_import_leaves_a_whole_image_or_none(
    store: Any, make_tar: Tar, tmp_path: Path, driver: str, kind: str
) -> None:
    layers = [make_tar({"a": b"1"}), make_tar({"b": b"2"})]
    (tmp_path / "one.tar").write_bytes(layers[0])
    write_layout(tmp_path / "layout", layers)
    action = (PULL if kind == "pull" else IMPORT).format(
        layout=str(tmp_path / "layout"), tar=str(tmp_path / "one.tar"), driver=driver
    )
    outcomes: list[bool] = []
    with Dying(store, action) as dying:
        for step in range(1000):
            finished = dying.at(step)
            outcomes.append(check_whole_or_absent(store, driver or "vfs"))
            if finished:
                break
            if outcomes[-1]:
                store.images.remove("crash")
                store.collector.collect()
    assert outcomes[-1], "undisturbed it succeeds"
    assert outcomes[0] is False
    assert len(outcomes) > 15, "the steps were really counted"


def test_a_killed_removal_leaves_a_whole_image_or_none(store: Any, make_tar: Tar) -> None:
    outcomes: list[bool] = []
    with Dying(store, REMOVE) as dying:
        for step in range(1000):
            if not outcomes or not outcomes[-1]:
                store.images.import_(io.BytesIO(make_tar({"a": b"1"})), reference="crash", driver="vfs")
            finished = dying.at(step)
            outcomes.append(check_whole_or_absent(store))
            if finished:
                break
    assert outcomes[0] is True
    assert outcomes[-1] is False
    assert len(outcomes) > 8


def write_layout(path: Path, layers: list[bytes]) -> None:
    import hashlib
    import json

    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    entries = [put(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [entry["digest"] for entry in entries]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": entries,
    }
    entry = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
