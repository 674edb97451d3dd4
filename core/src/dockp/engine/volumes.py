"""The volumes of an engine: `dockp.interface.Volumes`, done in this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dockp.interface import Document, Filters
from dockp.spi.errors import InvalidArgument

if TYPE_CHECKING:
    from dockp.volumes.service import Volume, VolumeService

_LIST_FILTERS = frozenset({"name", "label", "driver", "dangling"})
_PRUNE_FILTERS = frozenset({"all", "label", "label!"})
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


class LocalVolumes:
    """See `dockp.interface.Volumes` for what each verb promises.

    Args: settle: frees what containers held that ended unseen.
    """

    def __init__(self, service: VolumeService, settle: Callable[[], None]) -> None:
        self._service = service
        self._settle = settle

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Document:
        volume = self._service.ensure(name, driver=driver, options=options, labels=labels)
        return self._service.document(volume)

    def list(self, filters: Filters | None = None) -> Sequence[Document]:
        given = _known(filters, _LIST_FILTERS)
        dangling = _boolean(given, "dangling")
        return [
            self._service.document(volume)
            for volume in self._service.list()
            if (not given.get("name") or any(_is_like(volume.name, pattern) for pattern in given["name"]))
            and (not given.get("driver") or volume.driver in given["driver"])
            and _has_labels(volume, given.get("label", ()))
            and (dangling is None or (not self._service.users(volume.name)) == dangling)
        ]

    def inspect(self, name: str) -> Document:
        return self._service.document(self._service.get(name))

    def remove(self, name: str, *, force: bool = False) -> None:
        self._service.remove(name, force=force)

    def prune(self, filters: Filters | None = None) -> Document:
        given = _known(filters, _PRUNE_FILTERS)
        named_too = _boolean(given, "all")

        def wanted(volume: Volume) -> bool:
            return (
                (volume.anonymous or named_too is True)
                and _has_labels(volume, given.get("label", ()))
                and not ("label!" in given and _has_labels(volume, given["label!"]))
            )

        self._settle()
        removed, freed = self._service.prune(wanted)
        return {"VolumesDeleted": list(removed), "SpaceReclaimed": freed}


def _known(filters: Filters | None, names: frozenset[str]) -> Filters:
    for name in filters or ():
        if name not in names:
            raise InvalidArgument(f"invalid filter '{name}'")
    return filters or {}


def _boolean(filters: Filters, name: str) -> bool | None:
    """None when the filter was not given. Raises: InvalidArgument when it is neither, or both."""
    values = filters.get(name)
    if not values:
        return None
    found = {_BOOLEANS.get(value.lower()) for value in values}
    if len(found) != 1 or None in found:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
    return found.pop()


def _is_like(name: str, pattern: str) -> bool:
    """Docker takes the filter for a regular expression that may match anywhere, and a malformed one for no match."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def _has_labels(volume: Volume, wanted: Sequence[str]) -> bool:
    """Whether it has all of them, each ``key`` or ``key=value``."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in volume.labels or (equals and volume.labels[key] != value):
            return False
    return True
