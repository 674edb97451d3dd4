"""The networks of an engine: `dockp.interface.Networks`, done in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dockp.interface import Document, Filters
from dockp.networks.service import PREDEFINED
from dockp.spi.errors import InvalidArgument

if TYPE_CHECKING:
    from dockp.networks.service import NetworkService


_FILTERS = frozenset({"name", "id", "driver", "label", "type", "scope", "dangling"})
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


class LocalNetworks:
    """See `dockp.interface.Networks` for what each verb promises."""

    def __init__(self, service: NetworkService, settle: Callable[[], None]) -> None:
        self._service = service
        self._settle = settle

    def list(self, filters: Filters | None = None) -> Sequence[Document]:
        self._settle()
        given = filters or {}
        for key in given:
            if key not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        for value in given.get("type", ()):
            if value not in ("builtin", "custom"):
                raise InvalidArgument(f"invalid filter: 'type'='{value}'")
        for value in given.get("dangling", ()):
            if value.lower() not in _BOOLEANS:
                raise InvalidArgument(f"invalid filter 'dangling=[{value}]'")
        documents = [self._service.inspect(record.id) for record in self._service.all()]
        return [document for document in documents if _passes(document, given)]

    def inspect(self, ref: str) -> Document:
        self._settle()
        return self._service.inspect(ref)


def _passes(document: Document, filters: Filters) -> bool:
    return all(
        (all if key == "label" else any)(_matches(document, key, value) for value in values)
        for key, values in filters.items()
    )


def _matches(document: Document, key: str, value: str) -> bool:
    if key == "id":
        return str(document["Id"]).startswith(value)
    if key == "name":
        return value in document["Name"]
    if key == "type":
        return value == ("builtin" if document["Name"] in PREDEFINED else "custom")
    if key == "dangling":  # one that was made, and that nobody uses
        return _BOOLEANS[value.lower()] == (document["Name"] not in PREDEFINED and not document["Containers"])
    if key == "label":
        labels = document.get("Labels") or {}
        name, separator, wanted = value.partition("=")
        return name in labels and (not separator or labels[name] == wanted)
    return bool(document[key.capitalize()] == value)
