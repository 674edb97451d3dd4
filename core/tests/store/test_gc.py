"""The collector: what nothing needs goes, and only that."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dockp.images.service import ImageUser
from dockp.spi.errors import NotFound, Unavailable
from dockp_storage_vfs.driver import VfsDriver

Tar = Callable[[Mapping[str, bytes | None]], bytes]


def test_what_a_killed_process_left_half_made_goes_and_what_is_being_made_stays(store: Any) -> None:
    with store.database.write() as connection:
        for id, maker in ((901, 7), (902, store.journal.owner)):
            connection.execute(
                "INSERT INTO snapshots (id, driver, kind, state, maker, labels, created)"
                " VALUES (?, 'vfs', 'active', 'making', ?, '{}', 0)",
                (id, maker),
            )
    driver = VfsDriver(store.path / "vfs", {})
    for id in ("901", "902"):
        driver.create(id, None, {})
    store.collector.tidy()
    assert driver.inventory() == {"902"}


def test_a_driver_that_is_gone_keeps_no_other_from_being_tidied(store: Any) -> None:
    with store.database.write() as connection:
        for id, driver in ((901, "a-driver-that-is-gone"), (902, "vfs")):
            connection.execute(
                "INSERT INTO snapshots (id, driver, kind, state, maker, labels, created)"
                " VALUES (?, ?, 'active', 'removing', 7, '{}', 0)",
                (id, driver),
            )
    opened = store.snapshots._drivers

    def drivers(name: str) -> Any:
        if name == "vfs":
            return opened(name)
        raise Unavailable(f"storage driver {name} is not installed")

    store.snapshots._drivers = drivers
    store.collector.tidy()
    with store.database.read() as connection:
        assert [row[0] for row in connection.execute("SELECT driver FROM snapshots")] == ["a-driver-that-is-gone"]


def test_an_image_that_is_used_loses_nothing(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"a": b"1"})), reference="kept", driver="vfs")
    untagged = store.images.import_(io.BytesIO(make_tar({"a": b"2"})), driver="vfs")
    collected = store.collector.collect()
    assert (collected.images, collected.layers, collected.blobs, collected.bytes) == ((), (), (), 0)
    for kept in (image, untagged):
        assert store.images.config(kept).diff_ids
        assert store.images.unpack(kept, "vfs") is not None


def test_a_removed_image_gives_its_disk_back(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"a": b"1" * 5000})), reference="gone", driver="vfs")
    store.images.unpack(image, "overlay2")
    store.images.remove("gone")
    collected = store.collector.collect()
    assert collected.images == (image.id,)
    assert len(collected.layers) == 2
    assert len(collected.blobs) == 3
    assert collected.bytes > 10_000
    assert list(store.content.walk()) == []
    assert store.snapshots.list() == []
    with store.database.read() as connection:
        for table in ("images", "image_layers", "image_content", "layer_sizes", "tags", "repository_digests"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] == 0, table


def test_an_image_removed_by_force_stays_on_disk_until_its_container_goes(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"a": b"1"})), reference="used", driver="vfs")
    container = store.snapshots.prepare("vfs", store.images.unpack(image, "vfs").id, "c" * 64)
    store.users[image.id] = True
    store.images.remove("used", force=True, used_by=lambda id: [ImageUser(id="c" * 64, running=False)])
    with pytest.raises(NotFound):
        store.images.get(image.id)
    store.collector.collect()
    assert store.content.has(image.id)
    assert store.snapshots.get(container.id).parent is not None
    del store.users[image.id]
    store.collector.collect()
    assert not store.content.has(image.id)
    assert len(store.snapshots.list()) == 2, "the container stands on the layer"
    store.snapshots.remove(container.id)
    store.collector.collect()
    assert store.snapshots.list() == []


def test_a_lease_keeps_blobs_and_layers(store: Any, make_tar: Tar) -> None:
    image = store.images.import_(io.BytesIO(make_tar({"a": b"1"})), reference="leased", driver="vfs")
    with store.leases.hold() as lease:
        lease.add("content", image.id)
        lease.add("layer", image.chain_id)
        store.images.remove("leased")
        collected = store.collector.collect()
        assert collected.layers == ()
        assert len(collected.blobs) == 2
        assert store.content.has(image.id)
        assert store.snapshots.layer("vfs", image.chain_id) is not None
    assert len(store.collector.collect().layers) == 1
    assert not store.content.has(image.id)


def test_layers_shared_with_another_image_stay(store: Any, make_tar: Tar) -> None:
    data = make_tar({"a": b"1"})
    first = store.images.import_(io.BytesIO(data), reference="first", driver="vfs")
    second = store.images.import_(io.BytesIO(data), reference="second", changes=["CMD x"], driver="vfs")
    assert first.chain_id == second.chain_id
    store.images.remove("first")
    collected = store.collector.collect()
    assert collected.layers == ()
    assert len(collected.blobs) == 2
    assert store.images.unpack(second, "overlay2") is not None


def test_a_removed_image_that_comes_back_before_the_collector_is_whole(store: Any, make_tar: Tar) -> None:
    data = make_tar({"a": b"1"})
    image = store.images.import_(io.BytesIO(data), reference="first", driver="vfs")
    with store.leases.hold() as lease:
        lease.add("content", *[digest for digest, _ in store.content.walk()])
        store.images.remove("first")
        store.collector.collect()
        assert store.content.has(image.id)
    store.collector.collect()
    again = store.images.import_(io.BytesIO(data), reference="first", driver="vfs")
    store.collector.collect()
    assert store.images.get("first").id == again.id
    assert store.content.verify(again.id)
