"""Reading OCI image layouts, wherever their files are. Source: image-spec ``image-layout.md``."""

from __future__ import annotations

import json
from typing import BinaryIO, Protocol

from attrs import evolve

from dockp.images.documents import DOCUMENT_LIMIT, INDEX_TYPES, MANIFEST_TYPES, Index, parse_manifest, select
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.values import Descriptor, Platform
from dockp.store.content import hex_of

TAG_ANNOTATION = "org.opencontainers.image.ref.name"


class Files(Protocol):
    """Files by their slash-separated names."""

    label: str
    """What they are called in messages."""

    def open(self, name: str) -> BinaryIO:
        """Raises: FileNotFoundError."""


def read_document(files: Files, name: str) -> bytes:
    """A small file as a whole. Raises: NotFound; InvalidArgument when it is too large."""
    try:
        with files.open(name) as file:
            data = file.read(DOCUMENT_LIMIT + 1)
    except FileNotFoundError:
        raise NotFound(f"{files.label} has no file {name}") from None
    if len(data) > DOCUMENT_LIMIT:
        raise InvalidArgument(f"{name} in {files.label} is larger than the allowed {DOCUMENT_LIMIT} bytes")
    return data


class Layout:
    """One image layout. Raises: InvalidArgument when the files are none."""

    def __init__(self, files: Files) -> None:
        self._files = files
        try:
            marker = json.loads(read_document(files, "oci-layout"))
        except (NotFound, ValueError):
            raise InvalidArgument(
                f"{files.label} is not an OCI image layout: it has no valid oci-layout file"
            ) from None
        version = marker.get("imageLayoutVersion") if isinstance(marker, dict) else None
        if not isinstance(version, str) or not version.startswith("1."):
            raise InvalidArgument(f"{files.label} is an OCI image layout of version {version}; only 1.x can be read")
        index = parse_manifest(read_document(files, "index.json"), "")
        if not isinstance(index, Index):
            raise InvalidArgument(f"index.json in {files.label} is not an image index")
        self.index = index

    def find(self, tag: str, digest: str, platform: Platform) -> Descriptor:
        """The manifest or index with that tag or digest; with neither, the only image there is.

        Raises: NotFound, naming the tags there are.
        """
        if digest:
            return self._by_digest(digest)
        entries = [entry for entry in self.index.manifests if entry.media_type in MANIFEST_TYPES | INDEX_TYPES]
        if tag:
            found = [entry for entry in entries if entry.annotations.get(TAG_ANNOTATION) == tag]
        else:
            found = entries
            names = {entry.annotations.get(TAG_ANNOTATION, "") for entry in entries}
            if len(names) > 1:
                raise NotFound(f"{self._files.label} holds several images, choose one by its tag: {self._tags()}")
        if not found:
            wanted = f"no image with the tag {tag!r}" if tag else "no image"
            raise NotFound(f"{self._files.label} holds {wanted}; it has: {self._tags() or 'none'}")
        if len(found) == 1:
            return found[0]
        # One tag on several manifests: a multi-platform image without an index of its own.
        return select(evolve(self.index, manifests=tuple(found)), platform, self._files.label)

    def _by_digest(self, digest: str) -> Descriptor:
        for entry in self.index.manifests:
            if entry.digest == digest:
                return entry
        # Not named by the layout's index, but perhaps by an index inside.
        data = read_document(self._files, blob_name(digest))
        return Descriptor(media_type=parse_manifest(data, "").media_type, digest=digest, size=len(data))

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """The bytes of a blob. Raises: NotFound."""
        try:
            return self._files.open(blob_name(descriptor.digest))
        except FileNotFoundError:
            raise NotFound(f"{self._files.label} lacks the blob {descriptor.digest}") from None

    def _tags(self) -> str:
        tags = {entry.annotations.get(TAG_ANNOTATION) or f"@{entry.digest}" for entry in self.index.manifests}
        return ", ".join(sorted(tags))


def blob_name(digest: str) -> str:
    """Where a layout keeps a blob. Raises: InvalidArgument for a malformed digest."""
    return f"blobs/sha256/{hex_of(digest)}"
