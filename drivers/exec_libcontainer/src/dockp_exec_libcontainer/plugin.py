"""The plug-in module: registers the driver, imports it only when asked."""

from __future__ import annotations

from collections.abc import Sequence

from dockp.spi.execution import ExecDriver
from dockp.spi.hooks import hookimpl

DOCKP_SPI = 1


@hookimpl
def dockp_exec_drivers() -> Sequence[type[ExecDriver]]:
    from dockp_exec_libcontainer.driver import LibcontainerDriver

    return [LibcontainerDriver]
