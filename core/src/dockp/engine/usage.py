"""What takes how much space: ``GET /system/df``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dockp.containers.context import Context
from dockp.containers.describe import summary
from dockp.containers.settling import current
from dockp.images.removal import ImageUser
from dockp.interface import Document


def disk_usage(context: Context, types: Sequence[str]) -> Document:
    """See `dockp.interface.System.disk_usage`. What was not asked for is left out."""
    document: Document = {}
    for name in types or _PARTS:
        document |= _PARTS[name](context)
    return document


def _images(context: Context) -> dict[str, Any]:
    def users(image_id: str) -> Sequence[ImageUser]:
        return [ImageUser(id=found.id, running=found.active) for found in context.table.using_image(image_id)]

    return {
        "LayersSize": context.images.layers_size(),
        "Images": list(context.images.list(shared_size=True, used_by=users)),
    }


def _containers(context: Context) -> dict[str, Any]:
    return {"Containers": [summary(context, container, size=True) for container in current(context)]}


def _volumes(context: Context) -> dict[str, Any]:
    volumes = context.volumes
    return {"Volumes": [{**volumes.document(volume), "UsageData": volumes.usage(volume)} for volume in volumes.list()]}


def _build_cache(context: Context) -> dict[str, Any]:
    return {"BuildCache": []}  # nothing is built yet


_PARTS: Mapping[str, Callable[[Context], dict[str, Any]]] = {
    "image": _images,
    "container": _containers,
    "volume": _volumes,
    "build-cache": _build_cache,
}
