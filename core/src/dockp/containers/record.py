"""Containers as the engine remembers them: the table, the record, and finding one by name or id."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Collection, Iterable
from typing import Any

from attrs import evolve, field, fields, frozen

from dockp.containers.model import CreateRequest
from dockp.containers.states import State
from dockp.jsonmodel import from_json, to_json
from dockp.spi.errors import AlreadyExists, InvalidArgument, NotFound
from dockp.store.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    visible INTEGER NOT NULL,
    active INTEGER NOT NULL,
    image TEXT NOT NULL,
    storage_driver TEXT NOT NULL,
    exec_driver TEXT NOT NULL,
    snapshot INTEGER,
    request TEXT NOT NULL,
    details TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS containers_active ON containers (active) WHERE active = 1;
CREATE INDEX IF NOT EXISTS containers_image ON containers (image);
CREATE TABLE IF NOT EXISTS execs (
    id TEXT PRIMARY KEY,
    container TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    document TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS execs_container ON execs (container)
"""


@frozen(kw_only=True)
class Task:
    """How a container's process is, or was at its last end. Times are nanoseconds since the epoch, 0 for never.

    ``stopped``: somebody asked for its end.
    """

    state: State = State.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    stopped: bool = False
    health: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state.value,
            "exit_code": self.exit_code,
            "error": self.error,
            "oom_killed": self.oom_killed,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "restart_count": self.restart_count,
            "stopped": self.stopped,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Task:
        return cls(**{**document, "state": State(document["state"])})


