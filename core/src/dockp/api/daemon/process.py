"""One running daemon: what it opens, in which order, what signals do to it, and how it ends.

Ready comes first: everything that needs time, such as looking at containers that run, happens behind the open socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import importlib
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from ssl import CERT_REQUIRED, SSLContext
from typing import Any, Final

from attrs import evolve

from dockp.api.daemon import log
from dockp.api.daemon.listeners import Listener, listen_tcp, open_listeners, tls_context
from dockp.api.daemon.metrics import MeasuredServices, Metrics
from dockp.api.daemon.options import OPTIONS, Engine, Own
from dockp.api.daemon.ownership import owned_roots, pidfile
from dockp.api.daemon.settings import Settings, load, split_address
from dockp.api.daemon.systemd import Notifier
from dockp.api.operations import ROUTES
from dockp.api.routing import Router
from dockp.api.server import ApiServer
from dockp.cli.flags import Values
from dockp.config import Config
from dockp.engine.local import LocalEngine
from dockp.linux.malloc import suit_a_daemon, trim
from dockp.linux.process import set_name
from dockp.spi.errors import DockpError, SystemFault

_log = logging.getLogger(__name__)

_NO_LIMIT: Final = 1e9
_DESCRIPTORS: Final = 1 << 20
_MEMORY_REST: Final = 30.0
"""Seconds between two looks whether memory can be given back."""
_NEEDED_SOON: Final = (
    "ipaddress",
    "dockp.containers.describe",
    "dockp.containers.execs",
    "dockp.containers.removal",
    "dockp.supervisor.client",
)
"""What the first requests would import otherwise."""


class Daemon:
    """dockpd with these settings; ``values`` are the flags, which count again when the file is read again."""

    def __init__(self, settings: Settings, values: Values) -> None:
        self._settings = settings
        self._values = values
        self._notifier = Notifier(os.environ)
        self._interrupted = False

    def run(self) -> int:
        """Serve until a signal says to stop. The exit code. Raises: DockpError for what keeps it from starting."""
        settings = self._settings
        began = time.monotonic()
        log.configure(settings.level, settings.log_format)
        set_name("dockpd")
        suit_a_daemon()
        os.umask(0o022)
        _allow_descriptors()
        for remark in settings.remarks:
            _log.debug("%s", remark)
        with contextlib.ExitStack() as stack:
            stack.enter_context(owned_roots(settings.config.data_root, settings.config.exec_root))
            stack.enter_context(pidfile(settings.pidfile or os.path.join(settings.config.exec_root, "dockpd.pid")))
            listeners = open_listeners(settings, os.environ)
            for listener in listeners:
                stack.callback(listener.close)
            secure = tls_context(settings, os.environ) if any(one.is_tcp for one in listeners) else None
            # They are meant for this process, not for what it starts.
            for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC"):
                os.environ.pop(name, None)
            self._engine = stack.enter_context(LocalEngine(settings.config))
            stack.enter_context(self._engine.keep_warm())
            for name in _NEEDED_SOON:
                importlib.import_module(name)
            gc.collect()
            # What was imported stays: the collector need not walk over it again, and its pages stay as they are.
            gc.freeze()
            asyncio.run(self._serve(listeners, secure, began))
        _log.info("daemon stopped")
        return 0

    async def _serve(self, listeners: Sequence[Listener], secure: SSLContext | None, began: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._watch_signals()
        services = MeasuredServices(self._engine)
        server = ApiServer(services, Router(ROUTES))
        self._engine.watch()  # before anybody can ask to be told of an end
        await server.serve([one.socket for one in listeners if not one.is_tcp])
        await server.serve([one.socket for one in listeners if one.is_tcp], secure)
        servers = [server]
        if self._settings.metrics_addr:
            servers.append(await self._serve_metrics(server, services))
        for listener in listeners:
            if listener.is_tcp and (secure is None or secure.verify_mode != CERT_REQUIRED):
                _log.warning("everybody who can connect to %s has root here", listener.address)
            _log.info("API listen on %s", listener.address)
        _log.info("daemon has completed initialization", extra={"seconds": round(time.monotonic() - began, 3)})
        self._notifier.ready("serving")
        self._autostart = self._engine.autostart()
        threading.Thread(target=self._take_up, name="take-up", daemon=True).start()
        housekeeping = [
            self._loop.create_task(task) for task in (self._give_signs_of_life(), self._give_back_memory(server))
        ]
        await self._end.wait()
        _log.info("daemon stops; containers go on")
        self._notifier.stopping("waiting for requests to end")
        self._autostart.stop()
        for task in housekeeping:
            task.cancel()
        grace = self._settings.shutdown_timeout
        await asyncio.gather(*(one.close(grace if grace >= 0 else _NO_LIMIT) for one in servers))

    def _take_up(self) -> None:
        """Behind the open socket: record what ended meanwhile, start the containers that should run."""
        try:
            self._engine.containers.settle_all()
            count = self._autostart.run()
            _log.debug("containers were taken up", extra={"started": count})
        except DockpError as error:
            _log.error("cannot look after containers: %s", error)
        except Exception:
            _log.exception("cannot look after containers")

    async def _serve_metrics(self, server: ApiServer, services: MeasuredServices) -> ApiServer:
        host, port = split_address(self._settings.metrics_addr, 9323)
        try:
            sock = listen_tcp(host, port)
        except OSError as error:
            raise SystemFault(f"cannot serve metrics on {self._settings.metrics_addr}: {error.strerror}") from error
        metrics = ApiServer(services, Router([Metrics(self._engine, server, services).route]))
        await metrics.serve([sock])
        _log.info("metrics listen on %s", self._settings.metrics_addr)
        return metrics

    async def _give_signs_of_life(self) -> None:
        while self._notifier.watchdog:
            self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog)

    async def _give_back_memory(self, server: ApiServer) -> None:
        """After a busy time, let the kernel have what is free."""
        seen = 0
        while True:
            await asyncio.sleep(_MEMORY_REST)
            if (count := server.counters.requests.total()) != seen:
                seen = count
                trim()

    # Signals

    def _watch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._told_to_end, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        # The loop writes down its tasks; before it, faulthandler the stacks of all threads, even when the loop hangs.
        path = os.path.join(self._engine.config.exec_root, "stacks.log")
        self._stacks = open(path, "a")  # noqa: SIM115  open until the process ends
        self._loop.add_signal_handler(signal.SIGUSR1, self._told_to_dump)
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True, chain=True)

    def _told_to_end(self, number: int) -> None:
        _log.info("processing signal '%s'", (signal.strsignal(number) or "").lower())
        if self._end.is_set() and number == signal.SIGINT:
            _log.warning("forced to stop at once: requests are cut off")
            os._exit(128 + number)
        self._end.set()

    def _told_to_dump(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.print_stack(file=self._stacks)
        self._stacks.flush()
        _log.info("stacks of threads and tasks written to %s", self._stacks.name)

    def _told_to_reload(self) -> None:
        """Take from the file what may change while the daemon runs."""
        self._notifier.reloading()
        try:
            self._reload(load(self._values))
        except DockpError as error:
            _log.error("cannot reload the configuration, it stays as it was: %s", error)
        self._notifier.ready("serving")

    def _reload(self, told: Settings) -> None:
        old = self._settings
        changed: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for option in OPTIONS:
            rule = option.rule
            if not isinstance(rule, Engine | Own):
                continue
            before, after = (getattr(place, rule.name) for place in _places(rule, old, told))
            if before == after:
                continue
            if option.reload:
                (changed if isinstance(rule, Engine) else own)[rule.name] = after
            elif rule.name != "log_level":
                _log.warning("%s changes when the daemon starts again", option.key)
        config = evolve(old.config, **changed)
        self._settings = evolve(old, config=config, **own)
        self._engine.reconfigure(config)
        log.set_level(self._settings.level)
        _log.info("configuration reloaded from %s", told.config_file, extra={**changed, **own})


def _allow_descriptors() -> None:
    """Every client and every attached stream is a descriptor, here and in the shims, which inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _places(rule: Engine | Own, *settings: Settings) -> Iterator[Config | Settings]:
    """Where the value of a rule is found, in each of ``settings``."""
    for one in settings:
        yield one.config if isinstance(rule, Engine) else one
