"""The volumes of an engine: `dockp.interface.Volumes`, done in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dockp.interface import Document, Filters
from dockp.spi.errors import InvalidArgument

if TYPE_CHECKING:
    from dockp.volumes.service import VolumeService

_FILTERS = frozenset({"name", "label", "driver", "dangling"})


class LocalVolumes:
    """See `dockp.interface.Volumes` for what each verb promises."""

    def __init__(self, service: VolumeService) -> None:
        self._service = service

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
        given = filters or {}
        for key in given:
            if key not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        return [
            self._service.document(volume)
            for volume in self._service.list()
            if all(
                any(self._passes(volume.name, volume.driver, volume.labels, key, value) for value in values)
                for key, values in given.items()
            )
        ]

    def inspect(self, name: str) -> Document:
        return self._service.document(self._service.get(name))

    def remove(self, name: str, *, force: bool = False) -> None:
        self._service.remove(name, force=force)

    def _passes(self, name: str, driver: str, labels: Mapping[str, str], key: str, value: str) -> bool:
        if key == "name":
            return value in name
        if key == "driver":
            return value == driver
        if key == "label":
            label, separator, wanted = value.partition("=")
            return label in labels and (not separator or labels[label] == wanted)
        if value.lower() not in ("true", "1", "false", "0"):
            raise InvalidArgument(f"invalid filter 'dangling={value}'")
        return (not self._service.users(name)) == (value.lower() in ("true", "1"))
