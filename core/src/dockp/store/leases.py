"""Leases: what is being worked on and must not be collected yet.

Whoever makes or relies on something that no image names yet writes it into a lease *before* making or looking for it.
The collector deletes inside a write transaction, after checking the leases there; so either it sees the reference, or
the worker sees that the thing is gone and makes it anew. A lease ends with its context, or with its process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Literal

from dockp.store.database import Database
from dockp.store.journal import Journal

SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner INTEGER NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS lease_refs (
    lease INTEGER NOT NULL REFERENCES leases(id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('content', 'layer')),
    name TEXT NOT NULL,
    PRIMARY KEY (kind, name, lease)
) WITHOUT ROWID
"""

Kind = Literal["content", "layer"]
"""``content``: a blob, by digest. ``layer``: an unpacked layer in whatever driver, by chain ID."""


class Lease:
    """One lease, as `Leases.hold` yields it."""

    def __init__(self, database: Database, row: int) -> None:
        self._database = database
        self._row = row

    def add(self, kind: Kind, *names: str) -> None:
        """Keep these. Only after this it is worth asking whether they are there."""
        with self._database.write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO lease_refs (lease, kind, name) VALUES (?, ?, ?)",
                [(self._row, kind, name) for name in names],
            )


class Leases:
    """The leases of one data root; a process is told living from dead by the journal's owner number."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal

    @contextlib.contextmanager
    def hold(self) -> Iterator[Lease]:
        """A lease for the length of the context."""
        owner = self._journal.owner
        with self._database.write() as connection:
            row = connection.execute(
                "INSERT INTO leases (owner, created) VALUES (?, ?)", (owner, time.time())
            ).lastrowid
        assert row is not None
        try:
            yield Lease(self._database, row)
        finally:
            with self._database.write() as connection:
                connection.execute("DELETE FROM leases WHERE id = ?", (row,))

    def expire(self) -> int:
        """Drop the leases of dead processes; how many that were."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT id, owner FROM leases").fetchall()
        dead = [(row["id"],) for row in rows if not self._journal.alive(row["owner"])]
        if dead:
            with self._database.write() as connection:
                connection.executemany("DELETE FROM leases WHERE id = ?", dead)
        return len(dead)
