"""What is known of images, in the state database. The documents themselves are blobs in the content store.

An image's row is written in one transaction with its layers, blobs and tag, after all of them are on the disk; so a
name never leads to something incomplete. Removing is one transaction as well: it hides the row, and the collector
(`dockp.store.gc`) frees what it named once no container uses it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from dockp.spi.values import Descriptor, Platform

SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY,
    manifest_type TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    manifest_size INTEGER NOT NULL,
    chain_id TEXT NOT NULL,
    parent TEXT NOT NULL,
    os TEXT NOT NULL,
    architecture TEXT NOT NULL,
    variant TEXT NOT NULL,
    created REAL NOT NULL,
    labels TEXT NOT NULL,
    tagged REAL NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS image_layers (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    media_type TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS image_layers_chain ON image_layers(chain_id);
CREATE INDEX IF NOT EXISTS image_layers_diff ON image_layers(diff_id, digest);
CREATE TABLE IF NOT EXISTS image_content (
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (digest, image)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer_sizes (
    diff_id TEXT PRIMARY KEY,
    size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tags (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images(id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_image ON tags(image);
CREATE TABLE IF NOT EXISTS repository_digests (
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    image TEXT NOT NULL REFERENCES images(id),
    PRIMARY KEY (name, digest)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS repository_digests_image ON repository_digests(image)
"""


@frozen(kw_only=True)
class Image:
    """One image, for one platform.

    Attributes:
        id: digest of its config, ``sha256:…``.
        manifest: where its manifest is in the content store.
        chain_id: of its top layer; "" for an image without layers.
        parent: id of the image it was built on here, or "".
        created: seconds since the epoch, as its config says. tagged: when it was last tagged here, or 0.
    """

    id: str
    manifest: Descriptor
    chain_id: str
    platform: Platform
    created: float
    parent: str = ""
    tagged: float = 0.0
    labels: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Layer:
    """One layer of an image. ``blob`` is what was received; ``diff_id`` is the digest of its plain tar."""

    diff_id: str
    chain_id: str
    blob: Descriptor


def add(connection: sqlite3.Connection, image: Image, layers: Sequence[Layer], content: Iterable[str]) -> None:
    """Write an image, or bring a removed one back. ``content``: digests of every blob it consists of."""
    connection.execute(
        "INSERT INTO images (id, manifest_type, manifest_digest, manifest_size, chain_id, parent, os, architecture,"
        " variant, created, labels, tagged) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " manifest_type = excluded.manifest_type, manifest_digest = excluded.manifest_digest,"
        " manifest_size = excluded.manifest_size, removed = 0",
        (
            image.id,
            image.manifest.media_type,
            image.manifest.digest,
            image.manifest.size,
            image.chain_id,
            image.parent,
            image.platform.os,
            image.platform.architecture,
            image.platform.variant,
            image.created,
            json.dumps(dict(image.labels)),
            image.tagged,
        ),
    )
    # The same image may come again with its layers packed otherwise: the latest blobs are the ones used, while those
    # of the former manifest stay, since digests of that may be named somewhere.
    connection.executemany(
        "INSERT OR REPLACE INTO image_layers (image, position, diff_id, chain_id, media_type, digest, bytes)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                image.id,
                position,
                layer.diff_id,
                layer.chain_id,
                layer.blob.media_type,
                layer.blob.digest,
                layer.blob.size,
            )
            for position, layer in enumerate(layers)
        ],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO image_content (image, digest) VALUES (?, ?)", [(image.id, digest) for digest in content]
    )


def by_tag(connection: sqlite3.Connection, name: str) -> Image | None:
    """``name``: the whole reference, such as ``docker.io/library/debian:latest``."""
    return _first(
        connection.execute("SELECT images.* FROM tags JOIN images ON images.id = tags.image WHERE name = ?", (name,))
    )


def in_repository(connection: sqlite3.Connection, name: str) -> list[tuple[str, Image]]:
    """Every tag of the repository ``name``, as (whole reference, image)."""
    rows = connection.execute(
        "SELECT name, images.* FROM tags JOIN images ON images.id = tags.image WHERE name > ? AND name < ?"
        " ORDER BY name",
        (f"{name}:", f"{name};"),  # the semicolon is what follows the colon
    )
    return [(row["name"], from_row(row)) for row in rows]


def by_digest(connection: sqlite3.Connection, name: str, digest: str) -> Image | None:
    """``name``: a repository. ``digest``: of a manifest or index."""
    return _first(
        connection.execute(
            "SELECT images.* FROM repository_digests AS d JOIN images ON images.id = d.image"
            " WHERE d.name = ? AND d.digest = ?",
            (name, digest),
        )
    )


