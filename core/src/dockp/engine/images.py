"""The images of an engine: `dockp.interface.Images`, done in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO

from dockp.images.removal import ImageUser
from dockp.interface import Document, Filters, Progress
from dockp.spi.errors import InvalidArgument, NotImplemented
from dockp.spi.values import Platform

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.engine.drivers import Drivers


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

    def pull(self, reference: str, *, tag: str = "", platform: str = "", progress: Progress | None = None) -> str:
        scheme, colon, rest = reference.partition(":")
        known = [info.name for info in self._context.registry.drivers("source")]
        if not colon or scheme not in known:
            from dockp.images.reference import parse

            parse(reference)
            raise NotImplemented(
                f"cannot pull {reference}: registries are not supported yet; pull from one of "
                + ", ".join(f"{name}:" for name in sorted(known))
                + ", or import a tar"
            )
        if not rest:
            raise InvalidArgument(f"invalid reference format: {reference} names nothing after {scheme}:")
        source = self._drivers.source(scheme)
        # Of an earlier attempt that was killed: its disk may be needed now.
        self._context.collector.tidy()
        image = self._context.images.add_from(
            source,
            rest,
            tag=tag,
            platform=_platform(platform),
            driver=self._drivers.default_storage(),
            progress=progress,
        )
        if self._context.registry.moments:
            self._context.moment("dockp_image_pulled", image=self._context.images.inspect(image.id))
        return image.id

    def save(self, refs: Sequence[str], *, platform: str = "") -> BinaryIO:
        return self._context.images.save(refs, platform=_platform(platform))

    def load(self, source: BinaryIO, *, platform: str = "", progress: Progress | None = None) -> Sequence[str]:
        self._context.collector.tidy()
        return self._context.images.load(
            source, platform=_platform(platform), driver=self._drivers.default_storage(), progress=progress
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
