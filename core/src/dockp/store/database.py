"""The engine's memory: one SQLite file in WAL mode, shared by any number of threads and processes.

Each table is declared beside the code that uses it, as a ``SCHEMA`` string; the engine hands all of them to `Database`.
Commits do not wait for the disk (``synchronous=NORMAL``): a power cut may take the last moments away, never the
consistency, and recovery compares what is left with what the drivers find.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from dockp.spi.errors import FailedPrecondition, SystemFault

SCHEMA_VERSION = 1
"""Kept in ``PRAGMA user_version``. A file with a higher number was written by a newer dockp and is refused."""

_BUSY_SECONDS = 60.0
"""How long a writer queues behind others: 50 commands at once must all get their turn."""


class _Held:
    """A thread's connection, closed with the thread. By itself it would wait for the garbage collector: a connection
    and its cache of statements refer to each other."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Database:
    """``path`` is the file; ``schemas`` are ``CREATE TABLE IF NOT EXISTS`` scripts. Opens lazily, once a thread."""

    def __init__(self, path: Path, schemas: Sequence[str]) -> None:
        self._path = path
        self._schemas = schemas
        self._local = threading.local()
        self._ready = False
        self._held: weakref.WeakSet[_Held] = weakref.WeakSet()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for reading. Inside `write` of the same thread it sees what was written so far.

        Raises: SystemFault when the file cannot be read.
        """
        try:
            yield self._connection()
        except sqlite3.Error as error:
            raise self._fault(error) from error

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back by an exception. Nested uses join the outer one.

        Raises: SystemFault when the disk is full or read-only.
        """
        try:
            connection = self._connection()
            if connection.in_transaction:
                yield connection
                return
            # IMMEDIATE: take the write lock now, so that two readers never both try to upgrade and one must fail.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Close every thread's connection. The object can be used again afterwards."""
        with self._guard:
            for held in list(self._held):
                held.connection.close()
            self._held.clear()
            self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        held: _Held | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = _Held(self._open())
            with self._guard:
                self._held.add(held)
        return held.connection

    def _open(self) -> sqlite3.Connection:
        # Connections stay in their thread; only close() touches them from another, hence check_same_thread=False.
        # isolation_level=None: transactions begin where this module says so, nowhere else.
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            if not self._ready:
                self._prepare(connection)
                self._ready = True
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise FailedPrecondition(
                f"{self._path} was written by a newer dockp (state version {version}, this one knows "
                f"{SCHEMA_VERSION}): upgrade dockp, or choose another --data-root"
            )
        os.chmod(self._path, 0o600)
        # Switching to WAL needs the file for itself for a moment, and does not wait by the busy timeout:
        # the first of several commands on a new root does it under SQLite's own exclusive lock.
        _retry_locked(lambda: connection.execute("PRAGMA journal_mode=WAL"))
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                for script in self._schemas:
                    for statement in script.split(";"):
                        if statement.strip():
                            connection.execute(statement)
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def _fault(self, error: sqlite3.Error) -> SystemFault:
        text = str(error)
        if "unable to open" in text and not self._path.parent.is_dir():
            text = f"{self._path.parent} is not a directory"
        hint = {
            "database or disk is full": "free some space on its file system",
            "attempt to write a readonly database": "its file system is read-only",
            "database disk image is malformed": "the file is damaged; restore it or start with a new --data-root",
            "file is not a database": "the file is damaged; restore it or start with a new --data-root",
        }.get(text, "") or self._trouble()
        return SystemFault(f"state database {self._path}: {text}" + (f": {hint}" if hint else ""))

    def _trouble(self) -> str:
        """What is wrong with the file system, since SQLite says no more than that it could not open or write."""
        try:
            system = os.statvfs(self._path.parent)
        except OSError:
            return ""
        if system.f_flag & os.ST_RDONLY:
            return "its file system is read-only"
        if not system.f_bavail or not system.f_favail:
            return "its file system is full: free some space"
        return ""


def _retry_locked(action: object) -> None:
    import time

    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            action()  # type: ignore[operator]
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
