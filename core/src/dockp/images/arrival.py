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
from typing import TYPE_CHECKING, Any, BinaryIO, cast

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
    ImageConfig,
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
from dockp.images.transfer import AT_ONCE, Downloads, Source, fetch_document, short
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


Verify = Callable[[Mapping[str, Any]], None]
"""Asks who decides about images whether one may be used: see the moment ``dockp_image_verify``."""


@frozen(kw_only=True)
class Wanted:
    """What to get from a source.

    Attributes:
        reference: as the source understands it, without the scheme. shown: the same for messages and progress.
        title: what progress is told first, when the source has it.
        names: tags to give; None takes the one that the source proposes, if any. repository: where the image is known
            by its digest; "" for that of the names.
        platform: None is this machine's. driver: unpack into this one right away; "" leaves that to the first
            container. at_once: layers downloaded at the same time.
    """

    reference: str
    names: Sequence[Reference] | None = None
    repository: str = ""
    shown: str = ""
    title: str = ""
    platform: Platform | None = None
    driver: str = ""
    at_once: int = AT_ONCE


@frozen(kw_only=True)
class Arrived:
    """An image that is here now. ``digest``: of what its name means at the source, perhaps an index. ``changed``:
    whether a name means something else than before."""

    image: Image
    digest: str
    changed: bool


@frozen(kw_only=True)
class _Telling:
    """The words of progress: of bytes that come, and whether Docker's other lines for a pull are said too."""

    verb: str
    steps: bool


