"""The image service: what the engine does with images it has. Getting them is in `dockp.images.arrival`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import frozen

from dockp.images import records
from dockp.images.documents import CONFIG_LIMIT, ImageConfig, descriptor_json, parse_config
from dockp.images.layers import LayerUnpacker, Progress
from dockp.images.records import Image
from dockp.images.reference import Reference, is_digest, is_identifier, matches, parse, parse_tag
from dockp.images.times import parse_moment, parse_time
from dockp.spi.errors import Conflict, InvalidArgument, NotFound
from dockp.spi.values import Platform
from dockp.store.content import ContentStore
from dockp.store.database import Database
from dockp.store.leases import Leases
from dockp.store.snapshots import Snapshot, SnapshotService
from dockp.timestamps import rfc3339_nano

if TYPE_CHECKING:
    from dockp.linux.locks import RangeLocks
    from dockp.spi.images import ImageSource

Filters = Mapping[str, Sequence[str]]
_Done = list[dict[str, str]]
_FILTERS = frozenset({"reference", "label", "dangling", "before", "since", "until"})
_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})
_CONFIG_FIELDS: tuple[tuple[str, object], ...] = (
    ("User", ""),
    ("ExposedPorts", None),
    ("Env", None),
    ("Cmd", None),
    ("Healthcheck", None),
    ("ArgsEscaped", None),
    ("Volumes", None),
    ("WorkingDir", ""),
    ("Entrypoint", None),
    ("OnBuild", None),
    ("Labels", None),
    ("StopSignal", None),
    ("Shell", None),
)
_ALWAYS_SHOWN = frozenset({"User", "Env", "Cmd", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels"})


@frozen(kw_only=True)
class ImageUser:
    """A container that was made from an image, as `ImageService.remove` needs to know it."""

    id: str
    running: bool


class ImageService:
    """Images of one data root. Thread-safe, and shared with other processes. Methods take references as people type
    them: ``name``, ``name:tag``, ``name@digest``, a whole id or the beginning of one."""

    def __init__(
        self,
        database: Database,
        content: ContentStore,
        leases: Leases,
        snapshots: SnapshotService,
        locks: RangeLocks,
    ) -> None:
        self._database = database
        self._content = content
        self._leases = leases
        self._snapshots = snapshots
        self._locks = locks
        self._layers = LayerUnpacker(database, content, snapshots)

    # Finding

    def get(self, ref: str) -> Image:
        """The image that ``ref`` names: a tag or digest before the beginning of an id, as Docker has it.

        Raises: NotFound ``No such image: …``; InvalidArgument for a malformed reference or an ambiguous id.
        """
        with self._database.read() as connection:
            if is_digest(ref) or is_identifier(ref):
                id = ref if ":" in ref else f"sha256:{ref}"
                image = records.by_id(connection, id)
                if image is None:
                    raise NotFound(f"No such image: {id}")
                return image
            reference = parse(ref).with_default_tag()
            if reference.digest:
                image = records.by_digest(connection, reference.name, reference.digest)
            else:
                image = records.by_tag(connection, str(reference))
            if image is not None:
                return image
            prefix = ref.removeprefix("sha256:")
            if len(prefix) < 64 and prefix and not set(prefix) - set("0123456789abcdef"):
                found = records.by_prefix(connection, prefix)
                if len(found) > 1:
                    raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
                if found:
                    return found[0]
        raise NotFound(f"No such image: {reference.familiar}")

    def config(self, image: Image) -> ImageConfig:
        """The config document of an image. One small read."""
        return parse_config(self._content.read(image.id, CONFIG_LIMIT))

    def unpack(self, image: Image, driver: str, progress: Progress | None = None) -> Snapshot | None:
        """The image's top layer in a storage driver, unpacked if it is not yet; None for an image without layers.

        One query when it is there. Raises: NotFound when the image is being removed, InvalidArgument for a layer that
        is malformed or not what the config promised, and what the driver raises.
        """
        return self._layers.unpack(image, driver, progress)

    def references(self, image: Image) -> Sequence[str]:
        """Tags, then ``name@digest`` references, as people write them."""
        with self._database.read() as connection:
            return [parse(name).familiar for name in records.references_of(connection, image.id)]

    def list(self, *, all: bool = False, filters: Filters | None = None) -> Sequence[dict[str, Any]]:
        """Summaries as ``GET /images/json``, the latest first.

        Args: all: also untagged images that others were built on. filters: reference, label, dangling, before, since,
            until, each with its values.
        Raises: InvalidArgument for an unknown filter or value; NotFound for an image named by before or since.
        """
        filters = filters or {}
        for name in filters:
            if name not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        dangling = _boolean("dangling", filters["dangling"]) if filters.get("dangling") else None
        before = min([self.get(ref).created for ref in filters.get("before", ())], default=None)
        since = max([self.get(ref).created for ref in filters.get("since", ())], default=None)
        until = min([parse_moment(text) for text in filters.get("until", ())], default=None)
        with self._database.read() as connection:
            images = records.all_images(connection)
            tags, digests = records.tags_by_image(connection), records.digests_by_image(connection)
            sizes = records.sizes(connection)
        parents = {image.parent for image in images}
        summaries = []
        for image in images:
            repo_tags, repo_digests = tags.get(image.id, []), digests.get(image.id, [])
            untagged = not repo_tags and not repo_digests
            if (untagged and image.id in parents and not all) or (dangling is not None and untagged != dangling):
                continue
            if before is not None and image.created >= before:
                continue
            if since is not None and image.created <= since:
                continue
            if until is not None and image.created > until:
                continue
            if not _has_labels(image.labels, filters.get("label", ())):
                continue
            if filters.get("reference"):
                repo_tags = [name for name in repo_tags if _is_named(name, filters["reference"])]
                repo_digests = [name for name in repo_digests if _is_named(name, filters["reference"])]
                if not repo_tags and not repo_digests:
                    continue
            summaries.append(
                {
                    "Id": image.id,
                    "ParentId": image.parent,
                    "RepoTags": [parse(name).familiar for name in repo_tags],
                    "RepoDigests": [parse(name).familiar for name in repo_digests],
                    "Created": int(image.created),
                    "Size": sizes.get(image.id, 0),
                    "SharedSize": -1,
                    "Labels": dict(image.labels) or None,
                    "Containers": -1,
                    "Descriptor": descriptor_json(image.manifest),
                }
            )
        return summaries

    def inspect(self, ref: str, driver: str = "") -> dict[str, Any]:
        """The document of ``GET /images/{name}/json``; ``GraphDriver`` is about ``driver``. Raises: as `get`."""
        image = self.get(ref)
        config = self.config(image)
        with self._database.read() as connection:
            names = [parse(name) for name in records.references_of(connection, image.id)]
            size = records.sizes(connection).get(image.id, 0)
        process = config.process
        comment = str(config.document.get("comment") or (config.history[-1].get("comment") if config.history else ""))
        document: dict[str, Any] = {
            "Id": image.id,
            "RepoTags": [name.familiar for name in names if name.digest is None],
            "RepoDigests": [name.familiar for name in names if name.digest is not None],
            "Parent": image.parent,
            "Comment": comment if comment != "None" else "",
            "Created": config.created,
            "DockerVersion": config.document.get("docker_version") or "",
            "Author": config.author,
            "Config": {
                key: process.get(key) or default
                for key, default in _CONFIG_FIELDS
                if process.get(key) or key in _ALWAYS_SHOWN
            },
            "Architecture": config.platform.architecture,
            "Variant": config.platform.variant,
            "Os": config.platform.os,
            "Size": size,
            "GraphDriver": self._graph_driver(image, driver),
            "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
            "Metadata": {"LastTagTime": rfc3339_nano(int(image.tagged * 10**9))},
            "Descriptor": descriptor_json(image.manifest),
        }
        if not document["Variant"]:
            del document["Variant"]
        return document

    def history(self, ref: str) -> Sequence[dict[str, Any]]:
        """The document of ``GET /images/{name}/history``: the latest step first. Raises: as `get`."""
        image = self.get(ref)
        config = self.config(image)
        with self._database.read() as connection:
            tags = [parse(name).familiar for name in records.references_of(connection, image.id) if "@" not in name]
            layer_sizes = [
                connection.execute("SELECT size FROM layer_sizes WHERE diff_id = ?", (diff_id,)).fetchone()
                for diff_id in config.diff_ids
            ]
        remaining = iter([row["size"] if row else 0 for row in layer_sizes])
        steps = [
            {
                "Id": "<missing>",
                "Created": int(parse_time(str(step.get("created") or ""))),
                "CreatedBy": step.get("created_by") or "",
                "Tags": None,
                "Size": 0 if step.get("empty_layer") else next(remaining, 0),
                "Comment": step.get("comment") or "",
            }
            for step in config.history
        ]
        # Layers that no history explains, as tools leave them that write none.
        steps += [
            {"Id": "<missing>", "Created": 0, "CreatedBy": "", "Tags": None, "Size": size, "Comment": ""}
            for size in remaining
        ]
        steps.reverse()
        if steps:
            steps[0]["Id"] = image.id
            steps[0]["Tags"] = tags or None
        return steps

    # Naming

    def tag(self, ref: str, target: str) -> None:
        """Give an image one more name. Raises: as `get`; InvalidArgument for a bad ``target``."""
        name = parse_tag(target)
        image = self.get(ref)
        with self._database.write() as connection:
            if records.by_id(connection, image.id) is None:
                raise NotFound(f"No such image: {ref}")
            records.set_tag(connection, str(name), image.id, time.time())

    def remove(
        self,
        ref: str,
        *,
        force: bool = False,
        prune: bool = True,
        used_by: Callable[[str], Sequence[ImageUser]] = lambda id: (),
    ) -> Sequence[dict[str, str]]:
        """Take a name away, and the image with its last one, by Docker's rules.

        Args: prune: also untagged parents. used_by: the containers made from an image id.
        Returns: ``[{"Untagged": …}, {"Deleted": …}, …]`` in the order it happened. The disk is freed by the collector.
        Raises: as `get`; Conflict in Docker's words when something still needs the image.
        """
        image = self.get(ref)
        with self._database.write() as connection:
            references = [parse(name) for name in records.references_of(connection, image.id)]
            done: _Done = []

            def untag(reference: Reference) -> None:
                records.remove_reference(connection, str(reference))
                references.remove(reference)
                done.append({"Untagged": reference.familiar})

            by_name = not _is_id_prefix(image.id, ref)
            single = _is_single(references)
            if by_name:
                users = used_by(image.id)
                if users and single and not force:
                    raise Conflict(
                        f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                        f"{users[0].id[:12]} is using its referenced image {_short(image.id)}"
                    )
                reference = parse(ref).with_default_tag()
                if reference.digest:
                    reference = Reference(domain=reference.domain, path=reference.path, digest=reference.digest)
                if reference in references:
                    untag(reference)
                if reference.digest is None and not any(
                    other.digest is None and other.name == reference.name for other in references
                ):
                    # Digests go with the last tag of their repository.
                    for other in [other for other in references if other.name == reference.name]:
                        untag(other)
                if references:
                    return done
            elif single:
                self._check_removable(connection, image, used_by, [], force)
                for reference in tuple(references):
                    untag(reference)
            self._remove_record(connection, image, done, used_by, references, force=force, prune=prune, quiet=by_name)
        return done

    # Getting

    def add_from(
        self,
        source: Callable[..., ImageSource],
        reference: str,
        *,
        tag: str = "",
        platform: Platform | None = None,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Get an image from a source. See `dockp.images.arrival.add_from`."""
        from dockp.images.arrival import Arrival

        arrival = Arrival(self._database, self._content, self._leases, self._locks, self._layers)
        return arrival.add_from(
            source, reference, tag=tag, platform=platform, driver=driver, options=options or {}, progress=progress
        )

    def import_(
        self,
        stream: BinaryIO,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        reference: str = "",
        platform: Platform | None = None,
        driver: str = "",
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer from a tar. See `dockp.images.arrival.import_`."""
        from dockp.images.arrival import Arrival

        arrival = Arrival(self._database, self._content, self._leases, self._locks, self._layers)
        return arrival.import_(
            stream,
            changes=changes,
            message=message,
            reference=reference,
            platform=platform,
            driver=driver,
            progress=progress,
        )

    # Inside

    def _remove_record(
        self,
        connection: sqlite3.Connection,
        image: Image,
        done: _Done,
        used_by: Callable[[str], Sequence[ImageUser]],
        references: Sequence[Reference],
        *,
        force: bool,
        prune: bool,
        quiet: bool,
    ) -> None:
        try:
            self._check_removable(connection, image, used_by, references, force)
        except Conflict:
            # Its name is gone, which was what was asked; that something else needs the image is then no error.
            if quiet:
                return
            raise
        for reference in tuple(references):
            records.remove_reference(connection, str(reference))
            done.append({"Untagged": reference.familiar})
        layers = records.only_layers_of(connection, image.id)
        records.hide(connection, image.id)
        done.append({"Deleted": image.id})
        done.extend({"Deleted": chain_id} for chain_id in layers)
        parent = records.by_id(connection, image.parent) if prune and image.parent else None
        if parent is not None and not records.references_of(connection, parent.id):
            self._remove_record(connection, parent, done, used_by, [], force=False, prune=True, quiet=True)

    def _check_removable(
        self,
        connection: sqlite3.Connection,
        image: Image,
        used_by: Callable[[str], Sequence[ImageUser]],
        references: Sequence[Reference],
        force: bool,
    ) -> None:
        def conflict(how: str, why: str) -> Conflict:
            return Conflict(f"conflict: unable to delete {_short(image.id)} ({how}) - {why}")

        if records.children_of(connection, image.id):
            raise conflict("cannot be forced", "image has dependent child images")
        users = used_by(image.id)
        for user in users:
            if user.running:
                raise conflict("cannot be forced", f"image is being used by running container {user.id[:12]}")
        if force:
            return
        if references:
            raise conflict("must be forced", "image is referenced in multiple repositories")
        for user in users:
            raise conflict("must be forced", f"image is being used by stopped container {user.id[:12]}")

    def _graph_driver(self, image: Image, driver: str) -> dict[str, Any] | None:
        top = self._layers.top(image, driver) if driver else None
        if top is None:
            return {"Name": driver, "Data": None} if driver else None
        lower = []
        for mount in self._snapshots.mounts(top.id, read_only=True):
            if mount.type == "bind":
                lower.append(mount.source)
            for option in mount.options:
                key, _, value = option.partition("=")
                if key in ("lowerdir", "lowerdir+"):
                    lower.append(value)
        return {"Name": driver, "Data": {"LowerDir": ":".join(lower)} if lower else None}


def _is_id_prefix(id: str, text: str) -> bool:
    return id.startswith(text) or id.removeprefix("sha256:").startswith(text)


def _is_single(references: Sequence[Reference]) -> bool:
    """At most one tag, and digests of its repository only."""
    tags = [reference for reference in references if reference.digest is None]
    return len(tags) <= 1 and len({reference.name for reference in references}) <= 1


def _short(id: str) -> str:
    return id.removeprefix("sha256:")[:12]


def _boolean(name: str, values: Sequence[str]) -> bool:
    wanted = {value.lower() for value in values}
    if wanted <= _TRUE:
        return True
    if wanted <= _FALSE:
        return False
    raise InvalidArgument(f"invalid filter '{name}={values[0]}': expected true or false")


def _has_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    reference = parse(name)
    return any(matches(pattern, reference) for pattern in patterns)
