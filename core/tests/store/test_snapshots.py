"""The snapshot service over real drivers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dockp.spi.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, SystemFault

TESTS = Path(__file__).parent.parent
DRIVERS = pytest.mark.parametrize("driver", ["vfs", "overlay2"])


def put(store: Any, driver: str, chain: str, parent: Any, name: str) -> Any:
    def fill(snapshot: Any, storage: Any) -> None:
        changes = storage.changes(snapshot.key)
        path = changes.path if changes is not None else storage.mounts(snapshot.key)[0].source
        (Path(path) / name).write_text(name)

    return store.snapshots.build_layer(driver, chain, parent.id if parent else None, fill)


@DRIVERS
def test_layers_stand_on_each_other_and_a_container_on_top(store: Any, driver: str) -> None:
    base = put(store, driver, "sha256:a", None, "one")
    top = put(store, driver, "sha256:b", base, "two")
    snapshot = store.snapshots.prepare(driver, top.id, "container")
    assert [s.id for s in store.snapshots.list(driver)] == [base.id, top.id, snapshot.id]
    assert (base.kind, top.kind, snapshot.kind) == ("committed", "committed", "active")
    assert store.snapshots.layer(driver, "sha256:b") == top
    assert store.snapshots.owned_by("container") == [snapshot]
    assert store.snapshots.usage(top.id).size > 0
    assert store.snapshots.usage(snapshot.id).inodes >= 0
    assert store.snapshots.mounts(snapshot.id)
    for id in (snapshot.id, top.id, base.id):
        store.snapshots.remove(id)
    assert store.snapshots.list() == []
    assert store.snapshots.reconcile(driver).removed == ()


def test_a_parent_is_not_removed_before_its_child(store: Any) -> None:
    base = put(store, "vfs", "sha256:a", None, "one")
    child = store.snapshots.prepare("vfs", base.id, "c")
    with pytest.raises(FailedPrecondition, match=f"snapshot {base.id} is the parent of snapshot {child.id}"):
        store.snapshots.remove(base.id)
    store.snapshots.remove(child.id)
    store.snapshots.remove(base.id)
    store.snapshots.remove(base.id)
    with pytest.raises(NotFound, match="no such snapshot"):
        store.snapshots.get(base.id)


def test_only_a_ready_layer_of_the_same_driver_can_be_a_parent(store: Any) -> None:
    active = store.snapshots.prepare("vfs", None, "c")
    with pytest.raises(InvalidArgument, match="still writable"):
        store.snapshots.prepare("vfs", active.id, "d")
    layer = put(store, "vfs", "sha256:a", None, "one")
    with pytest.raises(InvalidArgument, match="in storage driver vfs, not in overlay2"):
        store.snapshots.prepare("overlay2", layer.id, "d")
    with pytest.raises(NotFound, match="no such snapshot: 999"):
        store.snapshots.prepare("vfs", 999, "d")


def test_ids_are_never_used_again(store: Any) -> None:
    first = store.snapshots.prepare("vfs", None, "c")
    store.snapshots.remove(first.id)
    assert store.snapshots.prepare("vfs", None, "c").id > first.id


def test_an_active_snapshot_becomes_a_layer_once(store: Any) -> None:
    snapshot = store.snapshots.prepare("vfs", None, "c")
    layer = store.snapshots.commit(snapshot.id, "sha256:a")
    assert (layer.id, layer.kind, layer.owner) == (snapshot.id, "committed", None)
    with pytest.raises(FailedPrecondition, match="committed already"):
        store.snapshots.commit(snapshot.id, "sha256:b")
    other = store.snapshots.prepare("vfs", None, "c")
    with pytest.raises(AlreadyExists, match="has layer sha256:a already"):
        store.snapshots.commit(other.id, "sha256:a")
    assert store.snapshots.get(other.id).kind == "active"


@DRIVERS
def test_a_layer_that_fails_to_fill_leaves_nothing(store: Any, driver: str) -> None:
    def fill(snapshot: Any, storage: Any) -> None:
        raise InvalidArgument("bad layer")

    with pytest.raises(InvalidArgument, match="bad layer"):
        store.snapshots.build_layer(driver, "sha256:a", None, fill)
    assert store.snapshots.layer(driver, "sha256:a") is None
    assert store.snapshots.reconcile(driver).removed == ()
    with store.database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM snapshots").fetchone()[0] == 0


def test_an_unknown_option_leaves_nothing(store: Any) -> None:
    with pytest.raises(InvalidArgument):
        store.snapshots.prepare("vfs", None, "c", {"nonsense": "1"})
    assert store.snapshots.owned_by("c") == []


def test_a_driver_that_cannot_remove_now_leaves_it_to_reconcile(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dockp_storage_vfs.driver import VfsDriver

    def refuse(*_: object) -> None:
        raise OSError(16, "Device or resource busy", "/somewhere")

    snapshot = store.snapshots.prepare("vfs", None, "c")
    with monkeypatch.context() as patch:
        patch.setattr(VfsDriver, "remove", refuse)
        with pytest.raises(SystemFault, match="storage driver vfs: Device or resource busy: /somewhere"):
            store.snapshots.remove(snapshot.id)
        patch.setattr(VfsDriver, "create", refuse)
        with pytest.raises(SystemFault, match="Device or resource busy"):
            store.snapshots.prepare("vfs", None, "d")
    assert store.snapshots.list() == []
    assert str(snapshot.id) in store.snapshots.reconcile("vfs").removed
    with store.database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM snapshots").fetchone()[0] == 0


def test_a_layer_can_be_made_anew_while_the_old_one_is_still_being_freed(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dockp_storage_vfs.driver import VfsDriver

    def refuse(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    old = put(store, "vfs", "sha256:a", None, "one")
    with monkeypatch.context() as patch:
        patch.setattr(VfsDriver, "remove", refuse)
        with pytest.raises(SystemFault):
            store.snapshots.remove(old.id)
    new = put(store, "vfs", "sha256:a", None, "one")
    assert new.id != old.id
    assert store.snapshots.reconcile("vfs").removed == (old.key,)
    assert store.snapshots.layer("vfs", "sha256:a") == new


def test_reconcile_removes_the_unknown_and_reports_the_missing(store: Any) -> None:
    from dockp_storage_vfs.driver import VfsDriver

    layer = put(store, "vfs", "sha256:a", None, "one")
    kept = store.snapshots.prepare("vfs", None, "c")
    driver = VfsDriver(store.path / "vfs", {})
    driver.create("777", None, {})
    driver.remove(layer.key)
    found = store.snapshots.reconcile("vfs")
    assert found.removed == ("777",)
    assert [snapshot.id for snapshot in found.missing] == [layer.id]
    assert driver.inventory() == {kept.key}


def test_many_threads_that_want_one_layer_make_it_once(store: Any) -> None:
    made: list[int] = []

    def fill(snapshot: Any, storage: Any) -> None:
        made.append(snapshot.id)

    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(store.snapshots.build_layer("vfs", "sha256:a", None, fill).id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert got == made * 8


def test_many_processes_prepare_and_remove_side_by_side(store: Any) -> None:
    layer = put(store, "vfs", "sha256:a", None, "one")
    script = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from conftest import open_store
store = open_store(Path({str(store.path)!r}))
for turn in range(5):
    store.snapshots.remove(store.snapshots.prepare("vfs", {layer.id}, "gone").id)
store.snapshots.prepare("vfs", {layer.id}, "kept")
"""
    children = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(6)]
    assert [child.wait() for child in children] == [0] * 6
    assert len(store.snapshots.owned_by("kept")) == 6
    assert store.snapshots.owned_by("gone") == []
    found = store.snapshots.reconcile("vfs")
    assert (found.removed, found.missing) == ((), ())


