"""Layers into storage drivers: unpack each once, verified, in whichever driver needs it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from attrs import frozen

from dockp.images import records
from dockp.images.records import Image, Layer
from dockp.spi.errors import InvalidArgument, NotFound, SystemFault
from dockp.store.content import CHUNK, ContentStore
from dockp.store.database import Database
from dockp.store.snapshots import Snapshot, SnapshotService

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from dockp.archive.apply import Applied
    from dockp.archive.compression import Digesting
    from dockp.spi.storage import StorageDriver
    from dockp.spi.values import Mount

Progress = Callable[[str, int, int | None], None]


class Blobs(Protocol):
    """Blobs that are here, or on their way in: see `dockp.images.transfer.Downloads`."""

    def open(self, digest: str) -> BinaryIO: ...
    def wait(self, digest: str) -> None: ...
    def whole(self, digest: str) -> bool: ...
    def stop(self) -> None: ...


class _Stored:
    """The blobs of the content store."""

    def __init__(self, content: ContentStore) -> None:
        self.open = content.open

    def wait(self, digest: str) -> None:
        return

    def whole(self, digest: str) -> bool:
        return True

    def stop(self) -> None:
        return


class LayerUnpacker:
    """Unpacks layers of one data root. Threads and processes that want the same layer share the work."""

    def __init__(self, database: Database, content: ContentStore, snapshots: SnapshotService) -> None:
        self._database = database
        self._content = content
        self._snapshots = snapshots

    def top(self, image: Image, driver: str) -> Snapshot | None:
        """The unpacked top layer of ``image``, or None when it is not unpacked in ``driver``. One query."""
        return self._snapshots.layer(driver, image.chain_id) if image.chain_id else None

    def is_unpacked(self, layer: Layer, driver: str) -> bool:
        """Whether the layer is there in ``driver``; with "", whether its content was verified once."""
        if driver:
            return self._snapshots.layer(driver, layer.chain_id) is not None
        with self._database.read() as connection:
            return records.is_verified(connection, layer)

    def unpack(self, image: Image, driver: str, progress: Progress | None = None) -> Snapshot | None:
        """The top layer of ``image`` in ``driver``, unpacked now where it was not; None for an image without layers.

        Raises: NotFound when the image is being removed; InvalidArgument when a layer is malformed or is not what the
        config promised.
        """
        if not image.chain_id:
            return None
        found = self.top(image, driver)
        if found is not None:
            return found
        with self._database.read() as connection:
            layers = records.layers_of(connection, image.id)
        if not layers:
            raise NotFound(f"No such image: {image.id}")
        return self.unpack_layers(layers, driver, progress)

    def unpack_layers(
        self,
        layers: Sequence[Layer],
        driver: str,
        progress: Progress | None = None,
        blobs: Blobs | None = None,
        done: Callable[[Layer], None] = lambda layer: None,
    ) -> Snapshot | None:
        """Unpack ``layers``, base first; the top one. A lease or an image must hold them.

        Args: blobs: where to read them; None is the content store, where they are complete. done: called after each,
            in their order.
        """
        work = _Unpacking(
            self._content, self._snapshots, driver, blobs or _Stored(self._content), progress, self._set_size
        )
        missing = sum(self._snapshots.layer(driver, layer.chain_id) is None for layer in layers)
        if missing > 1 and self._snapshots.can_rebase(driver):
            return work.side_by_side(layers, done)
        return work.one_by_one(layers, done)

    def measure(self, layer: Layer) -> None:
        """Verify a layer's diff ID and record its size without unpacking it. Raises: InvalidArgument."""
        from dockp.archive.compression import Digesting, open_stream

        with self._content.open(layer.blob.digest) as blob:
            plain = Digesting(open_stream(blob))
            size = total_size(cast(BinaryIO, plain))
            _check(plain, layer)
        self._set_size(layer, size)

    def _set_size(self, layer: Layer, size: int) -> None:
        with self._database.write() as connection:
            records.set_layer_size(connection, layer.diff_id, size)


