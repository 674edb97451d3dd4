"""The entry point: says which driver this distribution brings, and imports it only when asked."""

from __future__ import annotations

from collections.abc import Sequence

from dockp.spi.hooks import hookimpl
from dockp.spi.storage import StorageDriver

DOCKP_SPI = 1


@hookimpl
def dockp_storage_drivers() -> Sequence[type[StorageDriver]]:
    from dockp_storage_overlay2.driver import Overlay2Driver

    return [Overlay2Driver]