_PULL = _Telling(verb="Downloading", steps=True)
_LOAD = _Telling(verb="Loading layer", steps=False)


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
        wanted: Wanted,
        *,
        context: SourceContext | None = None,
        verify: Verify = lambda image: None,
        progress: Progress | None = None,
    ) -> Arrived:
        """Get an image from a source.

        Args: make_source: the source's class. context: for it, but for scratch and progress. verify: is asked before
            any layer is fetched.
        Raises: what the source and ``verify`` raise; NotFound when there is nothing for the platform; InvalidArgument
            when bytes are not what their digests say.
        """
        say: Progress = progress or (lambda what, done, total: None)
        with self._content.scratch() as scratch, self._leases.hold() as lease:
            source = make_source(
                evolve(context or SourceContext(scratch="", progress=say), scratch=str(scratch), progress=say)
            )
            try:
                root = source.resolve(wanted.reference, wanted.platform or host_platform())
                if wanted.title:
                    say(wanted.title, 0, None)
                names = wanted.names if wanted.names is not None else _some(_proposed_name(root))
                repositories = [wanted.repository] if wanted.repository else [name.name for name in names]

                def check(image: Image, config: ImageConfig) -> None:
                    verify(policy_document(image, config, names, [(name, root.digest) for name in repositories]))

                received = self._receive(source, root, wanted, lease, say, _PULL, check)
            except OSError as error:
                where = f": {error.filename}" if error.filename else ""
                raise SystemFault(f"getting image {wanted.reference}: {error.strerror or error}{where}") from error
            finally:
                source.close()
            with self._database.write() as connection:
                changed = not _known_as(connection, received.image, names, repositories, root.digest)
                image = self._record(
                    connection, received.image, received.layers, received.documents, names, repositories, [root.digest]
                )
            return Arrived(image=image, digest=root.digest, changed=changed)

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
                    wanted = Wanted(reference=label, platform=platform, driver=driver)
                    try:
                        received = self._receive(archive, found.root, wanted, lease, say, _LOAD)
                    except NotFound as error:
                        if platform is None:
                            raise
                        skipped = error
                        continue
                    loaded.append((received, found.names))
            except OSError as error:
                raise SystemFault(f"loading images: {error.strerror or error}") from error
            finally:
                archive.close()
            if skipped is not None and not loaded:
                raise skipped
            with self._database.write() as connection:
                return [
                    (self._record(connection, one.image, one.layers, one.documents, names, [], []), names)
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
            return self._record(connection, image, layers, [manifest.digest, config.digest], _some(name), [], [])

    def _record(
        self,
        connection: sqlite3.Connection,
        image: Image,
        layers: Sequence[Layer],
        documents: Sequence[str],
        names: Sequence[Reference],
        repositories: Sequence[str],
        digests: Sequence[str],
    ) -> Image:
        """Make the image known, and ``names`` its own; ``digests`` are what ``repositories`` have it under."""
        now = time.time()
        records.add(connection, image, layers, [*documents, *(layer.blob.digest for layer in layers)])
        for name in names:
            records.set_tag(connection, str(name), image.id, now)
        for repository in repositories:
            for digest in digests:
                records.set_digest(connection, repository, digest, image.id)
        return evolve(image, tagged=now) if names else image

    # From a source

    def _receive(
        self,
        source: Source,
        root: Descriptor,
        wanted: Wanted,
        lease: Lease,
        say: Progress,
        telling: _Telling,
        check: Callable[[Image, ImageConfig], None] = lambda image, config: None,
    ) -> _Received:
        """Get all bytes of an image, verified against their digests, and unpack or read its layers, which verifies
        their content. ``check`` may refuse it before that."""
        platform = wanted.platform or host_platform()
        found, manifest, documents = self._manifest(source, root, platform, wanted.shown or wanted.reference, lease)
        config = parse_config(self._document(source, manifest.config, CONFIG_LIMIT, lease))
        check_match(manifest, config)
        if wanted.platform is not None and not runs_on(config.platform, platform):
            raise NotFound(
                f"image with reference {wanted.shown or wanted.reference} was found but its platform "
                f"({config.platform}) does not match the specified platform ({platform})"
            )
        chain = chain_ids(config.diff_ids)
        layers = tuple(
            Layer(diff_id=diff_id, chain_id=chain_id, blob=blob)
            for diff_id, chain_id, blob in zip(config.diff_ids, chain, manifest.layers, strict=True)
        )
        image = Image(
            id=manifest.config.digest,
            manifest=found,
            chain_id=chain[-1] if chain else "",
            platform=config.platform,
            created=parse_time(config.created),
            labels=config.labels,
        )
        check(image, config)
        with self._database.read() as connection:
            known = records.by_id(connection, image.id) is not None
        self._layers_of(source, layers, wanted, lease, say, telling, known)
        return _Received(root=root, image=image, layers=layers, documents=(*documents, manifest.config.digest))

    def _layers_of(
        self,
        source: Source,
        layers: Sequence[Layer],
        wanted: Wanted,
        lease: Lease,
        say: Progress,
        telling: _Telling,
        known: bool,
    ) -> None:
        """Fetch, verify and, where a driver was named, unpack the layers, all at the same time. ``known``: their image
        is here."""
        lease.add("content", *(layer.blob.digest for layer in layers))
        if wanted.driver:
            lease.add("layer", *(layer.chain_id for layer in layers))
        here = {
            layer.chain_id
            for layer in layers
            if self._content.has(layer.blob.digest) and self._layers.is_unpacked(layer, wanted.driver)
        }
        if telling.steps and not (known and len(here) == len(layers)):
            for layer in layers:
                state = "Already exists" if layer.chain_id in here else "Pulling fs layer"
                say(f"{short(layer.blob.digest)}: {state}", 0, None)
            for layer in [layer for layer in layers if layer.chain_id not in here][wanted.at_once :]:
                say(f"{short(layer.blob.digest)}: Waiting", 0, None)

        def done(layer: Layer) -> None:
            if telling.steps and layer.chain_id not in here:
                say(f"{short(layer.blob.digest)}: Pull complete", 0, None)

        with Downloads(
            source,
            self._content,
            self._locks,
            lease,
            say,
            verb=telling.verb,
            steps=telling.steps,
            at_once=wanted.at_once,
        ) as downloads:
            downloads.start(layer.blob for layer in layers)
            if wanted.driver:
                unpacking = say if telling.steps else None
                self._layers.unpack_layers(layers, wanted.driver, unpacking, downloads, done)
            for layer in layers:
                downloads.wait(layer.blob.digest)
        self._measure(layers, wanted.driver)
        if not wanted.driver:
            for layer in layers:
                done(layer)

    def _manifest(
        self, source: Source, root: Descriptor, platform: Platform, reference: str, lease: Lease
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

    def _document(self, source: Source, descriptor: Descriptor, limit: int, lease: Lease) -> bytes:
        if descriptor.size > limit:
            raise InvalidArgument(f"document {descriptor.digest} of {descriptor.size} bytes is larger than {limit}")
        fetch_document(source, self._content, self._locks, lease, descriptor)
        return self._content.read(descriptor.digest, limit)

    def _measure(self, layers: Sequence[Layer], driver: str) -> None:
        """Verify the content of layers that were not unpacked, by reading them, and learn what sizes are unknown."""
        with self._database.read() as connection:
            if driver:
                unknown = [layer for layer in layers if not records.has_size(connection, layer)]
            else:
                unknown = [layer for layer in layers if not records.is_verified(connection, layer)]
        for layer in {layer.diff_id: layer for layer in unknown}.values():
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


def policy_document(
    image: Image, config: ImageConfig, names: Sequence[Reference], digests: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """What the moment ``dockp_image_verify`` gets; ``digests`` are (repository, digest)."""
    return {
        "id": image.id,
        "references": [name.familiar for name in names],
        "digests": [parse(f"{repository}@{digest}").familiar for repository, digest in digests],
        "manifest": image.manifest.digest,
        "platform": str(image.platform),
        "config": dict(config.document),
    }


def _known_as(
    connection: sqlite3.Connection, image: Image, names: Sequence[Reference], repositories: Sequence[str], digest: str
) -> bool:
    """Whether all names mean this image already; without names, its repositories' digest."""
    if names:
        known = [records.by_tag(connection, str(name)) for name in names]
    else:
        known = [records.by_digest(connection, name, digest) for name in repositories] or [None]
    return all(one is not None and one.id == image.id for one in known)


def _some(name: Reference | None) -> Sequence[Reference]:
    return () if name is None else (name,)


def _proposed_name(root: Descriptor) -> Reference | None:
    text = root.annotations.get(NAME_ANNOTATION, "")
    if not text or not re.search(r"[:/]", text):
        return None
    name = parse(text).with_default_tag()
    return None if name.digest else name