def by_id(connection: sqlite3.Connection, id: str) -> Image | None:
    return _first(connection.execute("SELECT * FROM images WHERE id = ? AND NOT removed", (id,)))


def by_prefix(connection: sqlite3.Connection, prefix: str) -> list[Image]:
    """At most two images whose hexadecimal id begins so: enough to tell one from many."""
    low = f"sha256:{prefix}"
    rows = connection.execute("SELECT * FROM images WHERE id >= ? AND id < ? AND NOT removed LIMIT 2", (low, low + "g"))
    return [from_row(row) for row in rows]


def all_images(connection: sqlite3.Connection) -> list[Image]:
    """Every image, the latest first."""
    return [
        from_row(row) for row in connection.execute("SELECT * FROM images WHERE NOT removed ORDER BY created DESC, id")
    ]


def layers_of(connection: sqlite3.Connection, image: str) -> list[Layer]:
    """The layers of an image, base first."""
    rows = connection.execute("SELECT * FROM image_layers WHERE image = ? ORDER BY position", (image,))
    return [
        Layer(
            diff_id=row["diff_id"],
            chain_id=row["chain_id"],
            blob=Descriptor(media_type=row["media_type"], digest=row["digest"], size=row["bytes"]),
        )
        for row in rows
    ]


def sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """Bytes of every image: the sum of its layers unpacked."""
    rows = connection.execute(
        "SELECT image, SUM(size) AS total FROM image_layers JOIN layer_sizes USING (diff_id) GROUP BY image"
    )
    return {row["image"]: row["total"] for row in rows}


def layers_size(connection: sqlite3.Connection) -> int:
    """Bytes of all layers of images, each counted once."""
    (total,) = connection.execute(
        "SELECT SUM(size) FROM (SELECT DISTINCT chain_id, diff_id FROM image_layers) JOIN layer_sizes USING (diff_id)"
    ).fetchone()
    return total or 0


def shared_sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """Bytes of every image that another image has as well: the sum of the layers that several stand on."""
    rows = connection.execute(
        "SELECT image, SUM(size) AS total FROM image_layers AS mine JOIN layer_sizes USING (diff_id) WHERE EXISTS"
        " (SELECT 1 FROM image_layers AS other JOIN images ON images.id = other.image"
        " WHERE other.chain_id = mine.chain_id AND other.image != mine.image AND NOT removed) GROUP BY image"
    )
    return {row["image"]: row["total"] for row in rows}


