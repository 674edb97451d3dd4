"""The images of an engine: `dockp.interface.Images`, done in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO

from dockp.images.removal import ImageUser
from dockp.interface import Document, Filters, Progress
from dockp.spi.errors import Forbidden, InvalidArgument, NotFound
from dockp.spi.values import Platform

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.engine.drivers import Drivers
    from dockp.images.arrival import Arrived, Wanted
    from dockp.spi.images import Credentials, SourceContext


class LocalImages:
    """See `dockp.interface.Images` for what each verb promises."""

    def __init__(self, context: Context, drivers: Drivers, settle: Callable[[], None]) -> None:
        self._context = context
        self._drivers = drivers
        self._settle = settle

    def list(
        self,
        *,
        all: bool = False,
        filters: Filters | None = None,
        shared_size: bool = False,
        manifests: bool = False,
    ) -> Sequence[Document]:
        return self._context.images.list(
            all=all,
            filters=filters,
            shared_size=shared_size,
            manifests=manifests,
            used_by=self._users if manifests else None,
        )

    def inspect(self, ref: str) -> Document:
        return self._context.images.inspect(ref, self._drivers.default_storage())

    def history(self, ref: str) -> Sequence[Document]:
        return self._context.images.history(ref)

    def tag(self, ref: str, target: str) -> None:
        self._context.images.tag(ref, target)

    def remove(self, ref: str, *, force: bool = False, prune: bool = True) -> Sequence[Document]:
        self._settle()
        done = self._context.images.remove(ref, force=force, prune=prune, used_by=self._users)
        if any("Deleted" in row for row in done):
            self._context.collector.collect()
        return [dict(row) for row in done]

    def import_(
        self,
        source: BinaryIO,
        *,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
        progress: Progress | None = None,
    ) -> str:
        self._context.collector.tidy()
        image = self._context.images.import_(
            source,
            changes=changes,
            message=message,
            reference=reference,
            platform=_platform(platform),
            driver=self._drivers.default_storage(),
            progress=progress,
        )
        return image.id

    def pull(
        self,
        reference: str,
        *,
        tag: str = "",
        platform: str = "",
        all_tags: bool = False,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> str:
        from dockp.images.arrival import Wanted
        from dockp.images.reference import DEFAULT_SCHEME, parse_tag, split_scheme

        known = [info.name for info in self._context.registry.drivers("source")]
        scheme, rest = split_scheme(reference, known)
        # Of an earlier attempt that was killed: its disk may be needed now.
        self._context.collector.tidy()
        wanted = Wanted(
            reference=rest,
            names=[parse_tag(tag)] if tag else None,
            platform=_platform(platform),
            driver=self._drivers.default_storage(),
            at_once=self._context.config.max_concurrent_downloads,
        )
        if scheme == DEFAULT_SCHEME:
            return self._pull_named(wanted, all_tags, credentials, progress)
        if not rest:
            raise InvalidArgument(f"invalid reference format: {reference} names nothing after {scheme}:")
        return self._get(scheme, wanted, None, progress).image.id

    def _pull_named(
        self, wanted: Wanted, all_tags: bool, credentials: Credentials | None, progress: Progress | None
    ) -> str:
        """Pull from a registry, and say so in Docker's words."""
        from attrs import evolve

        from dockp.images.reference import DEFAULT_SCHEME, parse
        from dockp.images.registry.endpoints import settings_of
        from dockp.spi.images import Credentials, SourceContext

        name = parse(wanted.reference)
        if name.familiar_name == "scratch":
            raise Forbidden("'scratch' is a reserved name")
        say: Progress = progress or (lambda what, done, total: None)
        context = SourceContext(
            scratch="",
            progress=say,
            credentials=credentials or Credentials(),
            registries=settings_of(self._context.config),
        )
        if all_tags:
            if name.tag or name.digest:
                raise InvalidArgument("tag can't be used with --all-tags/-a")
            references = [evolve(name, tag=tag) for tag in self._tags(str(name), context)]
        else:
            references = [name.with_default_tag()]
        id, changed = "", False
        for one in references:
            names = wanted.names if wanted.names is not None else [one] if one.digest is None else []
            arrived = self._get(
                DEFAULT_SCHEME,
                evolve(
                    wanted,
                    reference=str(one),
                    shown=one.familiar,
                    title=f"{one.digest or one.tag}: Pulling from {one.path}",
                    names=names,
                    repository=one.name,
                ),
                context,
                progress,
            )
            say(f"Digest: {arrived.digest}", 0, None)
            id, changed = arrived.image.id, changed or arrived.changed
        shown = name.familiar if all_tags else references[0].familiar
        say(f"Status: {'Downloaded newer image' if changed else 'Image is up to date'} for {shown}", 0, None)
        return id

    def _tags(self, name: str, context: SourceContext) -> Sequence[str]:
        from dockp.images.reference import DEFAULT_SCHEME

        source = self._drivers.source(DEFAULT_SCHEME)(context)
        try:
            tags = source.tags(name)
        finally:
            source.close()
        if not tags:
            raise NotFound(f"no tags found for repository {name}")
        return tags

    def _get(self, scheme: str, wanted: Wanted, context: SourceContext | None, progress: Progress | None) -> Arrived:
        decided = self._context.registry.moments
        try:
            arrived = self._context.images.pull(
                self._drivers.source(scheme),
                wanted,
                context=context,
                verify=lambda image: self._context.moment("dockp_image_verify", image=image) if decided else None,
                progress=progress,
            )
        except (Forbidden, InvalidArgument):
            self._context.collector.collect()  # nothing of it will be asked for again
            raise
        if decided:
            self._context.moment("dockp_image_pulled", image=self._context.images.inspect(arrived.image.id))
        return arrived

    def save(self, refs: Sequence[str], *, platform: str = "") -> BinaryIO:
        return self._context.images.save(refs, platform=_platform(platform))

    def load(self, source: BinaryIO, *, platform: str = "", progress: Progress | None = None) -> Sequence[str]:
        self._context.collector.tidy()
        return self._context.images.load(
            source, platform=_platform(platform), driver=self._drivers.default_storage(), progress=progress
        )

    def push(
        self,
        reference: str,
        *,
        platform: str = "",
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> Sequence[Document]:
        from dockp.images.reference import DEFAULT_SCHEME, parse

        name = parse(reference)
        if name.digest:
            raise InvalidArgument("cannot push a digest reference")
        source = self._drivers.source(DEFAULT_SCHEME)(self._registry_context(credentials, progress))
        try:
            done = self._context.images.push(
                source.target(name.name),
                name,
                platform=_platform(platform),
                at_once=self._context.config.max_concurrent_uploads,
                progress=progress,
            )
        finally:
            source.close()
        return [{"Tag": one.tag, "Digest": one.digest, "Size": one.size} for one in done]

    def search(
        self, term: str, *, limit: int = 0, filters: Filters | None = None, credentials: Credentials | None = None
    ) -> Sequence[Document]:
        from dockp.images.registry.searching import search

        context = self._registry_context(credentials)
        return search(
            term, limit=limit, filters=filters or {}, credentials=context.credentials, settings=context.registries
        )

    def distribution(self, reference: str, *, credentials: Credentials | None = None) -> Document:
        from dockp.images.lookup import distribution
        from dockp.images.reference import DEFAULT_SCHEME

        source = self._drivers.source(DEFAULT_SCHEME)(self._registry_context(credentials))
        try:
            return distribution(source, reference)
        finally:
            source.close()

    def _registry_context(self, credentials: Credentials | None, progress: Progress | None = None) -> SourceContext:
        from dockp.images.registry.endpoints import settings_of
        from dockp.spi.images import Credentials, SourceContext

        return SourceContext(
            scratch="",
            progress=progress or (lambda what, done, total: None),
            credentials=credentials or Credentials(),
            registries=settings_of(self._context.config),
        )

    def prune(self, filters: Filters | None = None) -> Document:
        self._settle()
        done = self._context.images.prune(filters, self._users)
        freed = self._context.collector.collect().bytes if any("Deleted" in row for row in done) else 0
        self._context.events.emit("image", "prune", "", {"reclaimed": str(freed)})
        return {"ImagesDeleted": [dict(row) for row in done] or None, "SpaceReclaimed": freed}

    def _users(self, image_id: str) -> Sequence[ImageUser]:
        return [
            ImageUser(id=container.id, running=container.active)
            for container in self._context.table.using_image(image_id)
        ]


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    from dockp.images.documents import parse_platform

    return parse_platform(text)
