"""The collector: frees what no tag, image, container or lease needs any more.

It may run at any time beside anything else. Everything is decided inside a write transaction, in which nobody can add a
lease, an image or a child snapshot. There blobs are moved aside and snapshots are marked; what takes time, freeing
them, comes afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import frozen

from dockp.linux.locks import RangeLocks, offset_of
from dockp.spi.errors import DockpError, FailedPrecondition
from dockp.store.content import ContentStore
from dockp.store.database import Database
from dockp.store.leases import Leases
from dockp.store.snapshots import SnapshotService

_log = logging.getLogger(__name__)

_UNUSED_LAYERS = (
    "SELECT id FROM snapshots AS layer WHERE kind = 'committed' AND state = 'ready'"
    " AND NOT EXISTS (SELECT 1 FROM snapshots AS child WHERE child.parent = layer.id)"
    " AND NOT EXISTS (SELECT 1 FROM image_layers WHERE image_layers.chain_id = layer.chain_id)"
    " AND NOT EXISTS (SELECT 1 FROM lease_refs WHERE kind = 'layer' AND name = layer.chain_id)"
)


@frozen(kw_only=True)
class Collected:
    """What was freed: ``images`` that were removed before and are used no more, ``layers`` (their snapshot ids),
    ``blobs`` by digest, and the ``bytes`` of those blobs and layers."""

    images: tuple[str, ...]
    layers: tuple[int, ...]
    blobs: tuple[str, ...]
    bytes: int


class Collector:
    """Collects in one data root.

    ``used_images``: ids of the images that containers were made from; those keep their layers and blobs even when the
    image itself was removed by force.
    """

    def __init__(
        self,
        database: Database,
        content: ContentStore,
        snapshots: SnapshotService,
        leases: Leases,
        locks: RangeLocks,
        used_images: Callable[[], Iterable[str]],
    ) -> None:
        self._database = database
        self._content = content
        self._snapshots = snapshots
        self._leases = leases
        self._locks = locks
        self._used_images = used_images

    def collect(self) -> Collected:
        """Free what can be freed. When another process is at it already, wait for it and go on."""
        with self._locks.hold(offset_of("collector")):
            self._leases.expire()
            self._content.sweep()
            self.tidy()
            images = self._collect_images()
            layers, layer_bytes = self._collect_layers()
            blobs, blob_bytes = self._collect_blobs()
        return Collected(images=images, layers=layers, blobs=blobs, bytes=layer_bytes + blob_bytes)

    def tidy(self) -> None:
        """Free what killed processes left half-made or half-removed in the storage drivers."""
        for driver in self._snapshots.drivers():
            try:
                self._snapshots.reconcile(driver)
            except DockpError as error:  # perhaps it is not installed any more; the others are not to suffer
                _log.info("storage driver %s cannot be tidied up now: %s", driver, error)

    def _collect_images(self) -> tuple[str, ...]:
        with self._database.write() as connection:
            used = set(self._used_images())
            rows = connection.execute("SELECT id FROM images WHERE removed").fetchall()
            gone = tuple(row["id"] for row in rows if row["id"] not in used)
            connection.executemany("DELETE FROM images WHERE id = ?", [(id,) for id in gone])
            if gone:
                connection.execute(
                    "DELETE FROM layer_sizes WHERE NOT EXISTS"
                    " (SELECT 1 FROM image_layers WHERE image_layers.diff_id = layer_sizes.diff_id)"
                    " AND NOT EXISTS (SELECT 1 FROM leases)"  # an image on its way in may rely on a size
                )
        return gone

    def _collect_layers(self) -> tuple[tuple[int, ...], int]:
        freed: list[int] = []
        failed: set[int] = set()
        size = 0
        # Each round frees what nothing stands on; the layers below come in the next.
        while True:
            with self._database.read() as connection:
                ids = [row["id"] for row in connection.execute(_UNUSED_LAYERS) if row["id"] not in failed]
            if not ids:
                return tuple(freed), size
            for id in ids:
                usage = self._remove_layer(id)
                if usage is None:
                    failed.add(id)
                else:
                    freed.append(id)
                    size += usage

    def _remove_layer(self, id: int) -> int | None:
        try:
            # The check and the mark are one transaction; see SnapshotService.remove.
            return self._snapshots.remove_if(id, _UNUSED_LAYERS + " AND id = ?")
        except FailedPrecondition:
            return None
        except DockpError as error:
            _log.warning("layer snapshot %s cannot be freed now: %s", id, error)
            return None

    def _collect_blobs(self) -> tuple[tuple[str, ...], int]:
        freed: dict[str, Path] = {}
        on_disk = dict(self._content.walk())
        with self._database.write() as connection:
            named = {row[0] for row in connection.execute("SELECT digest FROM image_content")}
            named |= {row[0] for row in connection.execute("SELECT name FROM lease_refs WHERE kind = 'content'")}
            for digest in on_disk.keys() - named:
                place = self._content.withdraw(digest)
                if place is not None:
                    freed[digest] = place
        for place in freed.values():
            place.unlink(missing_ok=True)
        return tuple(sorted(freed)), sum(on_disk[digest] for digest in freed)