def tags_by_image(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The whole names of every image."""
    names: dict[str, list[str]] = {}
    for row in connection.execute("SELECT name, image FROM tags ORDER BY name"):
        names.setdefault(row["image"], []).append(row["name"])
    return names


def digests_by_image(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The ``name@digest`` references of every image."""
    names: dict[str, list[str]] = {}
    for row in connection.execute("SELECT name, digest, image FROM repository_digests ORDER BY name, digest"):
        names.setdefault(row["image"], []).append(f"{row['name']}@{row['digest']}")
    return names


def references_of(connection: sqlite3.Connection, image: str) -> list[str]:
    """Every tag and ``name@digest`` of an image, tags first."""
    tags = connection.execute("SELECT name FROM tags WHERE image = ? ORDER BY name", (image,))
    digests = connection.execute(
        "SELECT name || '@' || digest FROM repository_digests WHERE image = ? ORDER BY name, digest", (image,)
    )
    return [row[0] for row in tags] + [row[0] for row in digests]


def set_tag(connection: sqlite3.Connection, name: str, image: str, now: float) -> None:
    """Point a name at an image, away from whatever it named before."""
    connection.execute("INSERT OR REPLACE INTO tags (name, image) VALUES (?, ?)", (name, image))
    connection.execute("UPDATE images SET tagged = ? WHERE id = ?", (now, image))


def set_digest(connection: sqlite3.Connection, name: str, digest: str, image: str) -> None:
    """Record that repository ``name`` has the image under ``digest``."""
    connection.execute(
        "INSERT OR REPLACE INTO repository_digests (name, digest, image) VALUES (?, ?, ?)", (name, digest, image)
    )


def known_as(connection: sqlite3.Connection, image: str) -> list[str]:
    """Digests by which registries have an image: those of its manifests, and of indexes that it came with."""
    rows = connection.execute(
        "SELECT DISTINCT digest FROM repository_digests AS named JOIN image_content USING (digest)"
        " WHERE image_content.image = ? ORDER BY digest",
        (image,),
    )
    return [row["digest"] for row in rows]


def repositories_with(connection: sqlite3.Connection, digest: str) -> list[str]:
    """The repositories that are known to have a blob: those with an image it belongs to."""
    rows = connection.execute(
        "SELECT DISTINCT name FROM repository_digests JOIN image_content USING (image)"
        " WHERE image_content.digest = ? ORDER BY name",
        (digest,),
    )
    return [row["name"] for row in rows]


def remove_content(connection: sqlite3.Connection, image: str, digests: Iterable[str]) -> None:
    """Let go of blobs that an image does not consist of any more."""
    connection.executemany(
        "DELETE FROM image_content WHERE image = ? AND digest = ?", [(image, digest) for digest in digests]
    )


def remove_reference(connection: sqlite3.Connection, reference: str) -> None:
    """Drop a tag or a ``name@digest``."""
    name, at, digest = reference.partition("@")
    if at:
        connection.execute("DELETE FROM repository_digests WHERE name = ? AND digest = ?", (name, digest))
    else:
        connection.execute("DELETE FROM tags WHERE name = ?", (name,))


def hide(connection: sqlite3.Connection, image: str) -> None:
    """Remove an image for everyone but the containers that still use it."""
    connection.execute("UPDATE images SET removed = 1 WHERE id = ?", (image,))


def children_of(connection: sqlite3.Connection, image: str) -> list[str]:
    """Images built on this one here."""
    return [row[0] for row in connection.execute("SELECT id FROM images WHERE parent = ? AND NOT removed", (image,))]


_SIBLINGS = (
    " FROM repository_digests AS named JOIN image_content USING (digest) JOIN images ON images.id = image_content.image"
    " WHERE images.id != named.image AND NOT removed"
    " AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.image = images.id)"
    " AND NOT EXISTS (SELECT 1 FROM repository_digests AS own WHERE own.image = images.id)"
)
"""Images without a name that came with the index by which another is known: the same for other platforms."""


def siblings_of(connection: sqlite3.Connection, image: str) -> list[Image]:
    """What a named image is for other platforms, as far as that was pulled as well."""
    rows = connection.execute(f"SELECT DISTINCT images.*{_SIBLINGS} AND named.image = ? ORDER BY images.id", (image,))
    return [from_row(row) for row in rows]


def siblings(connection: sqlite3.Connection) -> dict[str, list[Image]]:
    """As `siblings_of`, for every image that has some."""
    found: dict[str, list[Image]] = {}
    for row in connection.execute(f"SELECT DISTINCT named.image AS of, images.*{_SIBLINGS} ORDER BY images.id"):
        found.setdefault(row["of"], []).append(from_row(row))
    return found


def only_layers_of(connection: sqlite3.Connection, image: str) -> list[str]:
    """Chain IDs that no other image has, top first."""
    rows = connection.execute(
        "SELECT chain_id FROM image_layers AS mine WHERE image = ? AND NOT EXISTS (SELECT 1 FROM image_layers AS other"
        " JOIN images ON images.id = other.image WHERE other.chain_id = mine.chain_id AND other.image != mine.image"
        " AND NOT removed) ORDER BY position DESC",
        (image,),
    )
    return [row[0] for row in rows]


def set_layer_size(connection: sqlite3.Connection, diff_id: str, size: int) -> None:
    connection.execute("INSERT OR REPLACE INTO layer_sizes (diff_id, size) VALUES (?, ?)", (diff_id, size))


def has_size(connection: sqlite3.Connection, layer: Layer) -> bool:
    """Whether it is known how large the layer is unpacked."""
    return connection.execute("SELECT 1 FROM layer_sizes WHERE diff_id = ?", (layer.diff_id,)).fetchone() is not None


def is_verified(connection: sqlite3.Connection, layer: Layer) -> bool:
    """Whether this blob is known to have this diff ID, from an earlier image."""
    return (
        connection.execute(
            "SELECT 1 FROM image_layers JOIN layer_sizes USING (diff_id) WHERE diff_id = ? AND digest = ? LIMIT 1",
            (layer.diff_id, layer.blob.digest),
        ).fetchone()
        is not None
    )


def from_row(row: sqlite3.Row) -> Image:
    return Image(
        id=row["id"],
        manifest=Descriptor(media_type=row["manifest_type"], digest=row["manifest_digest"], size=row["manifest_size"]),
        chain_id=row["chain_id"],
        platform=Platform(os=row["os"], architecture=row["architecture"], variant=row["variant"]),
        created=row["created"],
        parent=row["parent"],
        tagged=row["tagged"],
        labels=json.loads(row["labels"]),
    )


def _first(rows: sqlite3.Cursor) -> Image | None:
    row = rows.fetchone()
    return None if row is None else from_row(row)
