"""The core's own plug-in: the drivers that every engine has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dockp.spi.hooks import SPI_VERSION, hookimpl

if TYPE_CHECKING:
    from dockp.spi import ImageSource, IpamDriver, LogDriver, VolumeDriver

DOCKP_SPI = SPI_VERSION


@hookimpl
def dockp_ipam_drivers() -> Sequence[type[IpamDriver]]:
    from dockp.networks.ipam import DefaultIpam

    return [DefaultIpam]


@hookimpl
def dockp_image_sources() -> Sequence[type[ImageSource]]:
    from dockp.images.registry.source import RegistrySource
    from dockp.images.sources.debootstrap import DebootstrapSource
    from dockp.images.sources.docker_archive import DockerArchiveSource
    from dockp.images.sources.oci_layout import OciLayoutSource

    return [RegistrySource, OciLayoutSource, DockerArchiveSource, DebootstrapSource]


@hookimpl
def dockp_volume_drivers() -> Sequence[type[VolumeDriver]]:
    from dockp.volumes.local import LocalVolumes

    return [LocalVolumes]


@hookimpl
def dockp_log_drivers() -> Sequence[type[LogDriver]]:
    from dockp.logs.json_file import JsonFileLog
    from dockp.logs.none import NoLog

    return [JsonFileLog, NoLog]
