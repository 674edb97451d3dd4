"""The engine that does the work in this process, with no daemon."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockp.config import Config
from dockp.containers.context import Context
from dockp.containers.service import ContainerService
from dockp.engine.drivers import Drivers
from dockp.engine.images import LocalImages
from dockp.engine.networks import LocalNetworks
from dockp.engine.system import LocalSystem
from dockp.engine.volumes import LocalVolumes
from dockp.linux.locks import RangeLocks, offset_of
from dockp.linux.trees import scatter
from dockp.spi.errors import DockpError, Forbidden, SystemFault
from dockp.store.database import Database
from dockp.store.journal import Journal

if TYPE_CHECKING:
    from dockp.containers.autostart import Autostart
    from dockp.engine.warm import Warm
    from dockp.engine.watcher import Watcher
    from dockp.guard import GuardReport
    from dockp.store.snapshots import SnapshotService


_log = logging.getLogger(__name__)


class LocalEngine:
    """An engine on one data root. Thread-safe; any number of them, in any number of processes, share a root.

    Args:
        config: every setting; or give settings by name: ``Engine(data_root="/tmp/x", storage_driver="vfs")``.
    Raises: Forbidden when not root; InvalidArgument for settings; SystemFault when the roots cannot be used.

    Example::

        with dockp.Engine() as engine:
            result = engine.containers.run("debian:bookworm", ["cat", "/etc/os-release"])
            print(result.stdout.decode())
    """

    def __init__(self, config: Config | None = None, **settings: Any) -> None:
        self.config = config or Config.load(settings)
        _check_root()
        self._prepare_roots()
        self._context = self._wire()
        self._watcher: Watcher | None = None
        self.containers = ContainerService(self._context)
        self.images = LocalImages(self._context, self._drivers, self.containers.settle_all)
        self.volumes = LocalVolumes(self._context.volumes, self.containers.settle_all)
        self.networks = LocalNetworks(self._context.networks, self.containers.settle_all)
        self.system = LocalSystem(self._context, self._drivers, self.containers.settle_all)
        recovered = self._context.journal.recover()
        if recovered or not os.path.exists(self._marker):
            self._reconcile(everything=not recovered)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def reconfigure(self, config: Config) -> None:
        """From now on use ``config``, and tell so. Roots, drivers and networks stay as they were opened."""
        self.config = self._context.config = config
        self.system.tell_reloaded()

    def close(self) -> None:
        """Let go of everything this process holds. Containers go on."""
        if self._watcher is not None:
            self._context.watcher = None
            self._watcher.close()
        with self._context.guard:
            clients, self._context.clients = self._context.clients, {}
        for client in clients.values():
            client.close()
        self._context.journal.close()
        self._context.database.close()

    def watch(self) -> Watcher:
        """Settle the ends of containers as they happen, until the engine is closed. For a process that stays."""
        from dockp.engine.watcher import Watcher

        if self._watcher is None:
            self._watcher = self._context.watcher = Watcher(self._context, self.containers.settle_one).start()
        return self._watcher

    def autostart(self) -> Autostart:
        """Starts the containers that a daemon starts when it starts. For after `watch`."""
        from dockp.containers.autostart import Autostart

        return Autostart(self._context, self.containers.start)

    def driver_reports(self) -> list[GuardReport]:
        """How calls into drivers went so far, see `dockp.guard`."""
        return self._drivers.reports()

    def keep_warm(self) -> Warm:
        """Keep ready what containers start from (see `dockp.engine.warm`), until the result is closed. For a process
        that stays; to be called before it has many threads or much memory."""
        from dockp.engine.warm import Warm

        return Warm(self._context)

    @property
    def _marker(self) -> str:
        """A file in the exec root, which is empty after a boot: what was recorded was compared with what is there."""
        return os.path.join(self.config.exec_root, "reconciled")

    def _reconcile(self, *, everything: bool) -> None:
        """Look for what a command that died took of the network; after a boot (``everything``), for what a power cut
        left in the storage drivers too. What cannot be looked at now, such as a driver that is missing, waits."""
        steps: list[Callable[[], object]] = [self._context.networks.reconcile]
        if everything:
            steps = [self.containers.settle_all, self._context.collector.collect, *steps]
        for step in steps:
            try:
                step()
            except DockpError as error:
                _log.warning("could not put everything right: %s", error)
        with contextlib.suppress(OSError), open(self._marker, "w"):
            pass

    def _prepare_roots(self) -> None:
        root, run = self.config.data_root, self.config.exec_root
        try:
            for path, mode in (
                (root, 0o710),
                (f"{root}/containers", 0o710),
                (run, 0o711),
                (f"{run}/containers", 0o700),
            ):
                if not os.path.isdir(path):
                    os.makedirs(path, mode=mode, exist_ok=True)
                    if path.endswith("/containers"):
                        scatter(path)
        except OSError as error:
            raise SystemFault(
                f"cannot make {error.filename or root}: {(error.strerror or '').lower()}: "
                "choose other places with --data-root and --exec-root"
            ) from error

    def _wire(self) -> Context:
        """Put the services together. Modules that only some commands need are imported when these need them."""
        from dockp.containers import creation, launch, record, removal
        from dockp.events.log import EventLog
        from dockp.images import records
        from dockp.images.service import ImageService
        from dockp.networks.service import DefaultBridge, NetworkService
        from dockp.networks.store import SCHEMA as NETWORK_SCHEMA
        from dockp.plugins.registry import PluginRegistry
        from dockp.store import journal, leases, snapshots
        from dockp.store.content import ContentStore
        from dockp.store.gc import Collector
        from dockp.store.leases import Leases
        from dockp.store.snapshots import SnapshotService
        from dockp.supervisor.launch import Supervisor
        from dockp.volumes import service as volumes

        root = Path(self.config.data_root)
        database = Database(
            root / "state.db",
            [
                record.SCHEMA,
                journal.SCHEMA,
                leases.SCHEMA,
                snapshots.SCHEMA,
                records.SCHEMA,
                volumes.SCHEMA,
                NETWORK_SCHEMA,
            ],
        )
        locks = RangeLocks(root / "objects.lock")
        diary = Journal(database, root / "owners.lock", lambda object_id: locks.hold(offset_of("container", object_id)))
        registry = PluginRegistry.open(self.config)
        self._drivers = drivers = Drivers(registry, self.config)
        graph: SnapshotService = SnapshotService(database, drivers.storage, locks, diary)
        content = ContentStore(root)
        table = record.ContainerTable(database)
        supervisor = Supervisor(Path(self.config.exec_root), drivers.search_paths)

        kept = Leases(database, diary)
        events = EventLog(Path(self.config.exec_root) / "events")

        def by_name(name: str) -> AbstractContextManager[object]:
            return locks.hold(offset_of(name))

        context = Context(
            config=self.config,
            database=database,
            journal=diary,
            locks=locks,
            registry=registry,
            table=table,
            images=ImageService(database, content, kept, graph, locks, events.emit),
            collector=Collector(database, content, graph, kept, locks, table.images_in_use),
            snapshots=graph,
            volumes=volumes.VolumeService(database, drivers.volume, by_name, events.emit),
            networks=NetworkService(
                database,
                ipam_for=drivers.ipam,
                driver_for=drivers.network,
                locks=by_name,
                living=table.active_among,
                default_bridge=DefaultBridge(address=self.config.bip, mtu=self.config.mtu),
            ),
            supervisor=supervisor,
            events=events,
            exec_driver=drivers.exec,
            log_driver=drivers.log,
            default_storage=drivers.default_storage,
            default_exec=drivers.default_exec,
        )
        diary.register("container.create", lambda object_id, _: creation.undo(context, object_id))
        diary.register("container.start", lambda object_id, _: launch.undo(context, object_id))
        diary.register(
            "container.remove",
            lambda object_id, payload: removal.finish(context, object_id, volumes=payload["volumes"]),
        )
        return context


def _check_root() -> None:
    if os.geteuid() != 0:
        raise Forbidden("dockp needs root to make containers: run it with sudo")
