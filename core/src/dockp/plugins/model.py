"""What is known of plug-ins without importing them."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Kind:
    """One kind of driver: the hook that provides it, and its contract.

    Attributes:
        noun: how messages call it, ``"storage driver"``.
        hook: the provider hook of `dockp.spi.hooks`.
        module, contract: where its abstract base class is.
        key: the class attribute that holds its name.
        unknown: Docker's words for a name that nobody has, with ``{name}`` in it.
    """

    noun: str
    hook: str
    module: str
    contract: str
    unknown: str
    key: str = "name"


KINDS: dict[str, Kind] = {
    "storage": Kind(
        noun="storage driver",
        hook="dockp_storage_drivers",
        module="dockp.spi.storage",
        contract="StorageDriver",
        unknown="driver not supported: {name}",
    ),
    "network": Kind(
        noun="network driver",
        hook="dockp_network_drivers",
        module="dockp.spi.network",
        contract="NetworkDriver",
        unknown='could not find plugin {name} in v1 plugin registry: plugin "{name}" not found',
    ),
    "ipam": Kind(
        noun="IPAM driver",
        hook="dockp_ipam_drivers",
        module="dockp.spi.network",
        contract="IpamDriver",
        unknown='could not resolve IPAM driver "{name}": plugin "{name}" not found',
    ),
    "exec": Kind(
        noun="execution driver",
        hook="dockp_exec_drivers",
        module="dockp.spi.execution",
        contract="ExecDriver",
        unknown="unknown or invalid runtime name: {name}",
    ),
    "source": Kind(
        noun="image source",
        hook="dockp_image_sources",
        module="dockp.spi.images",
        contract="ImageSource",
        unknown='unknown image source "{name}:"',
        key="scheme",
    ),
    "volume": Kind(
        noun="volume driver",
        hook="dockp_volume_drivers",
        module="dockp.spi.volumes",
        contract="VolumeDriver",
        unknown='error looking up volume plugin {name}: plugin "{name}" not found',
    ),
    "log": Kind(
        noun="log driver",
        hook="dockp_log_drivers",
        module="dockp.spi.logs",
        contract="LogDriver",
        unknown="logger: no log driver named '{name}' is registered",
    ),
}
"""Every kind of driver by the word that the API of this package takes."""


@frozen(kw_only=True)
class DriverInfo:
    """One driver, as it was when its plug-in was checked.

    Attributes:
        kind: a key of `KINDS`. name: what users type (an image source's scheme).
        plugin: the entry point's name. distribution, version: who ships it.
        module, qualname: where its class is.
        priority: the class attribute; 0 for kinds that have none.
        builtin: True for the drivers that dockp itself ships.
        spi: the SPI version that the plug-in states.
    """

    kind: str
    name: str
    plugin: str
    distribution: str
    version: str
    module: str
    qualname: str
    summary: str = ""
    priority: int = 0
    builtin: bool = False
    spi: int = 0


@frozen(kw_only=True)
class MomentInfo:
    """A plug-in that takes part in moments: which ones, and the module to import."""

    plugin: str
    distribution: str
    version: str
    module: str
    hooks: tuple[str, ...]


@frozen(kw_only=True)
class Problem:
    """What is wrong with one plug-in; ``str(problem)`` is the whole line."""

    plugin: str
    distribution: str
    message: str

    def __str__(self) -> str:
        return f'plug-in "{self.plugin}" ({self.distribution}): {self.message}'


@frozen(kw_only=True)
class Findings:
    """The result of one discovery."""

    drivers: tuple[DriverInfo, ...] = ()
    moments: tuple[MomentInfo, ...] = ()
    problems: tuple[Problem, ...] = ()
