"""Hook specs: the two families of pluggy hooks, and the marker that plug-ins use.

A plug-in is a module named by an entry point in the group ``dockp``. It states ``DOCKP_SPI = 1`` (the SPI version it
was written for) and implements any of the hooks below with `hookimpl`::

    from dockp.spi.hooks import hookimpl

    DOCKP_SPI = 1

    @hookimpl
    def dockp_storage_drivers():
        from my_package.driver import MyDriver    # imported only when asked for
        return [MyDriver]

*Providers* return classes and are called once, when the plug-in cache is made. *Moments* are called while the engine
works; they may observe, change or refuse (by raising a `dockp.spi.errors.DockpError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from dockp.spi.execution import ExecDriver
    from dockp.spi.images import ImageSource
    from dockp.spi.logs import LogDriver
    from dockp.spi.network import IpamDriver, NetworkDriver
    from dockp.spi.storage import StorageDriver
    from dockp.spi.volumes import VolumeDriver

SPI_VERSION = 1
"""Raised when a contract changes incompatibly. The engine takes plug-ins of this version and says so of others."""

hookspec = pluggy.HookspecMarker("dockp")
hookimpl = pluggy.HookimplMarker("dockp")


@hookspec
def dockp_storage_drivers() -> Sequence[type[StorageDriver]]:  # type: ignore[empty-body]
    """Provider: storage driver classes. Since: SPI 1."""


@hookspec
def dockp_network_drivers() -> Sequence[type[NetworkDriver]]:  # type: ignore[empty-body]
    """Provider: network driver classes. Since: SPI 1."""


@hookspec
def dockp_ipam_drivers() -> Sequence[type[IpamDriver]]:  # type: ignore[empty-body]
    """Provider: address management driver classes. Since: SPI 1."""


@hookspec
def dockp_exec_drivers() -> Sequence[type[ExecDriver]]:  # type: ignore[empty-body]
    """Provider: execution driver classes. Since: SPI 1."""


@hookspec
def dockp_image_sources() -> Sequence[type[ImageSource]]:  # type: ignore[empty-body]
    """Provider: image source classes. Since: SPI 1."""


@hookspec
def dockp_volume_drivers() -> Sequence[type[VolumeDriver]]:  # type: ignore[empty-body]
    """Provider: volume driver classes. Since: SPI 1."""


@hookspec
def dockp_log_drivers() -> Sequence[type[LogDriver]]:  # type: ignore[empty-body]
    """Provider: log driver classes. Since: SPI 1."""


@hookspec
def dockp_image_verify(image: dict[str, Any]) -> None:
    """Moment: an image is about to be used by a new container, or about to be pulled.

    Called: by the engine in ``containers.create``, before anything is made; in ``images.pull``, when manifest and
    config are here and verified, and no layer is; no lock held.
    Args: image: ``id``; ``references``, the tags it has or is to get; ``digests``, ``name@digest`` of what its
        repositories call it, perhaps an index; ``manifest``, the digest of its own; ``platform``, as
        ``linux/arm64/v8``; ``config``, the whole document. Changing it has no effect.
    Raises: Forbidden to refuse, with the reason; a pull then leaves names and images as they were. Since: SPI 1.
    """


@hookspec
def dockp_container_spec(container: dict[str, Any], spec: dict[str, Any]) -> None:
    """Moment: the OCI runtime spec of a container is complete and about to be written.

    Called: by the engine in ``containers.start``, under the container's lock.
    Args: container: its inspect document. spec: change it in place. Raises: any DockpError to refuse. Since: SPI 1.
    """


@hookspec
def dockp_container_started(container: dict[str, Any]) -> None:
    """Moment: a container runs. Observes only: an exception is logged. Since: SPI 1."""


@hookspec
def dockp_container_died(container: dict[str, Any]) -> None:
    """Moment: the engine saw that a container ended. Observes only: an exception is logged. Since: SPI 1."""


@hookspec
def dockp_image_pulled(image: dict[str, Any]) -> None:
    """Moment: an image arrived in the store and is complete. Observes only. Since: SPI 1."""


PROVIDERS = (
    "dockp_storage_drivers",
    "dockp_network_drivers",
    "dockp_ipam_drivers",
    "dockp_exec_drivers",
    "dockp_image_sources",
    "dockp_volume_drivers",
    "dockp_log_drivers",
)
MOMENTS = (
    "dockp_image_verify",
    "dockp_container_spec",
    "dockp_container_started",
    "dockp_container_died",
    "dockp_image_pulled",
)
