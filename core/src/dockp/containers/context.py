"""What the modules of this package share: the services of one engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, field

from dockp.linux.locks import offset_of

if TYPE_CHECKING:
    from dockp.config import Config as EngineConfig
    from dockp.containers.record import ContainerTable
    from dockp.events.log import EventLog
    from dockp.images.service import ImageService
    from dockp.interface import WaitResult
    from dockp.linux.locks import RangeLocks
    from dockp.networks.service import NetworkService
    from dockp.plugins.registry import PluginRegistry
    from dockp.spi.execution import ExecDriver
    from dockp.spi.logs import LogDriver
    from dockp.store.database import Database
    from dockp.store.gc import Collector
    from dockp.store.journal import Journal
    from dockp.store.snapshots import SnapshotService
    from dockp.supervisor.client import ShimClient
    from dockp.supervisor.launch import Supervisor
    from dockp.volumes.service import VolumeService


class Watcher(Protocol):
    """`dockp.engine.watcher.Watcher`, as far as containers need it."""

    def adopt(self, container_id: str) -> None: ...
    def begin_wait(self, container_id: str, condition: str) -> Callable[[], WaitResult]: ...
    def when(
        self, container_id: str, condition: str, callback: Callable[[WaitResult], object]
    ) -> Callable[[], object]: ...
    def removed(self, container_id: str) -> None: ...


@define(kw_only=True)
class Context:
    """Services of one engine, and the directories it works in.

    Attributes:
        exec_driver, log_driver: give a driver by name; raise InvalidArgument for an unknown one.
        default_storage, default_exec: the names chosen for what this engine makes.
        watcher: sees the ends of containers, in a process that stays.
        clients: connections to shims that belong to this process: attached before their start, or claimed.
        ended_execs: exit code and pid of execs that this process was told about.
    """

    config: EngineConfig
    database: Database
    journal: Journal
    locks: RangeLocks
    registry: PluginRegistry
    table: ContainerTable
    images: ImageService
    collector: Collector
    snapshots: SnapshotService
    volumes: VolumeService
    networks: NetworkService
    supervisor: Supervisor
    events: EventLog
    exec_driver: Callable[[str], ExecDriver]
    log_driver: Callable[[str], type[LogDriver]]
    default_storage: Callable[[], str]
    default_exec: Callable[[], str]
    clients: dict[str, ShimClient] = field(factory=dict)
    ended_execs: dict[str, tuple[int, int]] = field(factory=dict)
    watcher: Watcher | None = None
    guard: threading.Lock = field(factory=threading.Lock)

    def exclusive(self, container_id: str) -> AbstractContextManager[object]:
        """The lock on one container, among all threads and processes. Not to be taken twice."""
        return self.locks.hold(offset_of("container", container_id))

    def container_dir(self, container_id: str) -> Path:
        """What a container keeps across boots: its log, its hosts file."""
        return Path(f"{self.config.data_root}/containers/{container_id}")

    def run_dir(self, container_id: str) -> Path:
        """What a container has while it runs: bundle, socket, state."""
        return Path(f"{self.config.exec_root}/containers/{container_id}")

    def log_path(self, container_id: str) -> str:
        return f"{self.config.data_root}/containers/{container_id}/{container_id}-json.log"

    def cgroups_path(self, container_id: str, parent: str) -> str:
        return f"/{(parent or self.config.cgroup_parent).strip('/')}/{container_id}"

    def moment(self, hook: str, **arguments: Any) -> None:
        """Let plug-ins take part, see `dockp.spi.hooks`."""
        self.registry.moment(hook, **arguments)

    def take_client(self, container_id: str) -> ShimClient | None:
        with self.guard:
            return self.clients.pop(container_id, None)

    def keep_client(self, container_id: str, client: ShimClient) -> None:
        with self.guard:
            self.clients[container_id] = client
