"""The snapshot service: the graph of snapshots above the storage drivers.

Drivers hold bytes under opaque ids; this module holds who is whose parent, what each is for, and how far it got. A row
is written before the driver is asked to make something and deleted after it removed it, so the row is the journal:

* ``making``: the process whose journal owner is in ``maker`` is at it. When that process is dead, it is garbage.
* ``ready``: complete. *Active* snapshots are writable and belong to ``owner``; *committed* ones are layers.
* ``removing``: to be freed; anyone may finish it, and its layer counts as gone already.

Ids are row numbers, never used twice, and a parent's is always the smaller one. What a driver holds without a row is
garbage (`SnapshotService.reconcile`).

Locks: the layer's lock while a layer is made, the snapshot's while it is removed; never both, and no transaction is
open during a driver call.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import field, frozen

from dockp.linux.locks import RangeLocks, offset_of
from dockp.spi.errors import AlreadyExists, DockpError, FailedPrecondition, InvalidArgument, NotFound, SystemFault
from dockp.spi.storage import StorageDriver
from dockp.spi.values import ChangesDirectory, Mount, Usage
from dockp.store.database import Database
from dockp.store.journal import Journal

SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    driver TEXT NOT NULL,
    parent INTEGER REFERENCES snapshots(id),
    kind TEXT NOT NULL CHECK (kind IN ('active', 'committed')),
    state TEXT NOT NULL CHECK (state IN ('making', 'ready', 'removing')),
    maker INTEGER NOT NULL,
    owner TEXT,
    chain_id TEXT,
    size INTEGER,
    inodes INTEGER,
    labels TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS snapshots_layer ON snapshots(driver, chain_id) WHERE chain_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS snapshots_parent ON snapshots(parent) WHERE parent IS NOT NULL;
CREATE INDEX IF NOT EXISTS snapshots_owner ON snapshots(owner) WHERE owner IS NOT NULL
"""

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Snapshot:
    """One snapshot. ``id`` is the core's number; `key` is what the driver knows it by.

    Attributes:
        owner: who an active snapshot is for, a container id; None for a layer.
        chain_id: the layer a committed snapshot is; None for an active one.
        size: bytes, recorded at commit; None before.
        created: seconds since the epoch.
    """

    id: int
    driver: str
    parent: int | None
    kind: Literal["active", "committed"]
    owner: str | None
    chain_id: str | None
    size: int | None
    created: float
    labels: Mapping[str, str] = field(factory=dict)

    @property
    def key(self) -> str:
        """The driver's id."""
        return str(self.id)


@frozen(kw_only=True)
class Reconciled:
    """What `SnapshotService.reconcile` did: driver ids it removed, and snapshots recorded but not found."""

    removed: tuple[str, ...]
    missing: tuple[Snapshot, ...]


class _Dropped(Exception):
    """What was begun is not wanted after all."""


class Pile:
    """Layers in the making; see `SnapshotService.pile`.

    Attributes:
        layers: their writable snapshots by chain ID, base first. All but the first are without a parent as yet, and to
            be filled as a directory of changes with whiteouts of the kind "overlay".
        below: the complete layer that they stand on.
    """

    def __init__(self, service: SnapshotService, storage: StorageDriver) -> None:
        self.storage = storage
        self.layers: dict[str, Snapshot] = {}
        self.below: int | None = None
        self._service = service

    def finish(self, filled: Sequence[tuple[str, bool]]) -> None:
        """Make the lowest layers complete, together: all that were filled, each with its chain ID and whether its root
        directory is to be like its parent's."""
        if filled:
            layers = [(chain_id, self.layers[chain_id], inherits) for chain_id, inherits in filled]
            self._service._finish(self.storage, self.below, layers)


