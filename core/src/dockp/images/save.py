"""Images as one tar, which is an OCI image layout and what ``docker load`` of every age reads.

Blobs go into it as they are in the content store, so digests are those of the image as it was received. Nothing is
gathered in memory or in a file: the tar is made while it is read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

from attrs import evolve

from dockp.images.documents import (
    DOCUMENT_LIMIT,
    NAME_ANNOTATION,
    OCI_INDEX,
    Manifest,
    descriptor_json,
    encode,
    parse_manifest,
)
from dockp.images.records import Image
from dockp.images.reference import Reference
from dockp.images.sources.layout import TAG_ANNOTATION, blob_name
from dockp.spi.errors import SystemFault
from dockp.spi.values import Descriptor
from dockp.store.content import CHUNK, ContentStore
from dockp.store.leases import Leases

_BLOCK = 512
_END = bytes(2 * _BLOCK)


def save(content: ContentStore, leases: Leases, images: Sequence[tuple[Image, Sequence[Reference]]]) -> BinaryIO:
    """The tar of ``images``, each with the tags it has there. The caller closes it; its blobs are held until then.

    Raises: SystemFault when the content store lacks something.
    """
    with contextlib.ExitStack() as held:
        lease = held.enter_context(leases.hold())
        documents: dict[str, bytes] = {}
        blobs: dict[str, Descriptor] = {}
        heads: list[dict[str, Any]] = []
        entries: list[dict[str, Any]] = []
        for image, tags in images:
            lease.add("content", image.manifest.digest)
            manifest = parse_manifest(content.read(image.manifest.digest, DOCUMENT_LIMIT), image.manifest.media_type)
            assert isinstance(manifest, Manifest)  # an image's record never names an index
            for blob in (image.manifest, manifest.config, *manifest.layers):
                lease.add("content", blob.digest)
                if not content.has(blob.digest):
                    raise SystemFault(f"image {image.id} cannot be saved: the content store lacks {blob.digest}")
                blobs[blob.digest] = blob
            head = evolve(image.manifest, platform=image.platform)
            heads += [descriptor_json(evolve(head, annotations=_annotations(tag))) for tag in tags] or [
                descriptor_json(head)
            ]
            entries.append(
                {
                    "Config": blob_name(manifest.config.digest),
                    "RepoTags": [tag.familiar for tag in tags] or None,
                    "Layers": [blob_name(layer.digest) for layer in manifest.layers],
                }
            )
        documents["oci-layout"] = encode({"imageLayoutVersion": "1.0.0"})
        documents["index.json"] = encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": heads})
        documents["manifest.json"] = encode(entries)
        stream = _Pieces(_tar(content, documents, list(blobs.values())), held.pop_all().close)
    return cast(BinaryIO, io.BufferedReader(stream, CHUNK))


def _annotations(tag: Reference) -> dict[str, str]:
    return {NAME_ANNOTATION: str(tag), TAG_ANNOTATION: tag.tag or ""}


def _tar(content: ContentStore, documents: Mapping[str, bytes], blobs: Sequence[Descriptor]) -> Iterator[bytes]:
    # The documents come first: whoever reads from a pipe knows early what is to come.
    for name, data in documents.items():
        yield _header(name, len(data))
        yield data + _padding(len(data))
    for folder in ("blobs", "blobs/sha256"):
        yield _header(folder)
    for blob in blobs:
        yield _header(blob_name(blob.digest), blob.size)
        left = blob.size
        with content.open(blob.digest) as file:
            while left and (piece := file.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece
        if left:
            raise SystemFault(f"blob {blob.digest} is {left} bytes shorter than it should be")
        yield _padding(blob.size)
    yield _END


def _header(name: str, size: int | None = None) -> bytes:
    """The header of a file, or without a size of a directory. The same for the same image, whenever it is saved."""
    import tarfile

    entry = tarfile.TarInfo(name)
    if size is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    else:
        entry.size, entry.mode = size, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


class _Pieces(io.RawIOBase):
    """A readable stream of ``pieces``; ``done`` is called once when it is closed."""

    def __init__(self, pieces: Iterator[bytes], done: Callable[[], None]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._done = done

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._pieces.close()  # type: ignore[attr-defined]  # it is a generator, which has a file open
            self._done()
        super().close()
