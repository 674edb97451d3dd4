from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from attrs import frozen

from dockp.images.records import SCHEMA as IMAGES
from dockp.images.service import ImageService
from dockp.linux.locks import RangeLocks, offset_of
from dockp.spi.storage import StorageDriver
from dockp.store.content import ContentStore
from dockp.store.database import Database
from dockp.store.gc import Collector
from dockp.store.journal import SCHEMA as JOURNAL
from dockp.store.journal import Journal
from dockp.store.leases import SCHEMA as LEASES
from dockp.store.leases import Leases
from dockp.store.snapshots import SCHEMA as SNAPSHOTS
from dockp.store.snapshots import SnapshotService

PRIVILEGED = "these tests unpack layers with owners and devices: run them as root"


@frozen(kw_only=True)
class Store:
    """Everything of one data root that images need, wired as the engine does it."""

    path: Path
    database: Database
    journal: Journal
    content: ContentStore
    leases: Leases
    snapshots: SnapshotService
    images: ImageService
    collector: Collector
    users: dict[str, bool]

    def directory(self, driver: str, id: int) -> Path:
        """Where vfs keeps a snapshot's files."""
        (mount,) = self.snapshots.mounts(id)
        return Path(mount.source)


def open_store(path: Path) -> Store:
    """Open, or make, the data root ``path``; several may be open at once, in whatever processes."""
    database = Database(path / "state.db", [JOURNAL, LEASES, SNAPSHOTS, IMAGES])
    locks = RangeLocks(path / "locks")
    journal = Journal(database, path / "owners", lambda object: locks.hold(offset_of("object", object)))
    content = ContentStore(path)
    leases = Leases(database, journal)
    opened: dict[str, StorageDriver] = {}

    def driver(name: str) -> StorageDriver:
        if name not in opened:
            if name == "vfs":
                from dockp_storage_vfs.driver import VfsDriver as Driver
            else:
                from dockp_storage_overlay2.driver import Overlay2Driver as Driver  # type: ignore[assignment]
            opened[name] = Driver(path / name, {})
        return opened[name]

    snapshots = SnapshotService(database, driver, locks, journal)
    used: dict[str, bool] = {}
    return Store(
        path=path,
        database=database,
        journal=journal,
        content=content,
        leases=leases,
        snapshots=snapshots,
        images=ImageService(database, content, leases, snapshots, locks),
        collector=Collector(database, content, snapshots, leases, locks, lambda: used),
        users=used,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    assert os.geteuid() == 0, PRIVILEGED
    path = tmp_path / "root"
    path.mkdir()
    opened = open_store(path)
    yield opened
    opened.journal.close()
    opened.database.close()


@pytest.fixture
def reopen() -> Callable[[Path], Store]:
    return open_store


@pytest.fixture
def make_tar() -> Callable[[Mapping[str, bytes | None]], bytes]:
    """A tar from names to contents; None makes a directory."""

    def make(files: Mapping[str, bytes | None]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.mtime = 1_700_000_000
                if data is None:
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(entry)
                else:
                    entry.size, entry.mode = len(data), 0o644
                    archive.addfile(entry, io.BytesIO(data))
        return out.getvalue()

    return make