@frozen(kw_only=True)
class MountRecord:
    """One resolved mount of a container.

    Attributes:
        type: "bind", "volume" or "tmpfs". name: of the volume. source: a host path, or "" for tmpfs.
        staged: the volume is no directory of the host: its driver says at each start how to mount it; ``source`` is
            only what is shown. subpath: the part of the volume that is mounted, or "" for the whole.
        mode: the words after the second colon of ``-v``. options: mount(8) words for the OCI spec.
        copy_up: fill an empty volume with what the image has there. anonymous: removed by ``rm -v`` and ``--rm``.
    """

    type: str
    target: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    read_write: bool = True
    propagation: str = ""
    options: tuple[str, ...] = ()
    copy_up: bool = False
    anonymous: bool = False
    staged: bool = False
    subpath: str = ""

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in _attributes(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> MountRecord:
        return cls(**{**document, "options": tuple(document["options"])})


_MOUNT_FIELDS = tuple(item.name for item in fields(MountRecord))


def _attributes(record: MountRecord) -> list[tuple[str, Any]]:
    return [(name, getattr(record, name)) for name in _MOUNT_FIELDS]


@frozen(kw_only=True)
class Container:
    """One container.

    Attributes:
        visible: False while it is being made; then only the journal knows it.
        active: it was started and its end has not been recorded yet: the shim knows better than this record.
        image: id of the image it came from. snapshot: its writable layer.
    """

    id: str
    name: str
    created: int
    image: str
    storage_driver: str
    exec_driver: str
    request: CreateRequest
    snapshot: int | None = None
    visible: bool = True
    active: bool = False
    task: Task = field(factory=Task)
    mounts: tuple[MountRecord, ...] = ()


class ContainerTable:
    """Containers in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, connection: sqlite3.Connection, container: Container) -> None:
        """Raises: AlreadyExists, with Docker's words, when the name is taken."""
        try:
            connection.execute(
                "INSERT INTO containers VALUES (:id, :name, :created, :visible, :active, :image, :storage_driver, "
                ":exec_driver, :snapshot, :request, :details)",
                _to_row(container),
            )
        except sqlite3.IntegrityError as error:
            raise self._taken(connection, container.name) from error

    def save_state(self, connection: sqlite3.Connection, container: Container) -> None:
        """As `save`, of a container whose name and request are as they were."""
        connection.execute(
            "UPDATE containers SET visible = ?, active = ?, snapshot = ?, details = ? WHERE id = ?",
            (int(container.visible), int(container.active), container.snapshot, _details(container), container.id),
        )

    def save(self, connection: sqlite3.Connection, container: Container) -> None:
        try:
            connection.execute(
                "UPDATE containers SET name = :name, visible = :visible, active = :active, snapshot = :snapshot, "
                "request = :request, details = :details WHERE id = :id",
                _to_row(container),
            )
        except sqlite3.IntegrityError as error:
            raise self._taken(connection, container.name) from error

    def delete(self, connection: sqlite3.Connection, container_id: str) -> None:
        connection.execute("DELETE FROM containers WHERE id = ?", (container_id,))

    def peek(self, container_id: str) -> Container | None:
        """By full id, also while it is being made or removed."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM containers WHERE id = ?", (container_id,)).fetchone()
        return None if row is None else _from_row(row)

    def find(self, ref: str) -> Container:
        """By full id, name or unique prefix of an id, in this order. Raises: NotFound, InvalidArgument."""
        bare = ref.removeprefix("/")
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT * FROM containers WHERE visible = 1 AND (id = ?1 OR name = ?1) ORDER BY id = ?1 DESC", (bare,)
            ).fetchone()
            if row is None and bare:
                # A range, not LIKE: it uses the index and knows no wildcards.
                rows = connection.execute(
                    "SELECT * FROM containers WHERE visible = 1 AND id >= ?1 AND id < ?1 || 'g' LIMIT 2", (bare,)
                ).fetchall()
                if len(rows) > 1:
                    raise InvalidArgument(f"multiple IDs found with provided prefix: {bare}")
                row = rows[0] if rows else None
        if row is None:
            raise NotFound(f"No such container: {ref}")
        return _from_row(row)

    def all(self, *, active_only: bool = False) -> list[Container]:
        """Every finished record, newest first."""
        where = "active = 1" if active_only else "visible = 1"
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT * FROM containers WHERE {where} ORDER BY created DESC").fetchall()
        return [_from_row(row) for row in rows]

    def active_among(self, ids: Collection[str]) -> Collection[str]:
        """Of these ids, those of containers that were started and whose end is not recorded yet."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT id FROM containers WHERE active = 1").fetchall()
        return {row["id"] for row in rows} & set(ids)

    def using_image(self, image_id: str) -> list[Container]:
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM containers WHERE image = ?", (image_id,)).fetchall()
        return [_from_row(row) for row in rows]

    def images_in_use(self) -> set[str]:
        with self._database.read() as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT image FROM containers")}

    def put_exec(self, exec_id: str, container_id: str, document: dict[str, Any]) -> None:
        """Raises: NotFound when the container was removed meanwhile."""
        try:
            with self._database.write() as connection:
                connection.execute(
                    "INSERT INTO execs VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET document = ?3",
                    (exec_id, container_id, json.dumps(document)),
                )
        except sqlite3.IntegrityError as error:
            raise NotFound(f"No such container: {container_id}") from error

    def get_exec(self, exec_id: str) -> tuple[str, dict[str, Any]]:
        """(container id, document). Raises: NotFound."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM execs WHERE id = ?", (exec_id,)).fetchone()
        if row is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return row["container"], json.loads(row["document"])

    def execs_of(self, container_id: str) -> dict[str, bool]:
        """Ids, oldest first, each with whether it was started."""
        query = "SELECT id, json_extract(document, '$.started') FROM execs WHERE container = ? ORDER BY rowid"
        with self._database.read() as connection:
            return {row[0]: bool(row[1]) for row in connection.execute(query, (container_id,))}

    def count_execs(self, container_id: str) -> int:
        with self._database.read() as connection:
            query = "SELECT count(*) FROM execs WHERE container = ?"
            return int(connection.execute(query, (container_id,)).fetchone()[0])

    def forget_execs(self, exec_ids: Iterable[str]) -> None:
        with self._database.write() as connection:
            connection.executemany("DELETE FROM execs WHERE id = ?", ((exec_id,) for exec_id in exec_ids))

    def drop_execs(self, connection: sqlite3.Connection, container_id: str) -> None:
        connection.execute("DELETE FROM execs WHERE container = ?", (container_id,))

    def _taken(self, connection: sqlite3.Connection, name: str) -> AlreadyExists:
        row = connection.execute("SELECT id FROM containers WHERE name = ?", (name,)).fetchone()
        holder = row["id"] if row else "unknown"
        return AlreadyExists(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


def _to_row(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": container.name,
        "created": container.created,
        "visible": int(container.visible),
        "active": int(container.active),
        "image": container.image,
        "storage_driver": container.storage_driver,
        "exec_driver": container.exec_driver,
        "snapshot": container.snapshot,
        "request": json.dumps(to_json(container.request)),
        "details": _details(container),
    }


def _details(container: Container) -> str:
    return json.dumps({"task": container.task.to_json(), "mounts": [mount.to_json() for mount in container.mounts]})


@functools.lru_cache(maxsize=256)
def _request(text: str) -> CreateRequest:
    """A record is read several times for every verb, and this is the larger part of it; requests never change."""
    return from_json(CreateRequest, json.loads(text))


def _from_row(row: sqlite3.Row) -> Container:
    details = json.loads(row["details"])
    return Container(
        id=row["id"],
        name=row["name"],
        created=row["created"],
        visible=bool(row["visible"]),
        active=bool(row["active"]),
        image=row["image"],
        storage_driver=row["storage_driver"],
        exec_driver=row["exec_driver"],
        snapshot=row["snapshot"],
        request=_request(row["request"]),
        task=Task.from_json(details["task"]),
        mounts=tuple(MountRecord.from_json(mount) for mount in details["mounts"]),
    )


def with_task(container: Container, **changes: Any) -> Container:
    """``container`` with its task changed."""
    return evolve(container, task=evolve(container.task, **changes))
