"""What a driver author imports: contracts, values, errors and hook specs.

Imports attrs and pluggy, and nothing else of dockp. Names are loaded when first used, so that the shim can import
`dockp.spi.runtime` without paying for the rest.
"""

from __future__ import annotations

# Not from typing: the shim imports this package, and typing alone would double what a shim costs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dockp.spi.errors import (
        AlreadyExists,
        Conflict,
        DockpError,
        FailedPrecondition,
        Forbidden,
        InvalidArgument,
        NotFound,
        NotImplemented,
        NotModified,
        StartFailure,
        SystemFault,
        Unauthorized,
        Unavailable,
    )
    from dockp.spi.execution import ExecDriver
    from dockp.spi.hooks import SPI_VERSION, hookimpl, hookspec
    from dockp.spi.images import Credentials, ImageSource, ImageTarget, RegistrySettings, SourceContext
    from dockp.spi.logs import LogDriver, LogEntry
    from dockp.spi.network import (
        Endpoint,
        IpamDriver,
        Network,
        NetworkDriver,
        NetworkInventory,
        Pool,
        Publication,
    )
    from dockp.spi.runtime import Runtime, RuntimeFailure
    from dockp.spi.storage import StorageDriver
    from dockp.spi.values import ChangesDirectory, Descriptor, Mount, Platform, Probe, Usage
    from dockp.spi.volumes import VolumeDriver

_HOME = {
    "errors": (
        "AlreadyExists",
        "Conflict",
        "DockpError",
        "FailedPrecondition",
        "Forbidden",
        "InvalidArgument",
        "NotFound",
        "NotImplemented",
        "NotModified",
        "StartFailure",
        "SystemFault",
        "Unauthorized",
        "Unavailable",
    ),
    "execution": ("ExecDriver",),
    "hooks": ("SPI_VERSION", "hookimpl", "hookspec"),
    "images": ("Credentials", "ImageSource", "ImageTarget", "RegistrySettings", "SourceContext"),
    "logs": ("LogDriver", "LogEntry"),
    "network": (
        "Endpoint",
        "IpamDriver",
        "Network",
        "NetworkDriver",
        "NetworkInventory",
        "Pool",
        "Publication",
    ),
    "runtime": ("Runtime", "RuntimeFailure"),
    "storage": ("StorageDriver",),
    "values": ("ChangesDirectory", "Descriptor", "Mount", "Platform", "Probe", "Usage"),
    "volumes": ("VolumeDriver",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "SPI_VERSION",
    "AlreadyExists",
    "ChangesDirectory",
    "Conflict",
    "Credentials",
    "Descriptor",
    "DockpError",
    "Endpoint",
    "ExecDriver",
    "FailedPrecondition",
    "Forbidden",
    "ImageSource",
    "ImageTarget",
    "InvalidArgument",
    "IpamDriver",
    "LogDriver",
    "LogEntry",
    "Mount",
    "Network",
    "NetworkDriver",
    "NetworkInventory",
    "NotFound",
    "NotImplemented",
    "NotModified",
    "Platform",
    "Pool",
    "Probe",
    "Publication",
    "RegistrySettings",
    "Runtime",
    "RuntimeFailure",
    "SourceContext",
    "StartFailure",
    "StorageDriver",
    "SystemFault",
    "Unauthorized",
    "Unavailable",
    "Usage",
    "VolumeDriver",
    "hookimpl",
    "hookspec",
]


def __getattr__(name: str) -> Any:
    import importlib

    try:
        module = importlib.import_module(f"dockp.spi.{_MODULE_OF[name]}")
    except KeyError:
        raise AttributeError(f"module 'dockp.spi' has no attribute {name!r}") from None
    value = getattr(module, name)
    globals()[name] = value
    return value
