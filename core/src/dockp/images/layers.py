"""Layers into storage drivers: unpack each once, verified, in whichever driver needs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

from dockp.images import records
from dockp.images.records import Image, Layer
from dockp.spi.errors import InvalidArgument, NotFound, SystemFault
from dockp.store.content import CHUNK, ContentStore
from dockp.store.database import Database
from dockp.store.snapshots import Snapshot, SnapshotService

if TYPE_CHECKING:
    from dockp.archive.compression import Digesting
    from dockp.spi.storage import StorageDriver
    from dockp.spi.values import Mount

Progress = Callable[[str, int, int | None], None]


class LayerUnpacker:
    """Unpacks layers of one data root. Threads and processes that want the same layer share the work."""

    def __init__(self, database: Database, content: ContentStore, snapshots: SnapshotService) -> None:
        self._database = database
        self._content = content
        self._snapshots = snapshots

    def top(self, image: Image, driver: str) -> Snapshot | None:
        """The unpacked top layer of ``image``, or None when it is not unpacked in ``driver``. One query."""
        return self._snapshots.layer(driver, image.chain_id) if image.chain_id else None

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

    def unpack_layers(self, layers: Sequence[Layer], driver: str, progress: Progress | None = None) -> Snapshot | None:
        """Unpack ``layers``, base first; the top one. A lease or an image must hold them."""
        parent: Snapshot | None = None
        for layer in layers:
            parent = self._snapshots.layer(driver, layer.chain_id) or self._build(driver, layer, parent, progress)
        return parent

    def measure(self, layer: Layer) -> None:
        """Verify a layer's diff ID and record its size without unpacking it. Raises: InvalidArgument."""
        from dockp.archive.compression import Digesting, open_stream

        with self._content.open(layer.blob.digest) as blob:
            plain = Digesting(open_stream(blob))
            size = total_size(cast(BinaryIO, plain))
            _check(plain, layer)
        with self._database.write() as connection:
            records.set_layer_size(connection, layer.diff_id, size)

    def _build(self, driver: str, layer: Layer, parent: Snapshot | None, progress: Progress | None) -> Snapshot:
        from dockp.archive.apply import NeedsParent

        size: int | None = None

        def fill(snapshot: Snapshot, storage: StorageDriver) -> None:
            nonlocal size
            size = self._apply(snapshot, storage, layer, progress, into_changes=True)

        def fill_mounted(snapshot: Snapshot, storage: StorageDriver) -> None:
            nonlocal size
            size = self._apply(snapshot, storage, layer, progress, into_changes=False)

        below = None if parent is None else parent.id
        try:
            snapshot = self._snapshots.build_layer(driver, layer.chain_id, below, fill)
        except NeedsParent:
            # A layer may lean on what lies below it (a file in a directory it does not list). Seen only while
            # unpacking, so it starts again, this time over the parent's content.
            snapshot = self._snapshots.build_layer(driver, layer.chain_id, below, fill_mounted)
        if size is not None:
            with self._database.write() as connection:
                records.set_layer_size(connection, layer.diff_id, size)
        return snapshot

    def _apply(
        self,
        snapshot: Snapshot,
        storage: StorageDriver,
        layer: Layer,
        progress: Progress | None,
        into_changes: bool,
    ) -> int:
        from dockp.archive.apply import apply_layer
        from dockp.archive.compression import Digesting, open_stream

        what = f"Extracting {layer.blob.digest[7:19]}"

        def report(done: int) -> None:
            if progress is not None:
                progress(what, done, None)

        changes = storage.changes(snapshot.key) if into_changes else None
        with self._content.open(layer.blob.digest) as blob:
            plain = Digesting(open_stream(blob))
            if changes is not None:
                whiteouts = "overlay" if changes.whiteouts == "overlay" else "delete"
                size = apply_layer(cast(BinaryIO, plain), changes.path, whiteouts, report).size
            else:
                mounts = storage.mounts(snapshot.key)
                directory = _as_directory(mounts)
                if directory is not None:
                    size = apply_layer(cast(BinaryIO, plain), directory, "delete", report).size
                else:
                    with self._content.scratch() as target:
                        size = _apply_mounted(plain, mounts, str(target))
            _check(plain, layer)
        return size


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


def _apply_mounted(plain: Digesting, mounts: Sequence[Mount], target: str) -> int:
    """Unpack in a process of its own, which mounts the snapshot where nobody else sees it.

    A process, since unshare(2) of the mount namespace changes the whole caller, and the engine has threads.
    """
    import subprocess

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
        return int(result["size"])
    raise (InvalidArgument if result["kind"] == "InvalidArgument" else SystemFault)(result["error"])
