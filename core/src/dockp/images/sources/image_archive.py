"""Tar archives of images: what ``docker save`` writes, old and new, and OCI layouts in a tar.

Old archives (Docker before 25, podman, skopeo) have no manifest, only ``manifest.json`` with a config and plain layers;
one is made from these. New ones are an OCI layout as well, and its documents are taken as they are. Names in the
archive are looked up in a table and never reach a file system.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from attrs import evolve, frozen

from dockp.images.documents import (
    CONFIG_LIMIT,
    INDEX_TYPES,
    MANIFEST_TYPES,
    NAME_ANNOTATION,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Index,
    Manifest,
    manifest_bytes,
    parse_config,
    parse_manifest,
)
from dockp.images.reference import Reference, parse
from dockp.images.sources.layout import TAG_ANNOTATION, Layout, blob_name, read_document
from dockp.spi.errors import InvalidArgument, NotFound, SystemFault
from dockp.spi.values import Descriptor
from dockp.store.content import CHUNK

_LINKS = 16
"""Symbolic links that are followed inside an archive; old ones use them for layers shared by images."""
_NESTED_INDEXES = 2


@frozen(kw_only=True)
class Entry:
    """One image of ``manifest.json``."""

    config: str
    layers: Sequence[str]
    names: Sequence[str]


@frozen(kw_only=True)
class ArchivedImage:
    """One image of an archive: its manifest, or the index that has it, and all of its names."""

    root: Descriptor
    names: Sequence[Reference]


class ImageArchive:
    """The images of one archive, plain or compressed.

    Args: label: what messages call it. scratch: an empty directory. A plain archive in a file is read where it is; a
        stream, or what is compressed, goes to ``scratch`` first.
    Raises: InvalidArgument when it is no tar, SystemFault when it cannot be read or written down.
    """

    def __init__(self, file: BinaryIO, label: str, scratch: Path) -> None:
        self.files = TarFiles(file, label, scratch)
        self._made: dict[str, bytes] = {}
        self._members: dict[str, str] = {}

    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        """As `ImageSource.fetch`. Raises: InvalidArgument when the archive lacks it."""
        if descriptor.digest in self._made:
            stream: BinaryIO = io.BytesIO(self._made[descriptor.digest])
        else:
            name = self._members.get(descriptor.digest) or blob_name(descriptor.digest)
            try:
                stream = self.files.open(name)
            except FileNotFoundError:
                raise InvalidArgument(f"{self.files.label} lacks the blob {descriptor.digest}") from None
        stream.seek(offset)
        return stream

    def close(self) -> None:
        self.files.close()

    def images(self) -> Iterator[ArchivedImage]:
        """Every image, in the archive's order. Raises: InvalidArgument when it is neither of the two layouts."""
        if self.files.has("manifest.json"):
            for entry in self.entries():
                yield ArchivedImage(root=self.root(entry), names=[_tagged(name) for name in entry.names])
        elif self.files.has("oci-layout"):
            yield from _named(Layout(self.files).index)
        else:
            raise InvalidArgument(
                f"{self.files.label} has no images: neither manifest.json, as docker save writes it, nor oci-layout"
            )

    def entries(self) -> list[Entry]:
        """The images of ``manifest.json``. Raises: InvalidArgument."""
        try:
            document = json.loads(read_document(self.files, "manifest.json"))
            return [
                Entry(config=str(item["Config"]), layers=_words(item, "Layers"), names=_words(item, "RepoTags"))
                for item in document
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidArgument(f"{self.files.label}: manifest.json is malformed") from None

    def root(self, entry: Entry) -> Descriptor:
        """The manifest of an image: the archive's own, or one made for it."""
        return self._as_it_is(entry) or self._made_up(entry)

    def _as_it_is(self, entry: Entry) -> Descriptor | None:
        """The manifest of a new archive with the chosen config, if there is one."""
        if not self.files.has("oci-layout") or not self.files.has("index.json"):
            return None
        return self._find(Layout(self.files).index.manifests, entry.config, _NESTED_INDEXES)

    def _find(self, descriptors: Sequence[Descriptor], config: str, depth: int) -> Descriptor | None:
        for descriptor in descriptors:
            try:
                document = parse_manifest(read_document(self.files, blob_name(descriptor.digest)), "")
            except (NotFound, InvalidArgument):
                continue  # an attestation, or not saved: not what is looked for
            if isinstance(document, Manifest):
                if blob_name(document.config.digest) == posixpath.normpath(config):
                    return descriptor
            elif depth and (found := self._find(document.manifests, config, depth - 1)):
                return found
        return None

    def _made_up(self, entry: Entry) -> Descriptor:
        import hashlib

        from dockp.archive.compression import detect

        files = self.files
        config_bytes = _read(files, entry.config, CONFIG_LIMIT)
        config = parse_config(config_bytes)
        if len(config.diff_ids) != len(entry.layers):
            raise InvalidArgument(
                f"{files.label}: manifest.json has {len(entry.layers)} layers, the config {len(config.diff_ids)}"
            )
        layers = []
        for name, diff_id in zip(entry.layers, config.diff_ids, strict=True):
            try:
                with files.open(name) as layer:
                    kind = detect(layer.read(6))
                    size = layer.seek(0, io.SEEK_END)
                    layer.seek(0)
                    # A plain layer's digest is its diff ID. Should it not be, the core finds out when it stores it.
                    digest = (
                        diff_id
                        if kind == "none"
                        else f"sha256:{hashlib.file_digest(cast(Any, layer), 'sha256').hexdigest()}"
                    )
            except FileNotFoundError:
                raise InvalidArgument(f"{files.label} lacks the layer {name}") from None
            if kind not in ("none", "gzip", "zstd"):
                raise InvalidArgument(f"{files.label}: layer {name} is compressed with {kind}")
            self._members[digest] = name
            suffix = "" if kind == "none" else f"+{kind}"
            layers.append(Descriptor(media_type=OCI_LAYER + suffix, digest=digest, size=size))
        manifest = manifest_bytes(self._keep(config_bytes, OCI_CONFIG), layers)
        return self._keep(manifest, OCI_MANIFEST)

    def _keep(self, data: bytes, media_type: str) -> Descriptor:
        import hashlib

        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._made[digest] = data
        return Descriptor(media_type=media_type, digest=digest, size=len(data))


def _tagged(text: str) -> Reference:
    """A name of ``manifest.json``. Raises: InvalidArgument."""
    name = parse(text)
    if name.tag is None or name.digest is not None:
        raise InvalidArgument(f'invalid tag "{text}"')
    return name


def _named(index: Index) -> Iterator[ArchivedImage]:
    """The images of a layout's index: equal descriptors are one image with several names, and one name on several
    manifests is one image for several platforms."""
    names: dict[str, list[Reference]] = {}
    entries: dict[str, Descriptor] = {}
    for entry in index.manifests:
        if entry.media_type not in MANIFEST_TYPES | INDEX_TYPES:
            continue
        entries.setdefault(entry.digest, evolve(entry, annotations={}))
        text = entry.annotations.get(NAME_ANNOTATION) or entry.annotations.get(TAG_ANNOTATION, "")
        # Only a whole name is one: "latest" alone, as layouts for one image have it, says nothing about the image.
        if "/" in text or ":" in text:
            names.setdefault(entry.digest, []).append(parse(text).with_default_tag())
    for digest, entry in entries.items():
        yield ArchivedImage(
            root=entry, names=[name for name in dict.fromkeys(names.get(digest, ())) if not name.digest]
        )


def _words(item: Mapping[str, Any], key: str) -> Sequence[str]:
    return tuple(str(word) for word in item.get(key) or ())


class TarFiles:
    """The files of a tar, by name."""

    def __init__(self, source: BinaryIO, label: str, scratch: Path) -> None:
        from dockp.archive.compression import open_stream
        from dockp.archive.reading import index

        self.label = label
        file = _plain_file(source)
        if file is None:
            try:
                file = open(scratch / "plain.tar", "w+b", buffering=0)  # noqa: SIM115 - open until close()
                plain = open_stream(source)
                while chunk := plain.read(CHUNK):
                    file.write(chunk)
            except OSError as error:
                raise SystemFault(f"reading {label}: {(error.strerror or str(error)).lower()}") from error
        self._file = file
        file.seek(0)
        try:
            self._members = index(cast(BinaryIO, file))
        except InvalidArgument as error:
            self.close()
            why = str(error).removeprefix("malformed tar archive: ")
            raise InvalidArgument(f"{label} is not a tar archive: {why}") from None

    def has(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> BinaryIO:
        """Raises: FileNotFoundError."""
        name = posixpath.normpath(name)
        for _ in range(_LINKS):
            entry = self._members.get(name)
            if entry is None or not (entry.isfile() or entry.issym() or entry.islnk()):
                break
            if entry.isfile():
                return cast(BinaryIO, io.BufferedReader(_Slice(self._file, entry.offset_data, entry.size)))
            base = posixpath.dirname(name) if entry.issym() else ""
            name = posixpath.normpath(posixpath.join(base, entry.linkname))
        raise FileNotFoundError(name)

    def close(self) -> None:
        self._file.close()


def _plain_file(source: BinaryIO) -> io.FileIO | None:
    """A second descriptor of ``source`` when that is a regular file at its beginning, and not compressed."""
    import stat

    from dockp.archive.compression import detect

    try:
        descriptor = source.fileno()
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or source.tell():
            return None
        if detect(os.pread(descriptor, 6, 0)) != "none":
            return None
        return io.FileIO(f"/proc/self/fd/{descriptor}")  # with a position of its own
    except (AttributeError, OSError, ValueError):
        return None  # no file at all


class _Slice(io.RawIOBase):
    """A part of a file, with a position of its own, so that several can be read side by side."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self._descriptor = file.fileno()
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, target: Any) -> int:
        wanted = max(0, min(len(target), self._size - self._position))
        data = os.pread(self._descriptor, wanted, self._start + self._position)
        target[: len(data)] = data
        self._position += len(data)
        return len(data)


def _read(files: TarFiles, name: str, limit: int) -> bytes:
    try:
        with files.open(name) as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise InvalidArgument(f"{files.label} lacks the config {name}") from None
    if len(data) > limit:
        raise InvalidArgument(f"{name} in {files.label} is larger than the allowed {limit} bytes")
    return data
