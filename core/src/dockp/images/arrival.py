"""How images come in: from an image source, or out of a tar.

Bytes are verified against size and digest while they are written, and stay as they were received. Everything is held by
a lease until one transaction records the image, its layers and its tag; a process killed before that leaves garbage for
the collector, and no name.
"""

from __future__ import annotations

import io
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from attrs import evolve, frozen

from dockp.images import records
from dockp.images.changes import apply_changes
from dockp.images.documents import (
    CONFIG_LIMIT,
    DOCUMENT_LIMIT,
    NAME_ANNOTATION,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Index,
    Manifest,
    chain_ids,
    check_match,
    encode,
    host_platform,
    manifest_bytes,
    parse_config,
    parse_manifest,
    platform_json,
    runs_on,
    select,
)
from dockp.images.layers import LayerUnpacker, Progress, total_size
from dockp.images.records import Image, Layer
from dockp.images.reference import Reference, parse, parse_tag
from dockp.images.times import parse_time
from dockp.linux.locks import offset_of
from dockp.spi.errors import InvalidArgument, NotFound, SystemFault
from dockp.spi.images import ImageSource, SourceContext
from dockp.spi.values import Descriptor, Platform
from dockp.store.content import CHUNK, ContentStore
from dockp.store.database import Database
from dockp.store.leases import Lease, Leases
from dockp.timestamps import rfc3339_nano

if TYPE_CHECKING:
    from dockp.linux.locks import RangeLocks

