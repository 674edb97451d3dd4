"""Which containers a daemon starts when it starts, by their restart policies, and in which order.

While the host runs, restarting is the work of each container's shim. What is left for a daemon are containers without a
shim: after a boot, or after somebody stopped them and the policy says that only the daemon's life counts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from dockp.containers.context import Context
from dockp.containers.record import Container
from dockp.spi.errors import DockpError, NotFound, NotModified

PARALLEL: Final = 4
"""Containers that are started at the same time."""
ATTEMPTS: Final = 4
"""How often a container is tried whose start fails; the rests between are `_REST` seconds, doubled each time."""
_REST: Final = 1.0
_log = logging.getLogger(__name__)


def due(container: Container) -> bool:
    """Docker's rules for a container that does not run: ``always`` in any case, ``unless-stopped`` unless it was
    stopped by hand, ``on-failure`` when it failed; never one that nobody has started yet."""
    task, policy = container.task, container.request.host.restart_policy
    if container.active or not container.visible or not (task.started_at or task.finished_at):
        return False
    if policy.name == "on-failure":
        most = policy.maximum_retry_count
        return task.exit_code != 0 and not task.stopped and (most == 0 or task.restart_count < most)
    return policy.name == "always" or (policy.name == "unless-stopped" and not task.stopped)


def waves(containers: Sequence[Container]) -> list[list[Container]]:
    """``containers`` in the order in which to start them, the oldest first: who joins another's namespaces comes in a
    later wave than the other."""
    left = sorted(containers, key=lambda container: container.created)
    found = []
    while left:
        names = {name for container in left for name in (container.id, container.name)}
        wave = [container for container in left if not _joined(container) & names]
        if not wave:  # they wait for each other: let them fail, each with its reason
            wave = left
        left = [container for container in left if container not in wave]
        found.append(wave)
    return found


def _joined(container: Container) -> set[str]:
    host = container.request.host
    modes = (host.network_mode, host.ipc_mode, host.pid_mode)
    return {mode.removeprefix("container:") for mode in modes if mode.startswith("container:")}


class Autostart:
    """Starts what is due, in threads of its own. `stop` makes it begin nothing more."""

    def __init__(self, context: Context, start: Callable[[str], None]) -> None:
        self._context = context
        self._start = start
        self._end = threading.Event()

    def run(self) -> int:
        """Start everything that is due; how many were. Raises nothing but errors of the database."""
        count = 0
        for wave in waves([container for container in self._context.table.all() if due(container)]):
            queue = list(reversed(wave))

            def work(queue: list[Container] = queue) -> None:
                while queue and not self._end.is_set():
                    try:
                        container = queue.pop()
                    except IndexError:
                        return
                    self._try(container)

            threads = [
                threading.Thread(target=work, name="autostart", daemon=True) for _ in range(min(PARALLEL, len(wave)))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            count += len(wave)
        return count

    def stop(self) -> None:
        self._end.set()

    def _try(self, container: Container) -> None:
        rest = _REST
        for attempt in range(1, ATTEMPTS + 1):
            began = time.monotonic()
            try:
                self._start(container.id)
            except (NotModified, NotFound):
                return  # somebody else was quicker, to start or to remove it
            except DockpError as error:
                _log.warning("container %s: cannot start it (attempt %d): %s", container.name, attempt, error)
            except Exception:
                _log.exception("container %s: cannot start it", container.name)
                return
            else:
                _log.info("container %s started, by its restart policy", container.name)
                return
            if attempt == ATTEMPTS or self._end.wait(max(0.0, rest - (time.monotonic() - began))):
                return
            rest *= 2