@frozen
class _Unpacking:
    """The layers of one image on their way into one storage driver. ``set_size`` records what was found."""

    content: ContentStore
    snapshots: SnapshotService
    driver: str
    blobs: Blobs
    progress: Progress | None
    set_size: Callable[[Layer, int], None]

    def one_by_one(self, layers: Sequence[Layer], done: Callable[[Layer], None]) -> Snapshot | None:
        """Each on top of the complete one below."""
        parent: Snapshot | None = None
        for layer in layers:
            parent = self.snapshots.layer(self.driver, layer.chain_id) or self._build(layer, parent)
            self.blobs.wait(layer.blob.digest)
            done(layer)
        return parent

    def side_by_side(self, layers: Sequence[Layer], done: Callable[[Layer], None]) -> Snapshot | None:
        """Several at once, put on top of each other when all of them are filled."""
        from concurrent.futures import Future, ThreadPoolExecutor

        from dockp.archive.apply import NeedsParent

        with (
            self.snapshots.pile(self.driver, [layer.chain_id for layer in layers]) as pile,
            ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1, "unpack") as pool,
            self._stopped_by_an_error(pool),
        ):
            base = next(iter(pile.layers), None) if pile.below is None else None
            filling: dict[str, Future[Applied]] = {
                layer.chain_id: pool.submit(
                    self._apply,
                    pile.layers[layer.chain_id],
                    pile.storage,
                    layer,
                    into_changes=True,
                    whiteouts="" if layer.chain_id == base else "overlay",
                )
                for layer in layers
                if layer.chain_id in pile.layers
            }
            filled: list[tuple[str, bool]] = []
            told: set[str] = set()
            try:
                for layer in layers:
                    if layer.chain_id in filling:
                        applied = filling[layer.chain_id].result()
                        filled.append((layer.chain_id, not applied.root))
                        self.set_size(layer, applied.size)
                    done(layer)
                    told.add(layer.chain_id)
            except NeedsParent:  # this one, and those on it, are made anew below
                for one in filling.values():
                    one.cancel()
            pile.finish(filled)
        # What leaned on its parent, if anything; for the others this is a look.
        return self.one_by_one(layers, lambda layer: None if layer.chain_id in told else done(layer))

    @contextlib.contextmanager
    def _stopped_by_an_error(self, pool: ThreadPoolExecutor) -> Iterator[None]:
        """Inside of the pool, whose end waits for all that reads what will not come any more."""
        try:
            yield
        except BaseException:
            self.blobs.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise

    def _build(self, layer: Layer, parent: Snapshot | None) -> Snapshot:
        from dockp.archive.apply import NeedsParent

        found: Applied | None = None

        def fill(snapshot: Snapshot, storage: StorageDriver) -> None:
            nonlocal found
            found = self._apply(snapshot, storage, layer, into_changes=True)

        def fill_mounted(snapshot: Snapshot, storage: StorageDriver) -> None:
            nonlocal found
            found = self._apply(snapshot, storage, layer, into_changes=False)

        below = None if parent is None else parent.id
        try:
            snapshot = self.snapshots.build_layer(self.driver, layer.chain_id, below, fill)
        except NeedsParent:
            # A layer may lean on what lies below it (a file in a directory it does not list). Seen only while
            # unpacking, so it starts again, this time over the parent's content.
            snapshot = self.snapshots.build_layer(self.driver, layer.chain_id, below, fill_mounted)
        if found is not None:
            self.set_size(layer, found.size)
        return snapshot

    def _apply(
        self, snapshot: Snapshot, storage: StorageDriver, layer: Layer, *, into_changes: bool, whiteouts: str = ""
    ) -> Applied:
        from dockp.archive.apply import apply_layer
        from dockp.archive.compression import Digesting, open_stream

        changes = storage.changes(snapshot.key) if into_changes else None
        with self.blobs.open(layer.blob.digest) as blob:
            plain = Digesting(open_stream(cast(BinaryIO, _Told(blob, lambda done: self._tell(layer, done)))))
            if changes is not None:
                kind = whiteouts or ("overlay" if changes.whiteouts == "overlay" else "delete")
                applied = apply_layer(cast(BinaryIO, plain), changes.path, kind)
            else:
                mounts = storage.mounts(snapshot.key)
                directory = _as_directory(mounts)
                if directory is not None:
                    applied = apply_layer(cast(BinaryIO, plain), directory, "delete")
                else:
                    with self.content.scratch() as target:
                        applied = _apply_mounted(plain, mounts, str(target))
            _check(plain, layer)
        self.blobs.wait(layer.blob.digest)
        return applied

    def _tell(self, layer: Layer, done: int) -> None:
        # While bytes still come, how many they are is what people want to see.
        if self.progress is not None and self.blobs.whole(layer.blob.digest):
            self.progress(f"{layer.blob.digest[7:19]}: Extracting", done, layer.blob.size)


class _Told(io.RawIOBase):
    """A stream that tells how many bytes were read from it."""

    def __init__(self, stream: BinaryIO, tell: Callable[[int], None]) -> None:
        self._stream = stream
        self._tell = tell
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        data = self._stream.read(len(target))
        target[: len(data)] = data
        self._done += len(data)
        self._tell(self._done)
        return len(data)


def _check(plain: Digesting, layer: Layer) -> None:
    """Compare the digest of everything, also of what follows the end of the archive, with the promised one."""
    plain.drain()
    if plain.digest != layer.diff_id:
        raise InvalidArgument(
            f"layer {layer.blob.digest} holds {plain.digest}, but the image config promises {layer.diff_id}"
        )


def total_size(plain: BinaryIO) -> int:
    """Bytes of file data in a plain tar, read to its end. Raises: InvalidArgument when it is malformed."""
    from dockp.archive.reading import ArchiveReader

    return sum(entry.size for entry in ArchiveReader(plain).entries() if entry.isreg())


def _as_directory(mounts: Sequence[Mount]) -> str | None:
    """Where a snapshot can be written without mounting it: one plain bind mount is its source directory."""
    if len(mounts) == 1 and mounts[0].type == "bind" and not set(mounts[0].options) - {"bind", "rbind", "rw"}:
        return mounts[0].source
    return None


def _apply_mounted(plain: Digesting, mounts: Sequence[Mount], target: str) -> Applied:
    """Unpack in a process of its own, which mounts the snapshot where nobody else sees it.

    A process, since unshare(2) of the mount namespace changes the whole caller, and the engine has threads.
    """
    import subprocess

    from dockp.archive.apply import Applied

    request = json.dumps({"target": target, "mounts": [[m.type, m.source, list(m.options)] for m in mounts]})
    with subprocess.Popen(
        [sys.executable, "-I", "-m", "dockp.images.apply_mounted", request],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            while chunk := plain.read(CHUNK):
                child.stdin.write(chunk)
            child.stdin.close()
        except BrokenPipeError:
            pass  # it failed, and says why below
        except BaseException:
            child.kill()
            raise
        answer = child.stdout.read()
    try:
        result = json.loads(answer)
    except ValueError:
        raise SystemFault(f"unpacking a layer ended with status {child.returncode}") from None
    if "size" in result:
        return Applied(size=result["size"], entries=result["entries"])
    raise (InvalidArgument if result["kind"] == "InvalidArgument" else SystemFault)(result["error"])