_NESTED_INDEXES = 3
_KEPT_COMPRESSIONS = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}
_DEFAULT_MESSAGE = "Imported from -"
_EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""The diff ID of an archive of nothing, two empty blocks."""
_MAGIC_LENGTH = 6


@frozen(kw_only=True)
class _Received:
    """An image whose bytes are all here, not yet recorded. ``root``: what the source resolved, perhaps an index.
    ``documents``: digests of everything but layers."""

    root: Descriptor
    image: Image
    layers: Sequence[Layer]
    documents: Sequence[str]


class _Blobs(Protocol):
    """Where the bytes of an image come from: an `ImageSource`, or an archive."""

    def fetch(self, descriptor: Descriptor) -> BinaryIO: ...


class Arrival:
    """Brings images into one data root; made for each use."""

    def __init__(
        self, database: Database, content: ContentStore, leases: Leases, locks: RangeLocks, layers: LayerUnpacker
    ) -> None:
        self._database = database
        self._content = content
        self._leases = leases
        self._locks = locks
        self._layers = layers

    def add_from(
        self,
        make_source: Callable[[SourceContext], ImageSource],
        reference: str,
        *,
        tag: str,
        platform: Platform | None,
        driver: str,
        options: Mapping[str, str],
        progress: Progress | None,
    ) -> Image:
        """Get the image that ``reference`` (without its scheme) means to a source.

        Args: make_source: the source's class. tag: a name for the image; "" takes the one the source proposes, if any.
            platform: None is this machine's. driver: unpack into this one right away; "" leaves that to the first
            container. options: the source's.
        Raises: what the source raises; NotFound when there is nothing for the platform; InvalidArgument when bytes are
            not what their digests say.
        """
        name = parse_tag(tag) if tag else None
        wanted = platform or host_platform()
        say: Progress = progress or (lambda what, done, total: None)
        with self._content.scratch() as scratch, self._leases.hold() as lease:
            source = make_source(SourceContext(scratch=str(scratch), progress=say, options=options))
            try:
                root = source.resolve(reference, wanted)
                received = self._receive(source, root, reference, wanted, platform is not None, lease, say)
            except OSError as error:
                where = f": {error.filename}" if error.filename else ""
                raise SystemFault(f"getting image {reference}: {error.strerror or error}{where}") from error
            finally:
                source.close()
            self._settle(received.layers, driver, lease, say)
            name = name or _proposed_name(received.root)
            with self._database.write() as connection:
                return self._record(
                    connection, received.image, received.layers, received.documents, _some(name), [received.root.digest]
                )

    def load(
        self,
        stream: BinaryIO,
        *,
        platform: Platform | None,
        driver: str,
        progress: Progress | None,
    ) -> Sequence[tuple[Image, Sequence[Reference]]]:
        """Take every image of an archive as ``docker save`` writes it, or of an OCI layout in a tar.

        Nothing is recorded before all of them are here and verified, and then all are at once.
        Args: platform: only images for this one; None takes what there is, of several this machine's.
        Returns: each image with the names it has got, in the archive's order.
        Raises: InvalidArgument for a malformed archive, NotFound when it has nothing for the platform.
        """
        from dockp.images.sources.image_archive import ImageArchive

        say: Progress = progress or (lambda what, done, total: None)
        loaded: list[tuple[_Received, Sequence[Reference]]] = []
        skipped: NotFound | None = None
        with self._content.scratch() as scratch, self._leases.hold() as lease:
            archive = ImageArchive(stream, "the archive", scratch)
            try:
                for found in archive.images():
                    label = found.names[0].familiar if found.names else found.root.digest
                    try:
                        received = self._receive(
                            archive,
                            found.root,
                            label,
                            platform or host_platform(),
                            platform is not None,
                            lease,
                            say,
                            "Loading layer",
                        )
                    except NotFound as error:
                        if platform is None:
                            raise
                        skipped = error
                        continue
                    self._settle(received.layers, driver, lease, say)
                    loaded.append((received, found.names))
            except OSError as error:
                raise SystemFault(f"loading images: {error.strerror or error}") from error
            finally:
                archive.close()
            if skipped is not None and not loaded:
                raise skipped
            with self._database.write() as connection:
                return [
                    (self._record(connection, one.image, one.layers, one.documents, names, []), names)
                    for one, names in loaded
                ]

    def import_(
        self,
        stream: BinaryIO,
        *,
        changes: Sequence[str],
        message: str,
        reference: str,
        platform: Platform | None,
        driver: str,
        progress: Progress | None,
    ) -> Image:
        """Make an image of one layer from the tar of a root file system, plain or compressed.

        The archive is kept as it came (bzip2 and xz, which no image may use, are unpacked).
        Args: changes: Dockerfile instructions for its config. message: for its history. reference: a name, or "".
        Raises: InvalidArgument for a malformed archive, instruction or name; nothing is left then.
        """
        name = parse_tag(reference) if reference else None
        process = apply_changes({}, changes)
        say: Progress = progress or (lambda what, done, total: None)
        wanted = platform or host_platform()
        with self._leases.hold() as lease:
            diff_id, blob, size = self._import_layer(stream, lease, measured=not driver, say=say)
            layers = [Layer(diff_id=diff_id, chain_id=diff_id, blob=blob)]
            if size is not None:
                with self._database.write() as connection:
                    records.set_layer_size(connection, diff_id, size)
            if driver:
                lease.add("layer", diff_id)
                self._layers.unpack_layers(layers, driver, say)
            return self._build(layers, process, wanted, [{"comment": message or _DEFAULT_MESSAGE}], name, lease)

    def commit(
        self,
        stream: BinaryIO,
        *,
        parent: str,
        process: Mapping[str, Any],
        created_by: str,
        message: str,
        author: str,
        reference: str,
    ) -> Image:
        """Make an image of another and one more layer, a plain tar. A tar of nothing adds no layer.

        Args: parent: id of an image that a container uses, which therefore stays. process: the ``config`` object.
            created_by, message, author: for its history. reference: a name, or "".
        Raises: InvalidArgument for a malformed name; nothing is left then.
        """
        name = parse_tag(reference) if reference else None
        below = parse_config(self._content.read(parent, CONFIG_LIMIT))
        with self._database.read() as connection:
            layers = records.layers_of(connection, parent)
            parent = parent if records.by_id(connection, parent) is not None else ""  # no longer an image of its own
        with self._leases.hold() as lease:
            lease.add("content", *(layer.blob.digest for layer in layers))
            diff_id, blob, size = self._import_layer(stream, lease, measured=True, say=lambda what, done, total: None)
            empty = diff_id == _EMPTY_LAYER
            if not empty:
                if size is not None:
                    with self._database.write() as connection:
                        records.set_layer_size(connection, diff_id, size)
                chain_id = chain_ids([*(layer.diff_id for layer in layers), diff_id])[-1]
                layers = [*layers, Layer(diff_id=diff_id, chain_id=chain_id, blob=blob)]
            step = {"author": author, "created_by": created_by, "comment": message, "empty_layer": empty}
            history = [*below.history, {key: value for key, value in step.items() if value}]
            return self._build(layers, process, below.platform, history, name, lease, parent=parent, author=author)

    def _build(
        self,
        layers: Sequence[Layer],
        process: Mapping[str, Any],
        platform: Platform,
        history: Sequence[Mapping[str, Any]],
        name: Reference | None,
        lease: Lease,
        *,
        parent: str = "",
        author: str = "",
    ) -> Image:
        """Write config and manifest of an image made here and record it. The last step of ``history`` is today's."""
        now = time.time()
        created = rfc3339_nano(int(now * 10**9))
        config = self._content.add(
            encode(
                {
                    "created": created,
                    **({"author": author} if author else {}),
                    **platform_json(platform),
                    "config": process,
                    "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                    "history": [*history[:-1], {"created": created, **history[-1]}],
                }
            ),
            OCI_CONFIG,
            lease=lease,
        )
        manifest = self._content.add(
            manifest_bytes(config, [layer.blob for layer in layers]), OCI_MANIFEST, lease=lease
        )
        image = Image(
            id=config.digest,
            manifest=manifest,
            chain_id=layers[-1].chain_id if layers else "",
            platform=platform,
            created=now,
            parent=parent,
            labels=process.get("Labels") or {},
        )
        with self._database.write() as connection:
            return self._record(connection, image, layers, [manifest.digest, config.digest], _some(name), [])

    def _record(
        self,
        connection: sqlite3.Connection,
        image: Image,
        layers: Sequence[Layer],
        documents: Sequence[str],
        names: Sequence[Reference],
        digests: Sequence[str],
    ) -> Image:
        """Make the image known, and ``names`` its own; ``digests`` are those of its repositories."""
        now = time.time()
        records.add(connection, image, layers, [*documents, *(layer.blob.digest for layer in layers)])
        for name in names:
            records.set_tag(connection, str(name), image.id, now)
            for digest in digests:
                records.set_digest(connection, name.name, digest, image.id)
        return evolve(image, tagged=now) if names else image

    # From a source

    def _receive(
        self,
        source: _Blobs,
        root: Descriptor,
        reference: str,
        platform: Platform,
        strict: bool,
        lease: Lease,
        say: Progress,
        verb: str = "Downloading",
    ) -> _Received:
        """Get all bytes of an image, verified against their digests. ``strict``: no other platform will do."""
        found, manifest, documents = self._manifest(source, root, platform, reference, lease)
        config = parse_config(self._document(source, manifest.config, CONFIG_LIMIT, lease))
        check_match(manifest, config)
        if strict and not runs_on(config.platform, platform):
            raise NotFound(
                f"image with reference {reference} was found but its platform ({config.platform}) does not match the "
                f"specified platform ({platform})"
            )
        layers = tuple(
            Layer(diff_id=diff_id, chain_id=chain_id, blob=blob)
            for diff_id, chain_id, blob in zip(
                config.diff_ids, chain_ids(config.diff_ids), manifest.layers, strict=True
            )
        )
        for layer in layers:
            self._fetch(source, layer.blob, lease, say, verb)
        return _Received(
            root=root,
            image=Image(
                id=manifest.config.digest,
                manifest=found,
                chain_id=layers[-1].chain_id if layers else "",
                platform=config.platform,
                created=parse_time(config.created),
                labels=config.labels,
            ),
            layers=layers,
            documents=(*documents, manifest.config.digest),
        )

    def _manifest(
        self, source: _Blobs, root: Descriptor, platform: Platform, reference: str, lease: Lease
    ) -> tuple[Descriptor, Manifest, list[str]]:
        """Follow indexes down to a manifest: its descriptor, itself, and the digests of all that were read."""
        descriptor, read = root, []
        for _ in range(_NESTED_INDEXES + 1):
            document = parse_manifest(self._document(source, descriptor, DOCUMENT_LIMIT, lease), descriptor.media_type)
            read.append(descriptor.digest)
            if isinstance(document, Manifest):
                return evolve(descriptor, media_type=document.media_type, platform=None, annotations={}), document, read
            assert isinstance(document, Index)
            descriptor = select(document, platform, reference)
        raise InvalidArgument(f"image {reference} has more than {_NESTED_INDEXES} indexes inside each other")

    def _document(self, source: _Blobs, descriptor: Descriptor, limit: int, lease: Lease) -> bytes:
        if descriptor.size > limit:
            raise InvalidArgument(f"document {descriptor.digest} of {descriptor.size} bytes is larger than {limit}")
        self._fetch(source, descriptor, lease, lambda what, done, total: None)
        return self._content.read(descriptor.digest, limit)

    def _fetch(
        self, source: _Blobs, descriptor: Descriptor, lease: Lease, say: Progress, verb: str = "Downloading"
    ) -> None:
        lease.add("content", descriptor.digest)
        what = f"{verb} {descriptor.digest[7:19]}"
        # One download, however many want it.
        with self._locks.hold(offset_of("blob", descriptor.digest)):
            if self._content.has(descriptor.digest):
                if self._content.size(descriptor.digest) != descriptor.size:
                    raise InvalidArgument(f"blob {descriptor.digest} does not have the stated {descriptor.size} bytes")
                return
            with source.fetch(descriptor) as stream, self._content.writer(descriptor, lease=lease) as writer:
                while chunk := stream.read(CHUNK):
                    writer.write(chunk)
                    say(what, writer.written, descriptor.size)
                writer.commit()

    def _settle(self, layers: Sequence[Layer], driver: str, lease: Lease, say: Progress) -> None:
        """Verify the content of every layer: by unpacking it, or else by reading it."""
        if driver:
            lease.add("layer", *(layer.chain_id for layer in layers))
            self._layers.unpack_layers(layers, driver, say)
        with self._database.read() as connection:
            sized = {
                layer.diff_id
                for layer in layers
                if connection.execute("SELECT 1 FROM layer_sizes WHERE diff_id = ?", (layer.diff_id,)).fetchone()
            }
            unknown = [layer for layer in layers if layer.diff_id not in sized]
            if not driver:
                unknown = [layer for layer in layers if not records.is_verified(connection, layer)]
        for layer in {layer.diff_id: layer for layer in unknown}.values():
            say(f"Verifying {layer.blob.digest[7:19]}", 0, layer.blob.size)
            self._layers.measure(layer)

    # From a tar

    def _import_layer(
        self, stream: BinaryIO, lease: Lease, measured: bool, say: Progress
    ) -> tuple[str, Descriptor, int | None]:
        from dockp.archive.compression import Digesting, detect, open_stream

        start = _first_bytes(stream)
        if not start:
            raise InvalidArgument("nothing to import: the archive is empty")
        kind = detect(start)
        kept = kind in _KEPT_COMPRESSIONS
        with self._content.writer(lease=lease) as writer:
            raw = _Tee(start, stream, writer.write if kept else None, lambda done: say("Importing", done, None))
            plain = Digesting(open_stream(cast(BinaryIO, raw)))
            size: int | None = None
            if not kept:
                writer.copy(cast(BinaryIO, plain))
            elif measured:
                size = total_size(cast(BinaryIO, plain))
            plain.drain()
            raw.drain()
            blob = writer.commit(OCI_LAYER + _KEPT_COMPRESSIONS.get(kind, ""))
        layer = Layer(diff_id=plain.digest, chain_id=plain.digest, blob=blob)
        if measured and size is None:
            self._layers.measure(layer)
        return plain.digest, blob, size


