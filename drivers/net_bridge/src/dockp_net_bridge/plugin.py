"""The plug-in: registers the driver ``bridge``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dockp.spi.hooks import hookimpl

if TYPE_CHECKING:
    from dockp.spi.network import NetworkDriver

DOCKP_SPI = 1


@hookimpl
def dockp_network_drivers() -> Sequence[type[NetworkDriver]]:
    from dockp_net_bridge.driver import BridgeDriver

    return [BridgeDriver]