CRASH = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import open_store
from dockp_storage_vfs.driver import VfsDriver
step, verb, before = {step}, {verb!r}, {before}
store = open_store(Path({root!r}))
original = getattr(VfsDriver, verb)
def dying(self, *rest):
    if not before:
        original(self, *rest)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(VfsDriver, verb, dying)
if step == "prepare":
    store.snapshots.prepare("vfs", None, "c")
elif step == "layer":
    store.snapshots.build_layer("vfs", "sha256:a", None, lambda snapshot, storage: None)
else:
    store.snapshots.remove(store.snapshots.owned_by("victim")[0].id)
"""


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("step", "verb"), [("prepare", "create"), ("layer", "create"), ("layer", "seal"), ("remove", "remove")]
)
def test_a_process_killed_around_a_driver_verb_leaves_only_what_reconcile_removes(
    store: Any, step: str, verb: str, before: bool
) -> None:
    store.snapshots.prepare("vfs", None, "victim")
    script = CRASH.format(tests=str(TESTS), step=repr(step), verb=verb, before=before, root=str(store.path))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert store.snapshots.layer("vfs", "sha256:a") is None
    store.snapshots.reconcile("vfs")
    with store.database.read() as connection:
        rows = connection.execute("SELECT owner FROM snapshots").fetchall()
    assert [row["owner"] for row in rows] == ([] if step == "remove" else ["victim"])
    again = store.snapshots.reconcile("vfs")
    assert (again.removed, again.missing) == ((), ())


def test_reconcile_leaves_alone_what_another_process_is_making(store: Any) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from conftest import open_store
store = open_store(Path({str(store.path)!r}))
def fill(snapshot, storage):
    print("ready", flush=True)
    sys.stdin.read()
store.snapshots.build_layer("vfs", "sha256:a", None, fill)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert store.snapshots.reconcile("vfs").removed == ()
        with pytest.raises(FailedPrecondition, match="being made by another process"):
            store.snapshots.remove(1)
        child.communicate()
    assert child.returncode == 0
    assert store.snapshots.layer("vfs", "sha256:a") is not None
