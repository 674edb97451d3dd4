"""The journal: what is being done, by whom, so that a command killed half-way leaves nothing half-made.

An operation is a row written *before* its first side effect and deleted after its last, in the same transactions as
the records themselves. Its owner is a number that the engine's process keeps locked (an open-file-description lock,
fcntl(2), gone at the very moment the process dies, however it dies). A row whose owner is not locked is an orphan.

There is one way back for both cases, failure and death: the undo function registered for the kind of operation. It gets
the object's id and the payload noted last, and must be idempotent.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dockp.linux.locks import RangeLocks
from dockp.store.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    object TEXT NOT NULL,
    payload TEXT NOT NULL,
    owner INTEGER NOT NULL,
    created REAL NOT NULL
)
"""

_OWNER_BITS = 62
_RECOVERY = 1 << _OWNER_BITS
"""Added to an owner's number, it is the byte that whoever cleans up after that owner locks."""

Undo = Callable[[str, dict[str, Any]], None]

_log = logging.getLogger(__name__)


class Operation:
    """One journaled operation, as `Journal.operation` yields it."""

    def __init__(self, journal: Journal, row: int, payload: dict[str, Any]) -> None:
        self._journal = journal
        self._row = row
        self.payload = payload
        self.finished = False

    def note(self, **more: Any) -> None:
        """Add facts that undo will need, before the side effect that makes them true."""
        self.payload.update(more)
        with self._journal.database.write() as connection:
            connection.execute("UPDATE journal SET payload = ? WHERE id = ?", (json.dumps(self.payload), self._row))

    def finish(self, connection: sqlite3.Connection) -> None:
        """End the operation in the caller's transaction, together with the record that makes it true."""
        connection.execute("DELETE FROM journal WHERE id = ?", (self._row,))
        self.finished = True


class Journal:
    """The journal of one data root.

    Args: owners: the lock file that tells the living from the dead. exclusive: locks one object; `recover` uses it,
    while an operation that fails is undone under the lock that its caller holds already.
    """

    def __init__(
        self, database: Database, owners: Path, exclusive: Callable[[str], contextlib.AbstractContextManager[object]]
    ) -> None:
        self.database = database
        self._exclusive = exclusive
        self._locks = RangeLocks(str(owners))
        self._undo: dict[str, Undo] = {}
        self._stack = contextlib.ExitStack()
        self._owner: int | None = None

    @property
    def owner(self) -> int:
        """This process's number, locked from the first use until `close`."""
        if self._owner is None:
            owner = int.from_bytes(os.urandom(8), "big") >> 2
            self._stack.enter_context(self._locks.hold(owner))
            self._owner = owner
        return self._owner

    def alive(self, owner: int) -> bool:
        """Whether the process with that number still runs."""
        return owner == self._owner or self._locks.is_held(owner)

    def register(self, kind: str, undo: Undo) -> None:
        """Name the way back for one kind of operation."""
        self._undo[kind] = undo

    @contextlib.contextmanager
    def operation(
        self, kind: str, object_id: str, record: Callable[[sqlite3.Connection], None] | None = None, **payload: Any
    ) -> Iterator[Operation]:
        """Do something that must be whole or not at all.

        ``record`` is run in the transaction that writes the row. When the body raises, the kind's undo is called and
        the exception goes on; when undo itself fails, the row stays for a later `recover`.
        """
        owner = self.owner
        with self.database.write() as connection:
            cursor = connection.execute(
                "INSERT INTO journal (kind, object, payload, owner, created) VALUES (?, ?, ?, ?, ?)",
                (kind, object_id, json.dumps(payload), owner, time.time()),
            )
            if record is not None:
                record(connection)
            row = cursor.lastrowid
        assert row is not None
        operation = Operation(self, row, dict(payload))
        try:
            yield operation
        except BaseException:
            self._back_out(row, kind, object_id, operation.payload)
            raise
        if not operation.finished:
            with self.database.write() as connection:
                operation.finish(connection)

    def recover(self) -> int:
        """Undo what dead processes left half-done; how many operations that were. Cheap when there is nothing."""
        with self.database.read() as connection:
            rows = connection.execute("SELECT id, owner, object FROM journal").fetchall()
        mended = 0
        for row in rows:
            if self.alive(row["owner"]):
                continue
            # Two recoverers must not do the same work. Not the owner's own number: undo functions ask `alive`, and to
            # them the owner has to stay dead.
            with self._locks.hold(_RECOVERY + row["owner"]), self._exclusive(row["object"]):
                with self.database.read() as connection:
                    found = connection.execute("SELECT * FROM journal WHERE id = ?", (row["id"],)).fetchone()
                if found is not None and self._back_out(
                    found["id"], found["kind"], found["object"], json.loads(found["payload"])
                ):
                    mended += 1
        return mended

    def close(self) -> None:
        """Give the process's number back. What it left open becomes recoverable by others."""
        self._stack.close()
        self._owner = None

    def _back_out(self, row: int, kind: str, object_id: str, payload: dict[str, Any]) -> bool:
        undo = self._undo.get(kind)
        if undo is None:
            _log.warning("journal: no way back for %s of %s; left as it is", kind, object_id)
            return False
        try:
            undo(object_id, payload)
        except Exception as error:
            # Keep the row: the next command tries again. The error that started this must not be masked.
            _log.warning("journal: could not undo %s of %s: %s", kind, object_id, error)
            return False
        with self.database.write() as connection:
            connection.execute("DELETE FROM journal WHERE id = ?", (row,))
        return True
