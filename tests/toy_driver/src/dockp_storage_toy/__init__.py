"""A storage driver as a third party would ship it. See ``docs/drivers/`` of dockp."""

from __future__ import annotations

from collections.abc import Sequence

from dockp.spi import StorageDriver, hookimpl

DOCKP_SPI = 1


@hookimpl
def dockp_storage_drivers() -> Sequence[type[StorageDriver]]:
    from dockp_storage_toy.driver import ToyDriver

    return [ToyDriver]
