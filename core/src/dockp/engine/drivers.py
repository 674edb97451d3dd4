"""The drivers of one engine: chosen, opened once, and behind their guards."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dockp.config import Config
from dockp.guard import GuardReport, guarded, report
from dockp.plugins import choice
from dockp.plugins.registry import PluginRegistry
from dockp.spi.errors import InvalidArgument

if TYPE_CHECKING:
    from dockp.spi.execution import ExecDriver
    from dockp.spi.images import ImageSource
    from dockp.spi.logs import LogDriver
    from dockp.spi.network import IpamDriver, NetworkDriver
    from dockp.spi.storage import StorageDriver
    from dockp.spi.volumes import VolumeDriver

T = TypeVar("T")


class Drivers:
    """Every accessor raises InvalidArgument for an unknown name, Unavailable for a driver that cannot be loaded."""

    def __init__(self, registry: PluginRegistry, config: Config) -> None:
        self.registry = registry
        self.config = config
        self._open: dict[tuple[str, str], Any] = {}
        self._guard = threading.RLock()
        self._chosen: dict[str, tuple[str, str]] = {}

    def storage(self, name: str) -> StorageDriver:
        def make(cls: Any) -> StorageDriver:
            root = choice.storage_root(self.config, name)
            root.parent.mkdir(mode=0o710, exist_ok=True)
            return cast("StorageDriver", cls(root, self.options("storage", name)))

        return self._get("storage", name, make)

    def exec(self, name: str) -> ExecDriver:
        def make(cls: Any) -> ExecDriver:
            options = {"cache": str(Path(self.config.data_root) / "cache" / name), **self.options("exec", name)}
            return cast("ExecDriver", cls(options))

        return self._get("exec", name, make)

    def network(self, name: str) -> NetworkDriver:
        return cast("NetworkDriver", self._get("network", name, lambda cls: cls(self.options("network", name))))

    def ipam(self, name: str) -> IpamDriver:
        pools = ",".join(f"{pool.base}={pool.size}" for pool in self.config.default_address_pools)
        options = {"pools": pools} if pools else {}
        return cast("IpamDriver", self._get("ipam", name, lambda cls: cls(options)))

    def volume(self, name: str) -> VolumeDriver:
        folder = "volumes" if name == "local" else f"volumes-{name}"
        root = Path(self.config.data_root) / folder
        return cast("VolumeDriver", self._get("volume", name, lambda cls: cls(root, {})))

    def log(self, name: str) -> type[LogDriver]:
        try:
            return cast("type[LogDriver]", self.registry.load("log", name))
        except InvalidArgument as error:
            raise InvalidArgument(f"logger: no log driver named '{name}' is registered") from error

    def source(self, scheme: str) -> type[ImageSource]:
        return cast("type[ImageSource]", self.registry.load("source", scheme))

    def default_storage(self) -> str:
        """The storage driver for what is made now, remembered for this data root."""
        return self.choose("storage")[0]

    def default_exec(self) -> str:
        return self.choose("exec")[0]

    def choose(self, kind: str) -> tuple[str, str]:
        """("storage" or "exec") → the name and why it is that one."""
        with self._guard:
            if kind not in self._chosen:
                if kind == "storage":
                    name, why = choice.choose_storage(self.registry, self.config)
                    if self.config.storage_driver is None:
                        choice.remember_storage(self.config, name)
                else:
                    name, why = choice.choose_exec(self.registry, self.config)
                    if self.config.exec_driver is None:
                        choice.remember_exec(self.config, name)
                self._chosen[kind] = name, why
            return self._chosen[kind]

    def options(self, kind: str, name: str) -> dict[str, str]:
        """What is configured for one driver; options without a driver's prefix are the default driver's."""
        known = [info.name for info in self.registry.drivers(kind)]
        default = {
            "storage": self.config.storage_driver or self._chosen.get("storage", (name,))[0],
            "exec": self.config.exec_driver or self._chosen.get("exec", (name,))[0],
            "network": self.config.default_network_driver,
            "log": self.config.log_driver,
        }[kind]
        return self.config.driver_options(kind, name, default=default, known=known)

    def reports(self) -> list[GuardReport]:
        """What the drivers that are open were asked, and how it went."""
        with self._guard:
            return [report(driver) for driver in self._open.values()]

    def search_paths(self) -> list[str]:
        """Directories that a shim must have on its path to import dockp and any execution or log driver's half."""
        packages = {
            info.module.partition(".")[0]: None for info in self.registry.drivers() if info.kind in ("exec", "log")
        }
        found: dict[str, None] = {}
        for package in ("dockp", *packages):
            spec = importlib.util.find_spec(package)
            for location in (spec.submodule_search_locations or ()) if spec is not None else ():
                found[str(Path(location).parent)] = None
        return list(found)

    def _get(self, kind: str, name: str, make: Callable[[Any], T]) -> T:
        with self._guard:
            opened = self._open.get((kind, name))
            if opened is None:
                cls = self.registry.load(kind, name)
                opened = guarded(make(cls), kind, name, self.config.driver_deadline)
                self._open[kind, name] = opened
        return cast(T, opened)
