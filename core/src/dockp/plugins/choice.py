"""Which driver is used where the user names none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dockp.plugins.model import KINDS, DriverInfo
from dockp.spi.errors import DockpError, Unavailable

if TYPE_CHECKING:
    from dockp.config import Config
    from dockp.plugins.registry import PluginRegistry
    from dockp.spi.values import Probe

PROBE_DEADLINE = 15.0
"""Seconds for one driver's probe."""

Prober = Callable[[DriverInfo], "Probe"]


def storage_root(config: Config, name: str) -> Path:
    """The directory that belongs to storage driver ``name`` alone."""
    return Path(config.data_root) / "storage" / name


def choose_storage(registry: PluginRegistry, config: Config, probe: Prober | None = None) -> tuple[str, str]:
    """The storage driver for what is made from now on, and why it is that one.

    In order: the configured one; the one that this data root was last used with, where it is still installed; of those
    whose probe says supported, the one with the highest priority (never one below 0).

    Args: probe: asks one driver; the caller may cache. By default the driver's class is loaded and probed.
    Raises: InvalidArgument when the configured one is unknown; Unavailable when none can work here, saying why not.
    """
    if config.storage_driver is not None:
        registry.info("storage", config.storage_driver)
        return config.storage_driver, config.origin("storage_driver")
    known = registry.drivers("storage")
    remembered = _remembered(config)
    if remembered and any(info.name == remembered for info in known):
        return remembered, f"last used in {config.data_root}"
    if probe is None:
        names = [info.name for info in known]

        def probe(info: DriverInfo) -> Probe:
            from dockp.guard import call

            options = config.driver_options("storage", info.name, default=info.name, known=names)
            driver = registry.load("storage", info.name)
            root = storage_root(config, info.name)
            answer: Probe = call("storage", info.name, "probe", PROBE_DEADLINE, driver.probe, root, options)
            return answer

    name, why = _automatic(registry, "storage", probe)
    return name, why + (f' (plug-in of "{remembered}", last used, is not available)' if remembered else "")


def choose_exec(registry: PluginRegistry, config: Config, probe: Prober | None = None) -> tuple[str, str]:
    """The execution driver, and why: the configured one, else the supported one with the highest priority.

    That answer is kept in the exec root, which lives as long as the kernel that was asked.
    Raises: as `choose_storage`.
    """
    if config.exec_driver is not None:
        registry.info("exec", config.exec_driver)
        return config.exec_driver, config.origin("exec_driver")
    remembered = _read(_exec_record(config))
    if remembered and any(info.name == remembered for info in registry.drivers("exec")):
        return remembered, "automatic: the highest priority of those that work here"
    if probe is None:
        names = [info.name for info in registry.drivers("exec")]

        def probe(info: DriverInfo) -> Probe:
            from dockp.guard import call

            options = config.driver_options("exec", info.name, default=info.name, known=names)
            driver = registry.load("exec", info.name)
            answer: Probe = call("exec", info.name, "probe", PROBE_DEADLINE, driver.probe, options)
            return answer

    return _automatic(registry, "exec", probe)


def remember_storage(config: Config, name: str) -> None:
    """Record ``name`` as the storage driver that this data root is used with. Raises: OSError."""
    if _remembered(config) != name:
        _write(_record(config), name)


def remember_exec(config: Config, name: str) -> None:
    """Record ``name`` as the execution driver that was chosen on this boot. Raises: OSError."""
    if _read(_exec_record(config)) != name:
        _write(_exec_record(config), name)


def _write(path: str, name: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o710, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    try:
        Path(temporary).write_text(name + "\n", encoding="ascii")
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _record(config: Config) -> str:
    return os.path.join(config.data_root, "storage-driver")


def _exec_record(config: Config) -> str:
    return os.path.join(config.exec_root, "exec-driver")


def _remembered(config: Config) -> str:
    return _read(_record(config))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _automatic(registry: PluginRegistry, kind: str, probe: Prober) -> tuple[str, str]:
    reasons = []
    for info in registry.drivers(kind):  # the highest priority first
        if info.priority < 0:
            continue
        try:
            answer = probe(info)
        except (DockpError, OSError) as exc:
            reasons.append(f"{info.name}: {exc}")
            continue
        if answer.supported:
            return info.name, "automatic: the highest priority of those that work here"
        reasons.append(f"{info.name}: {answer.reason}")
    reasons += [str(problem) for problem in registry.problems]
    raise Unavailable(f"no {KINDS[kind].noun} works here: {'; '.join(reasons) or 'none is installed'}")
