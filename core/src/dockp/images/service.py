"""The image service: what the engine does with images it has. Getting them is in `dockp.images.arrival`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from dockp.images import records
from dockp.images.documents import CONFIG_LIMIT, ImageConfig, descriptor_json, parse_config, platform_json
from dockp.images.layers import LayerUnpacker, Progress
from dockp.images.records import Image
from dockp.images.reference import Reference, is_digest, is_identifier, matches, parse, parse_tag
from dockp.images.removal import ImageUser, Removal
from dockp.images.times import parse_moment, parse_time
from dockp.spi.errors import Conflict, InvalidArgument, NotFound
from dockp.spi.values import Platform
from dockp.store.content import ContentStore
from dockp.store.database import Database
from dockp.store.leases import Leases
from dockp.store.snapshots import Snapshot, SnapshotService
from dockp.timestamps import rfc3339_nano

if TYPE_CHECKING:
    from dockp.images.arrival import Arrived, Verify, Wanted
    from dockp.images.pushing import Pushed
    from dockp.linux.locks import RangeLocks
    from dockp.spi.images import ImageSource, ImageTarget, SourceContext

Filters = Mapping[str, Sequence[str]]
_Rows = list[dict[str, str]]
Emit = Callable[[str, str, str, Mapping[str, str]], None]
_PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})
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


class ImageService:
    """Images of one data root. Thread-safe, and shared with other processes. Methods take references as people type
    them: ``name``, ``name:tag``, ``name@digest``, a whole id or the beginning of one.

    Args: emit: tells an event: kind, action, id and attributes.
    """

    def __init__(
        self,
        database: Database,
        content: ContentStore,
        leases: Leases,
        snapshots: SnapshotService,
        locks: RangeLocks,
        emit: Emit = lambda kind, action, actor_id, attributes: None,
    ) -> None:
        self._database = database
        self._content = content
        self._leases = leases
        self._snapshots = snapshots
        self._locks = locks
        self._emit = emit
        self._layers = LayerUnpacker(database, content, snapshots)

    # Finding

    def get(self, ref: str, platform: Platform | None = None) -> Image:
        """The image that ``ref`` names: a tag or digest before the beginning of an id, as Docker has it.

        Args: platform: what it is to run on; a name may mean several images, each pulled for another one.
        Raises: NotFound ``No such image: …``, or when there is none for the platform; InvalidArgument for a malformed
            reference or an ambiguous id.
        """
        image = self._named(ref)
        if platform is None:
            return image
        from dockp.images.documents import runs_on

        with self._database.read() as connection:
            for one in (image, *records.siblings_of(connection, image.id)):
                if runs_on(one.platform, platform):
                    return one
        raise NotFound(
            f"image with reference {ref} was found but its platform ({image.platform}) does not match the "
            f"specified platform ({platform})"
        )

    def _named(self, ref: str) -> Image:
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

    def policy(self, image: Image) -> dict[str, Any]:
        """What those who decide about images are told of one: see the moment ``dockp_image_verify``."""
        from dockp.images.arrival import policy_document

        with self._database.read() as connection:
            names = [parse(name) for name in records.references_of(connection, image.id)]
        tags = [name for name in names if name.digest is None]
        digests = [(name.name, name.digest) for name in names if name.digest is not None]
        return policy_document(image, self.config(image), tags, digests)

    def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        manifests: bool = False,
        used_by: Callable[[str], Sequence[ImageUser]] | None = None,
    ) -> Sequence[dict[str, Any]]:
        """Summaries as ``GET /images/json``, the latest first.

        Args: all: also untagged images that others were built on. filters: reference, label, dangling, before, since,
            until, each with its values. shared_size: fill in ``SharedSize``. manifests: add ``Manifests``. used_by:
            the containers made from an image, to fill in ``Containers``.
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
            shared = records.shared_sizes(connection) if shared_size else {}
            siblings = records.siblings(connection)
        shown_with_others = {sibling.id for others in siblings.values() for sibling in others}
        parents = {image.parent for image in images}
        summaries = []
        for image in images:
            repo_tags, repo_digests = tags.get(image.id, []), digests.get(image.id, [])
            untagged = not repo_tags and not repo_digests
            if untagged and image.id in shown_with_others and not all:
                continue
            if (untagged and image.id in parents and not all) or (dangling is not None and untagged != dangling):
                continue
            if before is not None and image.created >= before:
                continue
            if since is not None and image.created <= since:
                continue
            if until is not None and image.created > until:
                continue
            if not has_labels(image.labels, filters.get("label", ())):
                continue
            if filters.get("reference"):
                repo_tags = [name for name in repo_tags if _is_named(name, filters["reference"])]
                repo_digests = [name for name in repo_digests if _is_named(name, filters["reference"])]
                if not repo_tags and not repo_digests:
                    continue
            users = [user.id for user in used_by(image.id)] if used_by is not None else None
            summary = {
                "Id": image.id,
                "ParentId": image.parent,
                "RepoTags": [parse(name).familiar for name in repo_tags],
                "RepoDigests": [parse(name).familiar for name in repo_digests],
                "Created": int(image.created),
                "Size": sizes.get(image.id, 0),
                "SharedSize": shared.get(image.id, 0) if shared_size else -1,
                "Labels": dict(image.labels) or None,
                "Containers": -1 if users is None else len(users),
                "Descriptor": descriptor_json(image.manifest),
            }
            if manifests:
                summary["Manifests"] = [
                    self._manifest_summary(
                        one, sizes.get(one.id, 0), [user.id for user in used_by(one.id)] if used_by is not None else []
                    )
                    for one in (image, *siblings.get(image.id, ()))
                ]
            summaries.append(summary)
        return summaries

    def layers_size(self) -> int:
        """Bytes of all layers, each counted once, in however many storage drivers it is."""
        with self._database.read() as connection:
            return records.layers_size(connection)

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
        known: Image | None = image
        with self._database.read() as connection:
            for step in steps:  # as far as the images it was built on are here
                if known is None:
                    break
                names = records.references_of(connection, known.id)
                step |= {"Id": known.id, "Tags": [parse(name).familiar for name in names if "@" not in name] or None}
                known = records.by_id(connection, known.parent) if known.parent else None
        return steps

    def _manifest_summary(self, image: Image, unpacked: int, users: Sequence[str]) -> dict[str, Any]:
        """The manifest of an image, as ``ImageManifestSummary`` of API 1.47."""
        with self._database.read() as connection:
            stored = sum(layer.blob.size for layer in records.layers_of(connection, image.id)) + image.manifest.size
        return {
            "ID": image.manifest.digest,
            "Descriptor": descriptor_json(image.manifest),
            "Available": True,
            "Size": {"Content": stored, "Total": stored + unpacked},
            "Kind": "image",
            "ImageData": {
                "Platform": platform_json(image.platform),
                "Containers": list(users),
                "Size": {"Unpacked": unpacked},
            },
        }

    # Naming

    def tag(self, ref: str, target: str) -> None:
        """Give an image one more name. Raises: as `get`; InvalidArgument for a bad ``target``."""
        name = parse_tag(target)
        image = self.get(ref)
        with self._database.write() as connection:
            if records.by_id(connection, image.id) is None:
                raise NotFound(f"No such image: {ref}")
            records.set_tag(connection, str(name), image.id, time.time())
        self._tell("tag", image, name.familiar)

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
            removal = Removal(connection, used_by)
            removal.remove(image, ref, force=force, prune=prune)
        for row in removal.done:
            if "Untagged" in row:
                self._tell("untag", image, image.id)
        for gone in removal.deleted:
            self._tell("delete", gone, gone.id)
        return removal.done

    def prune(
        self, filters: Filters | None = None, used_by: Callable[[str], Sequence[ImageUser]] = lambda id: ()
    ) -> Sequence[dict[str, str]]:
        """Remove what no container uses: dangling images, with the filter ``dangling=false`` tagged ones as well.

        Args: filters: also until, label and ``label!``.
        Returns, as `remove`, what was done. Raises: InvalidArgument for an unknown filter or value.
        """
        filters = filters or {}
        for name in filters:
            if name not in _PRUNE_FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        dangling_only = not filters.get("dangling") or _boolean("dangling", filters["dangling"])
        if len(filters.get("until", ())) > 1:
            raise InvalidArgument("more than one until filter specified")
        until = min([parse_moment(text) for text in filters.get("until", ())], default=None)
        with self._database.read() as connection:
            images = records.all_images(connection)
            parents = {image.parent for image in images}
            references = {image.id: records.references_of(connection, image.id) for image in images}
            kept = {sibling.id for others in records.siblings(connection).values() for sibling in others}
        done: _Rows = []
        for image in images:
            names = references[image.id]
            if (
                (not names and image.id in parents)
                or image.id in kept  # goes with the one that has the name
                or (dangling_only and any("@" not in name for name in names))
                or (until is not None and image.created > until)
                or not has_labels(image.labels, filters.get("label", ()))
                or ("label!" in filters and has_labels(image.labels, filters["label!"]))
                or used_by(image.id)
            ):
                continue
            for ref in [parse(name).familiar for name in names] or [image.id]:
                # Somebody else may have removed it meanwhile, or made a container of it.
                with contextlib.suppress(Conflict, NotFound):
                    done += self.remove(ref, used_by=used_by)
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
        """Get an image from a source that is no registry, under the name ``tag`` or else the one it proposes.

        See `dockp.images.arrival.Arrival.add_from`.
        """
        from dockp.images.arrival import Wanted
        from dockp.spi.images import SourceContext

        wanted = Wanted(reference=reference, names=[parse_tag(tag)] if tag else None, platform=platform, driver=driver)
        context = SourceContext(scratch="", progress=lambda what, done, total: None, options=options or {})
        return self.pull(source, wanted, context=context, progress=progress).image

    def pull(
        self,
        source: Callable[..., ImageSource],
        wanted: Wanted,
        *,
        context: SourceContext | None = None,
        verify: Verify = lambda image: None,
        progress: Progress | None = None,
    ) -> Arrived:
        """Get an image from a source. See `dockp.images.arrival.Arrival.add_from`."""
        from dockp.images.arrival import Arrival

        arrival = Arrival(self._database, self._content, self._leases, self._locks, self._layers)
        arrived = arrival.add_from(source, wanted, context=context, verify=verify, progress=progress)
        if wanted.shown:  # Docker tells of what was asked for, not of what it turned out to be
            name = wanted.repository and parse(wanted.repository).familiar_name
            self._emit("image", "pull", wanted.shown, {**arrived.image.labels, "name": name})
        else:
            self._tell("pull", arrived.image, arrived.image.id)
        return arrived

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
        image = arrival.import_(
            stream,
            changes=changes,
            message=message,
            reference=reference,
            platform=platform,
            driver=driver,
            progress=progress,
        )
        self._tell("import", image, image.id)
        return image

    def commit(
        self,
        stream: BinaryIO,
        *,
        parent: str,
        process: Mapping[str, Any],
        created_by: str,
        message: str,
        author: str,
        reference: str,
    ) -> Image:
        """Make an image of another and one more layer. See `dockp.images.arrival.Arrival.commit`."""
        from dockp.images.arrival import Arrival

        arrival = Arrival(self._database, self._content, self._leases, self._locks, self._layers)
        return arrival.commit(
            stream,
            parent=parent,
            process=process,
            created_by=created_by,
            message=message,
            author=author,
            reference=reference,
        )

    def load(
        self,
        stream: BinaryIO,
        *,
        platform: Platform | None = None,
        driver: str = "",
        progress: Progress | None = None,
    ) -> Sequence[str]:
        """Take the images of an archive. See `dockp.images.arrival.Arrival.load`.

        Returns: their names as people write them, or ids where they have none.
        """
        from dockp.images.arrival import Arrival

        arrival = Arrival(self._database, self._content, self._leases, self._locks, self._layers)
        loaded = []
        for image, names in arrival.load(stream, platform=platform, driver=driver, progress=progress):
            self._tell("load", image, image.id)
            loaded += [name.familiar for name in names] or [image.id]
        return loaded

    # Giving

    def save(self, refs: Sequence[str], *, platform: Platform | None = None) -> BinaryIO:
        """A tar of images, to be closed by the caller; see `dockp.images.save`. A name without a tag means every tag of
        that repository, an id or digest the image without a name.

        Raises: NotFound, also when an image is not for ``platform``; InvalidArgument for a malformed reference.
        """
        from dockp.images.documents import runs_on
        from dockp.images.save import save

        chosen: dict[str, tuple[Image, dict[Reference, None]]] = {}
        for ref in refs:
            for image, tag in self._meant_by(ref):
                if platform is not None and not runs_on(image.platform, platform):
                    raise NotFound(
                        f"image with reference {ref} was found but does not provide the specified platform ({platform})"
                    )
                tags = chosen.setdefault(image.id, (image, {}))[1]
                if tag is not None:
                    tags[tag] = None
        stream = save(self._content, self._leases, [(image, tuple(tags)) for image, tags in chosen.values()])
        for image, _ in chosen.values():
            self._tell("save", image, image.id)
        return stream

    def push(
        self,
        target: ImageTarget,
        name: Reference,
        *,
        platform: Platform | None = None,
        at_once: int = 5,
        progress: Progress | None = None,
    ) -> Sequence[Pushed]:
        """Store what is called ``name``, or without a tag all of that repository, in ``target``, and tell how it goes
        in Docker's words; see `dockp.images.pushing`.

        Raises: NotFound, also when an image is not for ``platform``; what the target raises.
        """
        from dockp.images.pushing import Pusher

        say: Progress = progress or (lambda what, done, total: None)
        with self._database.read() as connection:
            found = [(parse(whole), image) for whole, image in records.in_repository(connection, name.name)]
        if not found:
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        say(f"The push refers to repository [{name.name}]", 0, None)
        if name.tag is not None:
            found = [(one, image) for one, image in found if one.tag == name.tag]
            if not found:
                raise NotFound(f"tag does not exist: {name.familiar}")
        done = []
        for one, image in found:
            if platform is not None:
                image = self.get(one.familiar, platform)
            pusher = Pusher(self._database, self._content, self._leases, at_once)
            pushed = pusher.push(target, one, image, say, whole=platform is None)
            say(f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}", 0, None)
            self._emit("image", "push", one.familiar, {**image.labels, "name": one.familiar_name})
            done.append(pushed)
        return done

    def _meant_by(self, ref: str) -> Sequence[tuple[Image, Reference | None]]:
        if is_digest(ref) or is_identifier(ref):
            return [(self.get(ref), None)]
        reference = parse(ref)
        if reference.digest is None and reference.tag is None:
            with self._database.read() as connection:
                found = records.in_repository(connection, reference.name)
            if found:
                return [(image, parse(name)) for name, image in found]
        try:
            image = self.get(ref)
        except NotFound:
            if reference.tag is None or reference.digest is not None:
                raise NotFound(f"No such image: {ref}") from None
            raise NotFound("reference does not exist") from None
        return [(image, reference if reference.tag is not None and reference.digest is None else None)]

    # Inside

    def _tell(self, action: str, image: Image, name: str) -> None:
        self._emit("image", action, image.id, {**image.labels, "name": name})

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


def _boolean(name: str, values: Sequence[str]) -> bool:
    wanted = {value.lower() for value in values}
    if wanted <= _TRUE:
        return True
    if wanted <= _FALSE:
        return False
    raise InvalidArgument(f"invalid filter '{name}=[{values[0]}]'")


def has_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    reference = parse(name)
    return any(matches(pattern, reference) for pattern in patterns)
