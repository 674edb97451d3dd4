"""The push pipeline: five at a time, the manifest last, and what is recorded afterwards."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import pytest
from attrs import define, field

from dockp.images import records
from dockp.images.documents import OCI_MANIFEST
from dockp.images.reference import parse
from dockp.spi.errors import NotFound, SystemFault, Unavailable
from dockp.spi.images import ImageTarget
from dockp.spi.values import Descriptor

Tar = Callable[[Mapping[str, bytes | None]], bytes]
NAME = parse("registry.test/team/app:1")


@define
class Target(ImageTarget):
    """Keeps what it is given. ``failing``: digests that it does not take. ``gate``: waited for by every blob."""

    blobs: dict[str, bytes] = field(factory=dict)
    manifests: dict[str, bytes] = field(factory=dict)
    order: list[str] = field(factory=list)
    mounts: dict[str, Sequence[str]] = field(factory=dict)
    mountable: set[str] = field(factory=set)
    failing: Callable[[Descriptor], bool] = lambda descriptor: False
    gate: Callable[[], object] = lambda: None
    at_once: int = 0
    most: int = 0
    guard: Any = field(factory=threading.Lock)

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.blobs

    def put(
        self,
        descriptor: Descriptor,
        read: Callable[[int], BinaryIO],
        *,
        mounts: Sequence[str] = (),
        progress: Callable[[int], None] = lambda done: None,
    ) -> str:
        with self.guard:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.mounts[descriptor.digest] = mounts
        self.gate()
        try:
            if self.failing(descriptor):
                raise Unavailable("no room")
            for mount in mounts:
                if mount in self.mountable:
                    return mount
            with read(0) as file:
                data = file.read()
            progress(len(data))
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor.digest
            self.blobs[descriptor.digest] = data
            self.order.append(descriptor.digest)
            return ""
        finally:
            with self.guard:
                self.at_once -= 1

    def put_manifest(self, descriptor: Descriptor, data: bytes, tag: str = "") -> None:
        document = json.loads(data)
        for blob in (document["config"], *document["layers"]):
            assert blob["digest"] in self.blobs or blob.get("urls")
        self.manifests[tag or descriptor.digest] = data


def imported(store: Any, tar: bytes, name: str = str(NAME), **more: Any) -> Any:
    return store.images.import_(io.BytesIO(tar), reference=name, **more)


def test_plain_layers_are_compressed_once(store: Any, make_tar: Tar) -> None:
    image = imported(store, make_tar({"a": b"1" * 100_000}))
    said: list[str] = []
    target = Target()
    (pushed,) = store.images.push(target, NAME, progress=lambda what, done, total: said.append(what))
    short = json.loads(store.content.read(image.id, 10_000))["rootfs"]["diff_ids"][0][7:19]
    assert said == [
        "The push refers to repository [registry.test/team/app]",
        f"{short}: Preparing",
        f"{short}: Pushing",
        f"{short}: Pushed",
        f"1: digest: {pushed.digest} size: {pushed.size}",
    ]
    (layer,) = json.loads(target.manifests["1"])["layers"]
    assert layer["mediaType"].endswith("+gzip")
    assert gzip.decompress(target.blobs[layer["digest"]]) == make_tar({"a": b"1" * 100_000})
    # From now on that is the image: the second push sends nothing, and what nobody needs any more can go.
    with store.database.read() as connection:
        again = records.by_id(connection, image.id)
        assert [one.blob.digest for one in records.layers_of(connection, image.id)] == [layer["digest"]]
    assert again is not None
    assert again.manifest.digest == pushed.digest
    target.order.clear()
    assert [one.digest for one in store.images.push(target, NAME)] == [pushed.digest]
    assert target.order == []
    assert store.images.inspect(str(NAME))["RepoDigests"] == [f"{NAME.name}@{pushed.digest}"]
    store.collector.collect()
    assert {digest for digest, _ in store.content.walk()} == {image.id, pushed.digest, layer["digest"]}
    # The same layer anywhere gives the same bytes.
    other = Target()
    imported(store, make_tar({"a": b"1" * 100_000}), "registry.test/other:1")
    store.images.push(other, parse("registry.test/other:1"))
    assert layer["digest"] in other.blobs


def test_compressed_layers_go_as_they_are(store: Any, make_tar: Tar) -> None:
    data = gzip.compress(make_tar({"a": b"1"}), 1)
    image = imported(store, data)
    target = Target()
    (pushed,) = store.images.push(target, NAME)
    assert pushed.digest == image.manifest.digest
    assert data in target.blobs.values()


def test_at_most_so_many_at_once(store: Any, make_tar: Tar, layered: Any) -> None:
    layered(9)
    barrier = threading.Barrier(3)
    target = Target(gate=lambda: barrier.wait(10) if len(target.order) < 9 else None)
    said: list[str] = []
    store.images.push(target, NAME, at_once=3, progress=lambda what, done, total: said.append(what))
    assert target.most == 3
    assert len([what for what in said if what.endswith("Waiting")]) == 6


@pytest.fixture
def layered(store: Any, make_tar: Tar) -> Callable[[int], Any]:
    """Makes an image of so many layers."""

    def make(count: int) -> Any:
        image = imported(store, make_tar({"0": b"0"}))
        for number in range(1, count):
            image = store.images.commit(
                io.BytesIO(make_tar({str(number): b"1"})),
                parent=image.id,
                process={},
                created_by="",
                message="",
                author="",
                reference=str(NAME),
            )
        return image

    return make


def test_one_failure_ends_the_rest_and_names_nothing(store: Any, layered: Any) -> None:
    image = layered(8)
    with store.database.read() as connection:
        manifest = image.manifest.digest
    target = Target(failing=lambda descriptor: True)
    with pytest.raises(Unavailable, match="no room"):
        store.images.push(target, NAME, at_once=2)
    assert target.manifests == {}
    assert len(target.mounts) < 8
    assert store.images.inspect(str(NAME))["RepoDigests"] == []
    with store.database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM leases").fetchone()[0] == 0
    # What was compressed stays so, and the next push finds it.
    target.failing = lambda descriptor: False
    (pushed,) = store.images.push(target, NAME)
    assert pushed.digest != manifest


def test_blobs_are_looked_for_in_the_repositories_that_have_them(store: Any, make_tar: Tar) -> None:
    imported(store, make_tar({"a": b"1"}), "registry.test/far/base:1")
    for name in ("registry.test/far/base:1", "registry.test/team/near:1", "elsewhere.test/x:1"):
        store.images.tag("registry.test/far/base:1", name)
        store.images.push(Target(), parse(name))
    store.images.tag("registry.test/far/base:1", str(NAME))
    target, said = Target(mountable={"registry.test/far/base"}), []
    target.blobs = dict.fromkeys([store.images.get(str(NAME)).id], b"")
    with pytest.raises(AssertionError):  # it was not really there
        store.images.push(target, NAME, progress=lambda what, done, total: said.append(what))
    assert list(target.mounts.values()) == [["registry.test/team/near", "registry.test/far/base"]]
    assert said[-1].endswith(": Mounted from far/base")


def test_foreign_layers_stay_where_they_are(store: Any, make_tar: Tar) -> None:
    image = imported(store, gzip.compress(make_tar({"a": b"1"})))
    document = json.loads(store.content.read(image.manifest.digest, 10_000))
    document["layers"][0] |= {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "urls": ["https://example.org/layer"],
    }
    with store.leases.hold() as lease:
        manifest = store.content.add(json.dumps(document).encode(), OCI_MANIFEST, lease=lease)
        with store.database.write() as connection:
            connection.execute(
                "UPDATE images SET manifest_digest = ?, manifest_size = ?", (manifest.digest, manifest.size)
            )
            connection.execute("INSERT INTO image_content VALUES (?, ?)", (image.id, manifest.digest))
    target, said = Target(), []
    store.images.push(target, NAME, progress=lambda what, done, total: said.append(what))
    assert said[2].endswith(": Skipped foreign layer")
    assert list(target.blobs) == [image.id]


def test_what_the_store_has_lost_is_not_pushed(store: Any, make_tar: Tar) -> None:
    image = imported(store, gzip.compress(make_tar({"a": b"1"})))
    with store.database.read() as connection:
        (layer,) = records.layers_of(connection, image.id)
    store.content.delete(layer.blob.digest)
    with pytest.raises(SystemFault, match="cannot be pushed: the content store lacks"):
        store.images.push(Target(), NAME)


def test_names_that_are_not_here(store: Any, make_tar: Tar) -> None:
    with pytest.raises(NotFound, match="An image does not exist locally with the tag: registry"):
        store.images.push(Target(), NAME)
    imported(store, make_tar({"a": b"1"}))
    with pytest.raises(NotFound, match="tag does not exist: registry"):
        store.images.push(Target(), parse("registry.test/team/app:2"))
