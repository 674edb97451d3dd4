"""Volumes as the engine remembers them: names, labels, drivers, and which containers use them."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from attrs import field, frozen

from dockp.linux.trees import content_size
from dockp.spi.errors import Conflict, InvalidArgument, NotFound
from dockp.spi.values import Mount
from dockp.spi.volumes import VolumeDriver
from dockp.store.database import Database
from dockp.timestamps import rfc3339

SCHEMA = """
CREATE TABLE IF NOT EXISTS volumes (
    name TEXT PRIMARY KEY,
    driver TEXT NOT NULL,
    options TEXT NOT NULL,
    labels TEXT NOT NULL,
    created INTEGER NOT NULL,
    anonymous INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS volume_users (
    volume TEXT NOT NULL,
    container TEXT NOT NULL,
    PRIMARY KEY (volume, container)
)
"""

Emit = Callable[[str, str, str, Mapping[str, str]], None]
_RULE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
ANONYMOUS_LABEL = "com.docker.volume.anonymous"


@frozen(kw_only=True)
class Volume:
    """One volume; ``created`` in nanoseconds since the epoch."""

    name: str
    driver: str
    created: int
    options: Mapping[str, str] = field(factory=dict)
    labels: Mapping[str, str] = field(factory=dict)
    anonymous: bool = False

    @property
    def local(self) -> bool:
        """Whether its content is a directory of the engine's own."""
        return self.driver == "local" and not self.options


class VolumeService:
    """Thread-safe; any number of processes may work on one data root.

    Args:
        driver_for: gives the driver of a name; raises InvalidArgument for an unknown one.
        locks: an exclusive lock by name, among all threads and processes. A volume's lock is held while it is made or
            removed, and nothing else is taken meanwhile but short transactions: freeing much data stops nobody else.
        emit: tells an event: kind, action, id and attributes.
    """

    def __init__(
        self,
        database: Database,
        driver_for: Callable[[str], VolumeDriver],
        locks: Callable[[str], AbstractContextManager[object]],
        emit: Emit = lambda kind, action, actor_id, attributes: None,
    ) -> None:
        self._database = database
        self._driver_for = driver_for
        self._locks = locks
        self._emit = emit

    def ensure(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        user: str = "",
    ) -> Volume:
        """The volume ``name``, made when it does not exist; an anonymous one without a name.

        ``user`` is the id of a container that holds it from now on: recorded in the same transaction, so that nobody
        removes the volume in between. Raises: InvalidArgument, Conflict when it exists with another driver.
        """
        anonymous = not name
        name = name or os.urandom(32).hex()
        if len(name) == 1:
            raise InvalidArgument(
                f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
            )
        if not _RULE.fullmatch(name):
            raise InvalidArgument(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        wanted = Volume(
            name=name,
            driver=driver or "local",
            created=time.time_ns(),
            options=dict(options or {}),
            labels={ANONYMOUS_LABEL: "", **(labels or {})} if anonymous else dict(labels or {}),
            anonymous=anonymous,
        )
        with self._locks(f"volume/{name}"):
            with self._database.write() as connection:
                found = self._get(connection, name)
                if found is not None and driver and found.driver != driver:
                    raise Conflict(
                        f"create {name}: driver '{found.driver}' already has volume '{name}': "
                        "volume name must be unique"
                    )
                volume = found or wanted
                plugin = self._driver_for(volume.driver)
                if found is None:
                    self._insert(connection, wanted)
                if user:
                    connection.execute("INSERT OR IGNORE INTO volume_users VALUES (?, ?)", (name, user))
            try:
                # Idempotent, and also for one that exists: whoever was killed between record and data is helped.
                plugin.create(name, volume.options)
            except BaseException:
                with self._database.write() as connection:
                    connection.execute("DELETE FROM volume_users WHERE volume = ? AND container = ?", (name, user))
                    if found is None:
                        connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
                raise
        if found is None:
            self._emit("volume", "create", name, {"driver": volume.driver})
        return volume

    def get(self, name: str) -> Volume:
        """Raises: NotFound."""
        with self._database.read() as connection:
            volume = self._get(connection, name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def list(self) -> Sequence[Volume]:
        with self._database.read() as connection:
            return [_from_row(row) for row in connection.execute("SELECT * FROM volumes ORDER BY name")]

    def users(self, name: str) -> Sequence[str]:
        """Ids of the containers that hold a volume."""
        with self._database.read() as connection:
            return self._users(connection, name)

    def mounts(self, name: str) -> Sequence[Mount]:
        """How to mount a volume, one upon the other. Raises: NotFound, also when the driver lost it."""
        return self._driver_for(self.get(name).driver).mounts(name)

    def source(self, volume: Volume) -> str:
        """The host path of a volume that is a directory there, "" for one that has to be mounted (`mounts`).

        Raises: NotFound when the driver lost it.
        """
        mounts = self._driver_for(volume.driver).mounts(volume.name)
        path = self.mountpoint(volume)
        return path if mounts == [Mount(type="bind", source=path, options=("rbind",))] else ""

    def mountpoint(self, volume: Volume) -> str:
        """The path that is shown for it, which need not exist."""
        return self._driver_for(volume.driver).mountpoint(volume.name)

    def usage(self, volume: Volume) -> dict[str, int]:
        """``UsageData`` of API 1.50: bytes of its content (-1 when only mounting it would tell), and how many
        containers hold it."""
        size = content_size(self.mountpoint(volume)) if volume.local else -1
        return {"RefCount": len(self.users(volume.name)), "Size": size}

    def prune(self, wanted: Callable[[Volume], bool]) -> tuple[Sequence[str], int]:
        """Remove the volumes that nobody uses and that are ``wanted``; their names, and the bytes they had.

        As with Docker only those whose data is the engine's own: not those of other drivers, nor with options.
        """
        removed, freed = [], 0
        for volume in self.list():
            if not volume.local or not wanted(volume) or self.users(volume.name):
                continue
            size = content_size(self.mountpoint(volume))
            try:
                self.remove(volume.name)
            except (Conflict, NotFound):
                continue  # somebody was faster
            removed.append(volume.name)
            freed += size
        self._emit("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises: NotFound (not with ``force``), Conflict when containers use it."""
        with self._locks(f"volume/{name}"):
            with self._database.read() as connection:
                volume = self._get(connection, name)
                users = self._users(connection, name)
            if volume is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            self._erase(volume)

    def let_go(self, container: str, *, remove_anonymous: bool) -> None:
        """The container uses no volume any more; anonymous ones that nobody else uses are removed when asked."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT volume FROM volume_users WHERE container = ?", (container,)).fetchall()
        if rows and not remove_anonymous:
            with self._database.write() as connection:
                connection.execute("DELETE FROM volume_users WHERE container = ?", (container,))
            return
        for row in rows:
            name = row["volume"]
            with self._locks(f"volume/{name}"):
                with self._database.write() as connection:
                    volume = self._get(connection, name)
                    shared = [user for user in self._users(connection, name) if user != container]
                    if volume is None or not volume.anonymous or shared:
                        connection.execute(
                            "DELETE FROM volume_users WHERE volume = ? AND container = ?", (name, container)
                        )
                        continue
                # Still in this container's name while its data goes: a removal that is cut short is done again.
                self._erase(volume)

    def _erase(self, volume: Volume) -> None:
        """Free the data, then forget the volume. The caller holds its lock."""
        self._driver_for(volume.driver).remove(volume.name)
        self._emit("volume", "destroy", volume.name, {"driver": volume.driver})
        with self._database.write() as connection:
            connection.execute("DELETE FROM volume_users WHERE volume = ?", (volume.name,))
            connection.execute("DELETE FROM volumes WHERE name = ?", (volume.name,))

    def document(self, volume: Volume) -> dict[str, Any]:
        """As ``GET /volumes/{name}``."""
        return {
            "CreatedAt": rfc3339(volume.created),
            "Driver": volume.driver,
            "Labels": dict(volume.labels) or None,
            "Mountpoint": self.mountpoint(volume),
            "Name": volume.name,
            "Options": dict(volume.options) or None,
            "Scope": "local",
        }

    @staticmethod
    def _users(connection: sqlite3.Connection, name: str) -> Sequence[str]:
        return [row["container"] for row in connection.execute("SELECT * FROM volume_users WHERE volume = ?", (name,))]

    @staticmethod
    def _insert(connection: sqlite3.Connection, volume: Volume) -> None:
        connection.execute(
            "INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?)",
            (
                volume.name,
                volume.driver,
                json.dumps(dict(volume.options)),
                json.dumps(dict(volume.labels)),
                volume.created,
                int(volume.anonymous),
            ),
        )

    @staticmethod
    def _get(connection: sqlite3.Connection, name: str) -> Volume | None:
        row = connection.execute("SELECT * FROM volumes WHERE name = ?", (name,)).fetchone()
        return None if row is None else _from_row(row)


def _from_row(row: sqlite3.Row) -> Volume:
    return Volume(
        name=row["name"],
        driver=row["driver"],
        created=row["created"],
        options=json.loads(row["options"]),
        labels=json.loads(row["labels"]),
        anonymous=bool(row["anonymous"]),
    )