class SnapshotService:
    """Snapshots of one data root in whichever drivers. Thread-safe, and shared with other processes.

    ``drivers`` gives the opened driver of that name, or raises NotFound or Unavailable.
    """

    def __init__(
        self, database: Database, drivers: Callable[[str], StorageDriver], locks: RangeLocks, journal: Journal
    ) -> None:
        self._database = database
        self._drivers = drivers
        self._locks = locks
        self._journal = journal

    # Making

    def prepare(
        self,
        driver: str,
        parent: int | None,
        owner: str,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """Make a writable snapshot on a layer, or an empty one.

        Args: owner: the container it is for. options: for the driver, such as ``size``.
        Raises: NotFound when ``parent`` is gone, InvalidArgument when it is no layer of that driver, and what the
            driver raises.
        Crash: a half-made snapshot is removed by `reconcile`.
        """
        with self.making(driver, parent, owner, options or {}, labels or {}) as snapshot:
            with self._database.write() as connection:
                self.complete(connection, snapshot)
            return snapshot

    @contextlib.contextmanager
    def making(
        self,
        driver: str,
        parent: int | None,
        owner: str | None,
        options: Mapping[str, str],
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Snapshot]:
        """As `prepare`, but the snapshot goes with an error of the body, whose last transaction calls `complete`."""
        storage = self._drivers(driver)
        maker = self._journal.owner
        with self._database.write() as connection:
            if parent is not None:
                _check_parent(connection, driver, parent)
            now = time.time()
            id = connection.execute(
                "INSERT INTO snapshots (driver, parent, kind, state, maker, owner, labels, created)"
                " VALUES (?, ?, 'active', 'making', ?, ?, ?, ?)",
                (driver, parent, maker, owner, json.dumps(dict(labels or {})), now),
            ).lastrowid
        assert id is not None
        try:
            with _faults(driver):
                storage.create(str(id), None if parent is None else str(parent), options)
            yield Snapshot(
                id=id,
                driver=driver,
                parent=parent,
                kind="active",
                owner=owner,
                chain_id=None,
                size=None,
                created=now,
                labels=dict(labels or {}),
            )
        except BaseException:
            # What cannot be freed now stays marked, and reconcile frees it; the first error is the one to report.
            try:
                with self._database.write() as connection:
                    self._mark_removing(connection, id)
                self._finish_removal(id, driver)
            except DockpError as error:
                _log.warning("snapshot %s of storage driver %s is left for later removal: %s", id, driver, error)
            raise

    def complete(self, connection: sqlite3.Connection, snapshot: Snapshot) -> None:
        """Let a snapshot of `making` stay, in the caller's transaction."""
        connection.execute("UPDATE snapshots SET state = 'ready' WHERE id = ?", (snapshot.id,))

    def build_layer(
        self, driver: str, chain_id: str, parent: int | None, fill: Callable[[Snapshot, StorageDriver], None]
    ) -> Snapshot:
        """The layer ``chain_id`` in ``driver``: the one that is there, or a new one, filled by ``fill`` and sealed.

        When several want the same layer, one makes it and the others wait and get it.
        Raises: what ``fill`` and the driver raise; nothing is left then.
        """
        with self._locks.hold(offset_of("layer", driver, chain_id)):
            found = self.layer(driver, chain_id)
            if found is not None:
                return found
            with self.making(driver, parent, None, {}, {}) as snapshot:
                with _faults(driver):
                    fill(snapshot, self._drivers(driver))
                return self._seal(snapshot, chain_id)

    @contextlib.contextmanager
    def pile(self, driver: str, chain_ids: Sequence[str]) -> Iterator[Pile]:
        """Make several layers, each on the one before it, that are filled in any order. Only for drivers that can
        `rebase`.

        What is there already is left out. What `Pile.finish` did not make complete goes at the end. Others who want one
        of these layers wait until then.
        Args: chain_ids: base first.
        """
        storage = self._drivers(driver)
        with contextlib.ExitStack() as stack:
            pile = Pile(self, storage)
            for chain_id in chain_ids:
                lock = stack.enter_context(self._locks.hold(offset_of("layer", driver, chain_id)))
                found = self.layer(driver, chain_id)
                if found is not None:
                    lock.release()
                    pile.below = found.id
                    continue
                below = None if pile.layers else pile.below
                snapshot = stack.enter_context(self._dropped_unless_complete(driver, below))
                pile.layers[chain_id] = snapshot
            yield pile

    @contextlib.contextmanager
    def _dropped_unless_complete(self, driver: str, parent: int | None) -> Iterator[Snapshot]:
        with contextlib.suppress(_Dropped), self.making(driver, parent, None, {}) as snapshot:
            yield snapshot
            with self._database.read() as connection:
                row = connection.execute("SELECT state FROM snapshots WHERE id = ?", (snapshot.id,)).fetchone()
            if row["state"] == "making":
                raise _Dropped

    def _finish(self, storage: StorageDriver, parent: int | None, layers: Sequence[tuple[str, Snapshot, bool]]) -> None:
        parents: list[int | None] = [parent, *(snapshot.id for _, snapshot, _ in layers[:-1])]
        with self._database.write() as connection:
            for below, (_, snapshot, _) in zip(parents, layers, strict=True):
                connection.execute("UPDATE snapshots SET parent = ? WHERE id = ?", (below, snapshot.id))
        driver = layers[0][1].driver
        with _faults(driver):
            for below, (_, snapshot, inherits) in list(zip(parents, layers, strict=True))[1:]:
                storage.rebase(snapshot.key, str(below), inherits)
            storage.seal_all([snapshot.key for _, snapshot, _ in layers])
            usages = [storage.usage(snapshot.key) for _, snapshot, _ in layers]
        with self._database.write() as connection:
            for (chain_id, snapshot, _), usage in zip(layers, usages, strict=True):
                self._mark_sealed(connection, snapshot.id, chain_id, usage)

    def can_rebase(self, driver: str) -> bool:
        """Whether `pile` works in that driver."""
        return self._drivers(driver).rebases

    def commit(self, id: int, chain_id: str) -> Snapshot:
        """Turn an active snapshot, mounted nowhere any more, into the layer ``chain_id``.

        Raises: NotFound; FailedPrecondition when it is not active; AlreadyExists when the driver has that layer (the
        snapshot then stays active).
        """
        snapshot = self.get(id)
        if snapshot.kind != "active":
            raise FailedPrecondition(f"snapshot {id} is committed already")
        with self._locks.hold(offset_of("layer", snapshot.driver, chain_id)):
            if self.layer(snapshot.driver, chain_id) is not None:
                raise AlreadyExists(f"storage driver {snapshot.driver} has layer {chain_id} already")
            return self._seal(snapshot, chain_id)

    # Finding

    def get(self, id: int) -> Snapshot:
        """One complete snapshot. Raises: NotFound."""
        found = self._select("id = ? AND state = 'ready'", id)
        if not found:
            raise NotFound(f"no such snapshot: {id}")
        return found[0]

    def layer(self, driver: str, chain_id: str) -> Snapshot | None:
        """The unpacked layer, or None."""
        found = self._select("driver = ? AND chain_id = ? AND state = 'ready'", driver, chain_id)
        return found[0] if found else None

    def owned_by(self, owner: str) -> Sequence[Snapshot]:
        """Every active snapshot of a container, half-made ones included: what to remove with it."""
        return self._select("owner = ?", owner)

    def list(self, driver: str | None = None) -> Sequence[Snapshot]:
        """Every complete snapshot, parents first."""
        if driver is None:
            return self._select("state = 'ready'")
        return self._select("driver = ? AND state = 'ready'", driver)

    def drivers(self) -> Sequence[str]:
        """The names of the drivers that hold, or may hold, snapshots."""
        with self._database.read() as connection:
            return [row[0] for row in connection.execute("SELECT DISTINCT driver FROM snapshots ORDER BY driver")]

    # Using

    def mounts(self, id: int, read_only: bool = False) -> Sequence[Mount]:
        """How to mount it; a layer always read-only. Raises: NotFound."""
        snapshot = self.get(id)
        with _faults(snapshot.driver):
            return self._drivers(snapshot.driver).mounts(snapshot.key, read_only or snapshot.kind == "committed")

    def usage(self, id: int) -> Usage:
        """Disk use without parents: as recorded for a layer, measured for an active snapshot. Raises: NotFound."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT size, inodes FROM snapshots WHERE id = ? AND kind = 'committed' AND state = 'ready'", (id,)
            ).fetchone()
        if row is not None:
            return Usage(size=row["size"], inodes=row["inodes"])
        snapshot = self.get(id)
        with _faults(snapshot.driver):
            return self._drivers(snapshot.driver).usage(snapshot.key)

    def changes(self, id: int) -> Sequence[ChangesDirectory]:
        """Where the changes of a snapshot, and of every layer below it, lie as plain files, nearest first; nothing when
        its driver has no such places. Raises: NotFound."""
        found: list[ChangesDirectory] = []
        next: int | None = id
        while next is not None:
            snapshot = self.get(next)
            with _faults(snapshot.driver):
                directory = self._drivers(snapshot.driver).changes(snapshot.key)
            if directory is None:
                return ()
            found.append(directory)
            next = snapshot.parent
        return found

    # Removing

    def remove(self, id: int) -> None:
        """Free a snapshot. An absent one is success.

        Raises: FailedPrecondition while another is made on top of it, or the driver says what still uses it.
        """
        self.remove_if(id, "SELECT id FROM snapshots WHERE id = ?")

    def remove_if(self, id: int, condition: str) -> int | None:
        """Free a snapshot if the query ``condition``, given the id, finds a row in the transaction that marks it.

        Returns: the bytes recorded for it (0 when unknown), or None when the condition does not hold.
        Raises: as `remove`.
        """
        with self._database.write() as connection:
            if connection.execute(condition, (id,)).fetchone() is None:
                return None
            row = connection.execute("SELECT * FROM snapshots WHERE id = ?", (id,)).fetchone()
            child = connection.execute("SELECT id FROM snapshots WHERE parent = ?", (id,)).fetchone()
            if child is not None:
                raise FailedPrecondition(f"snapshot {id} is the parent of snapshot {child['id']}: remove that first")
            if row["state"] == "making" and self._journal.alive(row["maker"]) and row["maker"] != self._journal.owner:
                raise FailedPrecondition(f"snapshot {id} is being made by another process")
            self._mark_removing(connection, id)
        self._finish_removal(id, row["driver"])
        return row["size"] or 0

    def reconcile(self, driver: str) -> Reconciled:
        """Compare the records with what the driver holds: remove what is half-made or unknown, report what is missing.

        Safe at any time beside other processes: a row is there before the driver makes anything, and after it freed
        it, so what the driver showed *before* the rows were read and has no row is nobody's.
        """
        expected = {snapshot.id: snapshot for snapshot in self.list(driver)}
        with _faults(driver):
            inventory = self._drivers(driver).inventory()
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, state, maker FROM snapshots WHERE driver = ? ORDER BY id DESC", (driver,)
            ).fetchall()
        removed = []
        # Descending ids: children come before their parents.
        for row in rows:
            if row["state"] == "removing" or (row["state"] == "making" and not self._journal.alive(row["maker"])):
                with contextlib.suppress(FailedPrecondition):
                    self.remove(row["id"])
                    removed.append(str(row["id"]))
        for key in sorted(inventory - {str(row["id"]) for row in rows}):
            _log.warning("storage driver %s holds %s, which nothing refers to: removing it", driver, key)
            with _faults(driver):
                self._drivers(driver).remove(key)
            removed.append(key)
        ready = {row["id"] for row in rows if row["state"] == "ready"}
        missing = tuple(s for id, s in sorted(expected.items()) if id in ready and s.key not in inventory)
        for snapshot in missing:
            _log.warning("storage driver %s has lost snapshot %s", driver, snapshot.key)
        return Reconciled(removed=tuple(removed), missing=missing)

    # Inside

    def _seal(self, snapshot: Snapshot, chain_id: str) -> Snapshot:
        storage = self._drivers(snapshot.driver)
        with _faults(snapshot.driver):
            storage.seal(snapshot.key)
            usage = storage.usage(snapshot.key)
        with self._database.write() as connection:
            self._mark_sealed(connection, snapshot.id, chain_id, usage)
        return self.get(snapshot.id)

    def _mark_sealed(self, connection: sqlite3.Connection, id: int, chain_id: str, usage: Usage) -> None:
        connection.execute(
            "UPDATE snapshots SET kind = 'committed', state = 'ready', chain_id = ?, owner = NULL, size = ?,"
            " inodes = ? WHERE id = ?",
            (chain_id, usage.size, usage.inodes, id),
        )

    def _mark_removing(self, connection: sqlite3.Connection, id: int) -> None:
        # Without its chain ID the layer is gone for everybody, and can be made anew while this one is being freed.
        connection.execute("UPDATE snapshots SET state = 'removing', chain_id = NULL WHERE id = ?", (id,))

    def _finish_removal(self, id: int, driver: str) -> None:
        with self._locks.hold(offset_of("snapshot", str(id))):
            with _faults(driver):
                self._drivers(driver).remove(str(id))
            with self._database.write() as connection:
                connection.execute("DELETE FROM snapshots WHERE id = ?", (id,))

    def _select(self, condition: str, *values: object) -> Sequence[Snapshot]:
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT * FROM snapshots WHERE {condition} ORDER BY id", values).fetchall()
        return [
            Snapshot(
                id=row["id"],
                driver=row["driver"],
                parent=row["parent"],
                kind=row["kind"],
                owner=row["owner"],
                chain_id=row["chain_id"],
                size=row["size"],
                created=row["created"],
                labels=json.loads(row["labels"]),
            )
            for row in rows
        ]


def _check_parent(connection: sqlite3.Connection, driver: str, parent: int) -> None:
    row = connection.execute("SELECT driver, kind, state FROM snapshots WHERE id = ?", (parent,)).fetchone()
    if row is None or row["state"] != "ready":
        raise NotFound(f"no such snapshot: {parent}")
    if row["driver"] != driver:
        raise InvalidArgument(f"snapshot {parent} is in storage driver {row['driver']}, not in {driver}")
    if row["kind"] != "committed":
        raise InvalidArgument(f"snapshot {parent} is still writable and cannot be a parent")


@contextlib.contextmanager
def _faults(driver: str) -> Iterator[None]:
    """Drivers may raise OSError as it comes; callers get one line."""
    try:
        yield
    except OSError as error:
        raise SystemFault(
            f"storage driver {driver}: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
        ) from error
