"""The networks of an engine: `dockp.interface.Networks`, done in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dockp.interface import Document, Filters

if TYPE_CHECKING:
    from dockp.networks.service import NetworkService


class LocalNetworks:
    """See `dockp.interface.Networks` for what each verb promises."""

    def __init__(self, service: NetworkService, settle: Callable[[], None]) -> None:
        self._service = service
        self._settle = settle

    def list(self, filters: Filters | None = None) -> Sequence[Document]:
        self._settle()
        return self._service.list(filters)

    def inspect(self, ref: str) -> Document:
        self._settle()
        return self._service.inspect(ref)