class _Tee(io.RawIOBase):
    """A stream whose bytes are also handed to ``keep`` as they are read. ``start`` was read from it before."""

    def __init__(
        self,
        start: bytes,
        stream: BinaryIO,
        keep: Callable[[bytes], object] | None,
        progress: Callable[[int], None],
    ) -> None:
        self._start = start
        self._stream = stream
        self._keep = keep
        self._progress = progress
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if self._start:
            data, self._start = self._start[: len(target)], self._start[len(target) :]
        else:
            try:
                data = self._stream.read(len(target))
            except OSError as error:
                raise SystemFault(f"reading the archive: {error.strerror}") from error
        target[: len(data)] = data
        if self._keep is not None:
            self._keep(data)
        self._done += len(data)
        self._progress(self._done)
        return len(data)

    def drain(self) -> None:
        """Read, and keep, what follows the compressed data."""
        while self.read(CHUNK):
            pass


def _first_bytes(stream: BinaryIO) -> bytes:
    start = b""
    try:
        while len(start) < _MAGIC_LENGTH and (part := stream.read(_MAGIC_LENGTH - len(start))):
            start += part
    except OSError as error:
        raise SystemFault(f"reading the archive: {error.strerror}") from error
    return start


def _some(name: Reference | None) -> Sequence[Reference]:
    return () if name is None else (name,)


def _proposed_name(root: Descriptor) -> Reference | None:
    text = root.annotations.get(NAME_ANNOTATION, "")
    if not text or not re.search(r"[:/]", text):
        return None
    name = parse(text).with_default_tag()
    return None if name.digest else name
