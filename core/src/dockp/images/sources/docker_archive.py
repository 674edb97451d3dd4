"""``docker-archive:FILE[:NAME]``: images from what ``docker save`` writes, old and new.

Old archives (Docker before 25, podman, skopeo) have no manifest, only ``manifest.json`` with a config and plain layers;
one is made from these. New ones are an OCI layout as well, and its documents are taken as they are.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

from attrs import evolve, frozen

from dockp.images.documents import (
    CONFIG_LIMIT,
    NAME_ANNOTATION,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Manifest,
    manifest_bytes,
    parse_config,
    parse_manifest,
)
from dockp.images.reference import parse
from dockp.images.sources.layout import Layout, blob_name, read_document
from dockp.spi.errors import InvalidArgument, NotFound
from dockp.spi.images import ImageSource, SourceContext
from dockp.spi.values import Descriptor, Platform
from dockp.store.content import CHUNK

_LINKS = 16
"""Symbolic links that are followed inside an archive; old ones use them for layers shared by images."""


class DockerArchiveSource(ImageSource):
    """Reads one ``docker save`` archive, plain or compressed."""

    scheme: ClassVar[str] = "docker-archive"
    summary: ClassVar[str] = "a file that docker save wrote: docker-archive:FILE[:NAME]"

    def __init__(self, context: SourceContext) -> None:
        if context.options:
            raise InvalidArgument(f"image source docker-archive: has no option {next(iter(context.options))!r}")
        self._scratch = Path(context.scratch)
        self._archive: _Archive | None = None
        self._made: dict[str, bytes] = {}
        self._members: dict[str, str] = {}

    def resolve(self, reference: str, platform: Platform) -> Descriptor:
        path, name = _split_reference(reference)
        self._archive = archive = _Archive(path, self._scratch)
        if not archive.has("manifest.json"):
            if archive.has("oci-layout"):
                return Layout(archive).find(name, "", platform)
            raise InvalidArgument(f"{path} was not written by docker save: it has no manifest.json")
        entry = _choose(archive, name)
        descriptor = self._as_it_is(entry) or self._made_up(entry)
        return evolve(descriptor, annotations={NAME_ANNOTATION: entry.name} if entry.name else {})

    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO:
        assert self._archive is not None, "resolve comes first"
        if descriptor.digest in self._made:
            stream: BinaryIO = io.BytesIO(self._made[descriptor.digest])
        else:
            name = self._members.get(descriptor.digest) or blob_name(descriptor.digest)
            try:
                stream = self._archive.open(name)
            except FileNotFoundError:
                raise NotFound(f"{self._archive.label} lacks the blob {descriptor.digest}") from None
        stream.seek(offset)
        return stream

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()

    def _as_it_is(self, entry: _Entry) -> Descriptor | None:
        """The manifest of a new archive with the chosen config, if there is one."""
        assert self._archive is not None
        if not self._archive.has("oci-layout") or not self._archive.has("index.json"):
            return None
        for descriptor in Layout(self._archive).index.manifests:
            try:
                document = parse_manifest(read_document(self._archive, blob_name(descriptor.digest)), "")
            except (NotFound, InvalidArgument):
                continue  # an index, an attestation, or not saved: not what is looked for
            if isinstance(document, Manifest) and blob_name(document.config.digest) == entry.config:
                return descriptor
        return None

    def _made_up(self, entry: _Entry) -> Descriptor:
        import hashlib

        from dockp.archive.compression import detect

        assert self._archive is not None
        config_bytes = _read(self._archive, entry.config, CONFIG_LIMIT)
        config = parse_config(config_bytes)
        if len(config.diff_ids) != len(entry.layers):
            raise InvalidArgument(
                f"{self._archive.label}: manifest.json has {len(entry.layers)} layers,"
                f" the config {len(config.diff_ids)}"
            )
        layers = []
        for name, diff_id in zip(entry.layers, config.diff_ids, strict=True):
            try:
                with self._archive.open(name) as layer:
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
                raise InvalidArgument(f"{self._archive.label} lacks the layer {name}") from None
            if kind not in ("none", "gzip", "zstd"):
                raise InvalidArgument(f"{self._archive.label}: layer {name} is compressed with {kind}")
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


@frozen(kw_only=True)
class _Entry:
    """One image of ``manifest.json``; ``name`` is the one it was chosen by, or its first."""

    config: str
    layers: Sequence[str]
    names: Sequence[str]
    name: str = ""


def _choose(archive: _Archive, wanted: str) -> _Entry:
    try:
        document = json.loads(read_document(archive, "manifest.json"))
        entries = [
            _Entry(config=str(item["Config"]), layers=_words(item, "Layers"), names=_words(item, "RepoTags"))
            for item in document
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidArgument(f"{archive.label}: manifest.json is malformed") from None
    if wanted:
        reference = parse(wanted).with_default_tag()
        for entry in entries:
            if any(parse(name).with_default_tag() == reference for name in entry.names):
                return evolve(entry, name=str(reference))
    elif len(entries) == 1:
        names = entries[0].names
        return evolve(entries[0], name=str(parse(names[0]).with_default_tag()) if names else "")
    known = ", ".join(name for entry in entries for name in entry.names) or "images without a name"
    if wanted:
        raise NotFound(f"{archive.label} has no image {wanted}; it has: {known}")
    raise NotFound(f"{archive.label} has {len(entries)} images, choose one by its name: {known}")


def _words(item: Mapping[str, Any], key: str) -> Sequence[str]:
    return tuple(str(word) for word in item.get(key) or ())


class _Archive:
    """The files of a tar, by name; one that is compressed is unpacked to the scratch directory first."""

    def __init__(self, path: Path, scratch: Path) -> None:
        from dockp.archive.compression import detect, open_stream

        self.label = str(path)
        try:
            file: Any = open(path, "rb")  # noqa: SIM115 - open until close()
        except OSError as error:
            raise NotFound(f"cannot read {path}: {error.strerror}") from None
        if detect(file.read(6)) != "none":
            file.seek(0)
            unpacked = open(scratch / "plain.tar", "w+b")  # noqa: SIM115
            with file:
                shutil.copyfileobj(open_stream(file), unpacked, CHUNK)
            file = unpacked
        file.seek(0)
        self._file = file
        try:
            with tarfile.TarFile(fileobj=file, errorlevel=0, encoding="utf-8", errors="surrogateescape") as archive:
                self._members = {posixpath.normpath(entry.name): entry for entry in archive}
        except tarfile.TarError as error:
            file.close()
            raise InvalidArgument(f"{path} is not a tar archive: {error}") from None

    def has(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> BinaryIO:
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


class _Slice(io.RawIOBase):
    """A part of a file, with a position of its own, so that several can be read side by side."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
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


def _read(archive: _Archive, name: str, limit: int) -> bytes:
    try:
        with archive.open(name) as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise InvalidArgument(f"{archive.label} lacks the config {name}") from None
    if len(data) > limit:
        raise InvalidArgument(f"{name} in {archive.label} is larger than the allowed {limit} bytes")
    return data


def _split_reference(reference: str) -> tuple[Path, str]:
    """The file and the name after it: the longest beginning that is a file. Raises: InvalidArgument, NotFound."""
    if not reference:
        raise InvalidArgument("docker-archive: needs a file: docker-archive:FILE[:NAME]")
    path = reference
    while True:
        if Path(path).is_file():
            return Path(path), reference[len(path) + 1 :]
        path, colon, _ = path.rpartition(":")
        if not colon:
            raise NotFound(f"no such file: {reference}")
