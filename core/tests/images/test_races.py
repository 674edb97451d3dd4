"""Many processes at once: pulls, imports, removals and collections on one root."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dockp.images.arrival import Arrival
from dockp.images.records import Image

Tar = Callable[[Mapping[str, bytes | None]], bytes]
TESTS = Path(__file__).parent.parent
SCRIPT = """
import io, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import open_store
from dockp.spi.errors import NotFound
store = open_store(Path({root!r}))
kind, turns = sys.argv[1], 25
data = Path({tar!r}).read_bytes()
for turn in range(turns):
    if kind == "collect":
        store.collector.collect()
        store.snapshots.reconcile("vfs")
        continue
    image = store.images.import_(io.BytesIO(data), reference=kind, driver="vfs")
    assert store.images.unpack(store.images.get(kind), "vfs") is not None
    assert store.content.verify(image.id)
    if turn < turns - 1:
        store.images.remove(kind)
"""


def test_images_that_come_and_go_beside_the_collector_are_always_whole(
    store: Any, make_tar: Tar, tmp_path: Path
) -> None:
    """All of them are the same layer, which is removed and needed again all the time."""
    tar = tmp_path / "layer.tar"
    tar.write_bytes(make_tar({"a": b"1" * 10000}))
    script = SCRIPT.format(tests=str(TESTS), root=str(store.path), tar=str(tar))
    names = ["one", "two", "three", "collect", "collect"]
    children = [
        subprocess.Popen([sys.executable, "-c", script, name], stderr=subprocess.PIPE, text=True) for name in names
    ]
    for child in children:
        error = child.communicate()[1]
        assert child.returncode == 0, error
    assert {tag for row in store.images.list() for tag in row["RepoTags"]} == {
        "one:latest",
        "two:latest",
        "three:latest",
    }
    store.collector.collect()
    assert len(store.snapshots.list()) == 1
    for digest, _ in store.content.walk():
        assert store.content.verify(digest)
    for name in ("one", "two", "three"):
        store.images.remove(name)
    store.collector.collect()
    assert list(store.content.walk()) == []
    assert store.snapshots.list() == []


def test_an_import_may_run_in_many_threads(store: Any, make_tar: Tar) -> None:
    from concurrent.futures import ThreadPoolExecutor

    tars = [make_tar({"a": str(number % 3).encode()}) for number in range(12)]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda data: store.images.import_(io.BytesIO(data), driver="vfs"), tars))
    assert len({image.chain_id for image in images}) == 3
    assert len(store.snapshots.list()) == 3


def test_the_collector_takes_nothing_from_an_image_about_to_be_recorded(
    store: Any, make_tar: Tar, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Arrival._record

    def collect_first(self: Arrival, *rest: Any) -> Image:
        collected = store.collector.collect()
        assert (collected.blobs, collected.layers) == ((), ())
        return record(self, *rest)

    monkeypatch.setattr(Arrival, "_record", collect_first)
    image = store.images.import_(io.BytesIO(make_tar({"a": b"1"})), reference="x", driver="vfs")
    assert all(store.content.verify(digest) for digest, _ in store.content.walk())
    assert store.snapshots.layer("vfs", image.chain_id) is not None
