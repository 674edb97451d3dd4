"""How images go out: to the registry that their name says, blobs first and the manifest last.

Blobs go as they were received, so that a pulled image keeps its digest wherever it is pushed to. Layers of images that
were made here may be plain tars; they are compressed before the first push, and the image is recorded anew with them,
so that every later push, and `save`, have the same digest. Until the manifest is stored nobody sees anything of a push,
and the next one finds what an earlier one that was cut had stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

from attrs import evolve, frozen

from dockp.images import records
from dockp.images.documents import DOCUMENT_LIMIT, Index, Manifest, descriptor_json, encode, parse_manifest
from dockp.images.layers import Progress
from dockp.images.records import Image, Layer
from dockp.images.reference import Reference, parse
from dockp.spi.errors import SystemFault, Unavailable
from dockp.spi.images import ImageTarget
from dockp.spi.values import Descriptor
from dockp.store.content import CHUNK, ContentStore
from dockp.store.database import Database
from dockp.store.leases import Lease, Leases

_COMPRESSED = {
    "application/vnd.oci.image.layer.v1.tar": "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
_T = TypeVar("_T")


@frozen(kw_only=True)
class Pushed:
    """What a registry has under a tag now. ``size``: of the manifest, in bytes."""

    tag: str
    digest: str
    size: int


class Pusher:
    """Pushes images of one data root; made for each use. Args: at_once: layers that are uploaded at the same time."""

    def __init__(self, database: Database, content: ContentStore, leases: Leases, at_once: int) -> None:
        self._database = database
        self._content = content
        self._leases = leases
        self._at_once = at_once
        self._failure: BaseException | None = None

    def push(self, target: ImageTarget, name: Reference, image: Image, say: Progress, *, whole: bool = True) -> Pushed:
        """Store ``image`` under ``name``, which has a tag. What came with an index, and is here for each platform that
        this lists, goes with it if it is to be ``whole``.

        Raises: what the target raises; SystemFault when the content store lacks something.
        """
        assert name.tag is not None
        with self._leases.hold() as lease, ThreadPoolExecutor(self._at_once, thread_name_prefix="push") as pool:
            found = self._index(image, lease) if whole else None
            if found is None:
                root, data = self._store(target, name, image, say, lease, pool)
            else:
                root, data, images = found
                for one in images:
                    target.put_manifest(*self._store(target, name, one, say, lease, pool))
            target.put_manifest(root, data, name.tag)
        with self._database.write() as connection:
            named = records.by_tag(connection, str(name))
            if named is not None and named.id == image.id:  # and not the same for another platform
                records.set_digest(connection, name.name, root.digest, image.id)
        return Pushed(tag=name.tag, digest=root.digest, size=root.size)

    def _index(self, image: Image, lease: Lease) -> tuple[Descriptor, bytes, Sequence[Image]] | None:
        """The index that an image came with, and the images of all its platforms; None when not all are here."""
        with self._database.read() as connection:
            images = [image, *records.siblings_of(connection, image.id)]
        by_manifest = {one.manifest.digest: one for one in images}
        for digest, data, index in self._indexes(image, lease):
            if {entry.digest for entry in index.manifests} <= by_manifest.keys():
                root = Descriptor(media_type=index.media_type, digest=digest, size=len(data))
                return root, data, [by_manifest[entry.digest] for entry in index.manifests]
        return None

    def _indexes(self, image: Image, lease: Lease) -> Iterator[tuple[str, bytes, Index]]:
        """Those that the image, as it is, is listed in, and that a registry has."""
        with self._database.read() as connection:
            known = records.known_as(connection, image.id)
        for digest in known:
            lease.add("content", digest)
            if self._content.has(digest):
                data = self._content.read(digest, DOCUMENT_LIMIT)
                found = parse_manifest(data, "")
                if isinstance(found, Index) and image.manifest.digest in [entry.digest for entry in found.manifests]:
                    yield digest, data, found

    def _is_known(self, image: Image, lease: Lease) -> bool:
        """Whether a registry has the image with this very manifest."""
        with self._database.read() as connection:
            if image.manifest.digest in records.known_as(connection, image.id):
                return True
        return any(True for _ in self._indexes(image, lease))

    def _store(
        self,
        target: ImageTarget,
        name: Reference,
        image: Image,
        say: Progress,
        lease: Lease,
        pool: ThreadPoolExecutor,
    ) -> tuple[Descriptor, bytes]:
        """All blobs of an image; its manifest, which is still to be stored."""
        with self._database.read() as connection:
            layers = records.layers_of(connection, image.id)
        shown = list({layer.blob.digest: layer for layer in reversed(layers)}.values())  # from the top, as Docker
        for layer in shown:
            say(f"{_short(layer)}: Preparing", 0, None)
        lease.add("content", image.id, image.manifest.digest, *(layer.blob.digest for layer in layers))
        image = self._packed(image, layers, lease, pool)
        data, manifest = self._manifest(image)
        blobs = {layer.blob.digest: blob for layer, blob in zip(layers, manifest.layers, strict=True)}
        for layer in shown[self._at_once :]:
            say(f"{_short(layer)}: Waiting", 0, None)
        mounts = self._mounts(name, [*blobs.values(), manifest.config])

        def send(layer: Layer) -> None:
            blob = blobs[layer.blob.digest]
            self._send(target, blob, mounts[blob.digest], lambda what, done: say(f"{_short(layer)}: {what}", *done))

        self._all(pool, send, shown)
        self._send(target, manifest.config, mounts[manifest.config.digest])
        return image.manifest, data

    def _manifest(self, image: Image) -> tuple[bytes, Manifest]:
        data = self._content.read(image.manifest.digest, DOCUMENT_LIMIT)
        manifest = parse_manifest(data, image.manifest.media_type)
        assert isinstance(manifest, Manifest)  # an image's record never names an index
        for blob in (manifest.config, *manifest.layers):
            if not self._content.has(blob.digest) and not _is_foreign(blob):
                raise SystemFault(f"image {image.id} cannot be pushed: the content store lacks {blob.digest}")
        return data, manifest

    def _send(
        self,
        target: ImageTarget,
        blob: Descriptor,
        mounts: Sequence[str],
        tell: Callable[[str, tuple[int, int | None]], None] = lambda what, done: None,
    ) -> None:
        def progress(done: int) -> None:
            self._check()
            tell("Pushing", (done, blob.size))

        if _is_foreign(blob):
            # What may not be distributed: the registry keeps its address alone.
            tell("Skipped foreign layer", (0, None))
        elif target.has(blob):
            tell("Layer already exists", (0, None))
        else:
            origin = target.put(
                blob,
                lambda offset: self._opened(blob.digest, offset),
                mounts=mounts,
                progress=progress,
            )
            tell(f"Mounted from {parse(origin).path}" if origin else "Pushed", (0, None))

    def _opened(self, digest: str, offset: int) -> BinaryIO:
        file = self._content.open(digest)
        file.seek(offset)
        return file

    def _mounts(self, name: Reference, blobs: Iterable[Descriptor]) -> dict[str, list[str]]:
        """For each blob the repositories of the same registry that are known to have it, near ones first."""
        found = {}
        with self._database.read() as connection:
            for blob in blobs:
                others = [
                    other
                    for other in records.repositories_with(connection, blob.digest)
                    if other != name.name and parse(other).domain == name.domain
                ]
                folder = name.name.rpartition("/")[0]
                found[blob.digest] = sorted(others, key=lambda other: other.rpartition("/")[0] != folder)
        return found

    def _all(self, pool: ThreadPoolExecutor, work: Callable[[Any], _T], items: Iterable[Any]) -> list[_T]:
        """Do it for each at the same time. The first failure ends the rest, and is raised."""

        def one(item: Any) -> _T:
            self._check()
            try:
                return work(item)
            except BaseException as error:
                self._failure = self._failure or error
                raise

        futures: list[Future[_T]] = [pool.submit(one, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException as error:
            # Not the worker's but ours when somebody presses Ctrl-C.
            self._failure = self._failure or error
            raise self._failure from None

    def _check(self) -> None:
        """Raises: Unavailable when something has failed, and what others are at is for nothing."""
        if self._failure is not None:
            raise Unavailable("context canceled")

    # Images that were made here

    def _packed(self, image: Image, layers: Sequence[Layer], lease: Lease, pool: ThreadPoolExecutor) -> Image:
        """The image with all layers compressed; itself when they are, or when some registry has it as it is."""
        plain = {layer.blob.digest: layer.blob for layer in layers if layer.blob.media_type in _COMPRESSED}
        if not plain or self._is_known(image, lease):
            return image
        packed = self._all(pool, lambda blob: self._compressed(blob, lease), plain.values())
        blobs = dict(zip(plain, packed, strict=True))
        document = json.loads(self._content.read(image.manifest.digest, DOCUMENT_LIMIT))
        document["layers"] = [
            {**entry, **descriptor_json(blobs[entry["digest"]])} if entry["digest"] in blobs else entry
            for entry in document["layers"]
        ]
        manifest = self._content.add(encode(document), image.manifest.media_type, lease=lease)
        image, former = evolve(image, manifest=manifest), image.manifest
        replaced = [evolve(layer, blob=blobs.get(layer.blob.digest, layer.blob)) for layer in layers]
        with self._database.write() as connection:
            if records.by_id(connection, image.id) is not None:
                _replace(connection, image, replaced, gone=[former.digest, *plain])
        return image

    def _compressed(self, blob: Descriptor, lease: Lease) -> Descriptor:
        from dockp.archive.compression import gzip_packer

        packer = gzip_packer()
        with self._content.open(blob.digest) as plain, self._content.writer(lease=lease) as writer:
            while piece := plain.read(CHUNK):
                self._check()
                writer.write(packer.compress(piece))
            writer.write(packer.flush())
            return writer.commit(_COMPRESSED[blob.media_type])


def _replace(connection: sqlite3.Connection, image: Image, layers: Sequence[Layer], gone: Sequence[str]) -> None:
    """Record an image with its layers packed otherwise. No digest of the former manifest is known to anybody."""
    content = [image.id, image.manifest.digest, *(layer.blob.digest for layer in layers)]
    records.add(connection, image, layers, content)
    records.remove_content(connection, image.id, gone)


def _is_foreign(blob: Descriptor) -> bool:
    return bool(blob.urls) and (".foreign." in blob.media_type or ".nondistributable." in blob.media_type)


def _short(layer: Layer) -> str:
    return layer.diff_id.partition(":")[2][:12]
