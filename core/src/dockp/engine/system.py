"""The engine about itself: `dockp.interface.System`, done in this process."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dockp
from dockp.containers.describe import degraded
from dockp.interface import Document, Filters
from dockp.plugins import choice
from dockp.plugins.model import DriverInfo
from dockp.spi.errors import DockpError, InvalidArgument
from dockp.spi.values import Probe
from dockp.timestamps import rfc3339_nano

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.record import Container
    from dockp.engine.drivers import Drivers
    from dockp.events.log import EventStream
    from dockp.spi.images import Credentials, RegistrySettings

_PROBE_KEPT = 60.0  # seconds


class LocalSystem:
    """See `dockp.interface.System` for what each verb promises."""

    def __init__(self, context: Context, drivers: Drivers, settle: Callable[[], None]) -> None:
        self._context = context
        self._drivers = drivers
        self._settle = settle
        self._probes: dict[tuple[str, str], tuple[float, Probe]] = {}

    def version(self) -> Document:
        import platform

        uname = os.uname()
        components = [
            {
                "Name": f"{info.kind}: {info.name}",
                "Version": info.version,
                "Details": {"Distribution": info.distribution},
            }
            for info in self._context.registry.drivers()
            if not info.builtin
        ]
        engine = {
            "Name": "Engine",
            "Version": dockp.__version__,
            "Details": {
                "Os": "linux",
                "Arch": _architecture(),
                "KernelVersion": uname.release,
                "Python": platform.python_version(),
            },
        }
        return {
            "Platform": {"Name": "dockp"},
            "Components": [engine, *components],
            "Version": dockp.__version__,
            "Os": "linux",
            "Arch": _architecture(),
            "KernelVersion": uname.release,
        }

    def info(self) -> Document:
        from dockp.images.registry.endpoints import proxies_of, settings_of

        self._settle()
        containers = self._context.table.all()
        states = [container for container in containers if container.active]
        paused = sum(1 for container in states if self._state(container.id) == "paused")
        storage, why = self._choice("storage")
        execution, _ = self._choice("exec")
        names = self._names()
        uname = os.uname()
        plugins = self.plugins()
        registries = settings_of(self._context.config)
        proxies = proxies_of(registries, os.environ)
        return {
            "ID": self._id(),
            "Containers": len(containers),
            "ContainersRunning": len(states) - paused,
            "ContainersPaused": paused,
            "ContainersStopped": len(containers) - len(states),
            "Images": len(self._context.images.list(all=True)),
            "Driver": storage,
            "DriverStatus": self._storage_status(storage),
            "DriverReason": why,
            "Plugins": {
                "Volume": names["volume"],
                "Network": sorted({*names["network"], "host", "null"}),
                "Authorization": None,
                "Log": names["log"],
            },
            "MemoryLimit": self._feature(plugins, execution, "memory"),
            "SwapLimit": self._feature(plugins, execution, "swap"),
            "KernelMemoryTCP": False,
            "CpuCfsPeriod": self._feature(plugins, execution, "cpu"),
            "CpuCfsQuota": self._feature(plugins, execution, "cpu"),
            "PidsLimit": self._feature(plugins, execution, "pids"),
            "CPUShares": self._feature(plugins, execution, "cpu"),
            "CPUSet": self._feature(plugins, execution, "cpuset"),
            "OomKillDisable": not _unified() and self._feature(plugins, execution, "memory"),
            "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward") == "1",
            "Debug": self._context.config.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": threading.active_count(),
            "NEventsListener": 0,
            "SystemTime": rfc3339_nano(time.time_ns()),
            "LoggingDriver": self._context.config.log_driver,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if _unified() else "1",
            "KernelVersion": uname.release,
            "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
            "OSVersion": _os_release().get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": uname.machine,
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": self._registries(registries),
            "GenericResources": None,
            "HttpProxy": proxies["HTTP_PROXY"],
            "HttpsProxy": proxies["HTTPS_PROXY"],
            "NoProxy": proxies["NO_PROXY"],
            "ExperimentalBuild": False,
            "DockerRootDir": self._context.config.data_root,
            "ExecRootDir": self._context.config.exec_root,
            "Name": uname.nodename,
            "Labels": list(self._context.config.labels),
            "ServerVersion": dockp.__version__,
            "Runtimes": {name: {"path": name} for name in names["exec"]},
            "DefaultRuntime": execution,
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "",
            # Docker's parts, which are none here: names that its command line looks for.
            "ContainerdCommit": {"ID": ""},
            "RuncCommit": {"ID": ""},
            "InitCommit": {"ID": ""},
            "DefaultAddressPools": [
                {"Base": pool.base, "Size": pool.size} for pool in self._context.config.default_address_pools
            ],
            "CDISpecDirs": [],
            "SecurityOptions": ["name=seccomp,profile=builtin"] if self._feature(plugins, execution, "seccomp") else [],
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "Warnings": [*self.problems(), *_degraded(self._context, containers)],
            "DockpPlugins": plugins,
        }

    def tell_reloaded(self) -> None:
        """The event that follows new settings."""
        import json

        config = self._context.config
        lists = {
            "labels": config.labels,
            "registry-mirrors": config.registry_mirrors,
            "insecure-registries": config.insecure_registries,
        }
        attributes = {"name": os.uname().nodename, "debug": str(config.debug).lower(), "live-restore": "true"}
        attributes |= {name: json.dumps(list(values)) for name, values in lists.items()}
        self._context.events.emit("daemon", "reload", self._id(), attributes)

    def container_states(self) -> Mapping[str, int]:
        """How many containers are running, paused and stopped."""
        containers = self._context.table.all()
        active = [container.id for container in containers if container.active]
        paused = sum(1 for container_id in active if self._state(container_id) == "paused")
        return {"running": len(active) - paused, "paused": paused, "stopped": len(containers) - len(active)}

    def events(
        self,
        *,
        since: int | None = None,
        until: int | None = None,
        filters: Filters | None = None,
        watched: bool = True,
    ) -> EventStream:
        from dockp.events.filters import check, passes

        given = filters or {}
        check(given)
        if since is not None and until is not None and since > until:
            raise InvalidArgument(f"`since` time ({since // 10**9}) cannot be after `until` time ({until // 10**9})")
        return self._context.events.stream(
            since=since, until=until, wanted=lambda event: passes(event, given), watched=watched
        )

    def disk_usage(self, types: Sequence[str] = ()) -> Document:
        from dockp.engine.usage import disk_usage

        self._settle()
        return disk_usage(self._context, types)

    def login(self, server: str, credentials: Credentials) -> Document:
        from dockp.images.registry.credentials import domain_of
        from dockp.images.registry.endpoints import settings_of
        from dockp.images.registry.login import login

        token = login(domain_of(server), credentials, settings_of(self._context.config))
        return {"Status": "Login Succeeded", "IdentityToken": token}

    def plugins(self) -> Sequence[Document]:
        chosen = {kind: self._choice(kind)[0] for kind in ("storage", "exec")}
        chosen |= {"network": "bridge", "ipam": "default", "volume": "local", "log": self._context.config.log_driver}
        rows = []
        for info in self._context.registry.drivers():
            probe = self._known(info)
            rows.append(
                {
                    "Kind": info.kind,
                    "Name": info.name,
                    "Summary": info.summary,
                    "Distribution": info.distribution,
                    "Version": info.version,
                    "Supported": probe.supported,
                    "Reason": probe.reason,
                    "Features": sorted(probe.features),
                    "Details": dict(probe.details),
                    "Default": chosen.get(info.kind) == info.name,
                }
            )
        return sorted(rows, key=lambda row: (str(row["Kind"]), str(row["Name"])))

    def problems(self) -> Sequence[str]:
        return [str(problem) for problem in self._context.registry.problems]

    def _id(self) -> str:
        """Which engine this is: a UUID that stays with the data root, made when it is first asked for."""
        import uuid

        path = os.path.join(self._context.config.data_root, "engine-id")
        found = _read(path)
        if found:
            return found
        temporary = f"{path}.{uuid.uuid4()}"
        try:
            with open(temporary, "x") as file:
                file.write(str(uuid.uuid4()))
            with contextlib.suppress(FileExistsError):  # somebody else was quicker
                os.link(temporary, path)
            os.unlink(temporary)
        except OSError:  # a full disk: it can do without for now
            return ""
        return _read(path)

    def _registries(self, settings: RegistrySettings) -> Document:
        import ipaddress

        insecure: dict[str, bool] = {}  # whether it is a network
        for entry in ("::1/128", "127.0.0.0/8", *settings.insecure):
            try:
                ipaddress.ip_network(entry)
                insecure[entry] = True
            except ValueError:
                insecure[entry] = False
        # With the slash at the end that Docker shows.
        mirrors = {name: [f"{url}/" for url in urls] for name, urls in settings.mirrors.items()}
        named = {name: False for name, network in insecure.items() if not network}
        return {
            "InsecureRegistryCIDRs": [name for name, network in insecure.items() if network],
            "IndexConfigs": {
                name: {
                    "Name": name,
                    "Mirrors": mirrors.get(name, []),
                    "Secure": secure,
                    "Official": name == "docker.io",
                }
                for name, secure in {**dict.fromkeys(("docker.io", *mirrors), True), **named}.items()
            },
            "Mirrors": mirrors.get("docker.io", []),
        }

    def _choice(self, kind: str) -> tuple[str, str]:
        try:
            return self._drivers.choose(kind)
        except DockpError as error:
            return "", str(error)

    def _known(self, info: DriverInfo) -> Probe:
        """What `_probe` said, a minute ago at most: some drivers try things out, which takes a fifth of a second."""
        now = time.monotonic()
        asked, probe = self._probes.get((info.kind, info.name), (0.0, None))
        if probe is None or now - asked > _PROBE_KEPT:
            probe = self._probe(info)
            self._probes[info.kind, info.name] = now, probe
        return probe

    def _probe(self, info: DriverInfo) -> Probe:
        """Ask the driver; kinds without a probe work wherever they can be imported."""
        from dockp.guard import call

        try:
            cls = self._context.registry.load(info.kind, info.name)
            if info.kind == "storage":
                root = choice.storage_root(self._context.config, info.name)
                arguments: tuple[Any, ...] = (root, self._drivers.options(info.kind, info.name))
            elif info.kind in ("exec", "network"):
                arguments = (self._drivers.options(info.kind, info.name),)
            else:
                return Probe(supported=True)
            answer: Probe = call(info.kind, info.name, "probe", choice.PROBE_DEADLINE, cls.probe, *arguments)
            return answer
        except (DockpError, OSError) as error:
            return Probe(supported=False, reason=str(error))

    def _storage_status(self, name: str) -> list[list[str]]:
        if not name:
            return []
        try:
            return [list(pair) for pair in self._drivers.storage(name).status()]
        except DockpError as error:
            return [["Error", str(error)]]

    def _names(self) -> Mapping[str, list[str]]:
        names: dict[str, list[str]] = {"volume": [], "network": [], "log": [], "exec": []}
        for info in self._context.registry.drivers():
            names.setdefault(info.kind, []).append(info.name)
        return {kind: sorted(found) for kind, found in names.items()}

    def _feature(self, plugins: Sequence[Document], execution: str, feature: str) -> bool:
        return any(row["Kind"] == "exec" and row["Name"] == execution and feature in row["Features"] for row in plugins)

    def _state(self, container_id: str) -> str:
        state = self._context.supervisor.state(container_id)
        return state.status if state is not None else ""


def _unified() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _os_release() -> dict[str, str]:
    import platform

    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _degraded(context: Context, containers: Sequence[Container]) -> list[str]:
    reasons = ((container.name, degraded(context, container)) for container in containers)
    return [f"container {name} is degraded: its {reason}" for name, reason in reasons if reason]
