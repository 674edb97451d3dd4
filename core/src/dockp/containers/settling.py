"""What a container's end leaves to do: take the exit record, free addresses and ports, and remove what was ``--rm``.

With no daemon there is nobody who must do this at once. Whoever looks next does it: every verb reads a container
through `refresh`, which settles those whose shim says (or whose missing shim shows) that they ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time

from attrs import evolve

from dockp.containers.context import Context
from dockp.containers.record import Container, Task
from dockp.containers.states import State
from dockp.containers.telling import tell, tell_networks, tell_unmounts
from dockp.linux.jsonlite import loads
from dockp.linux.locks import offset_of
from dockp.linux.trees import discard_tree
from dockp.spi.errors import DockpError, NotFound, NotModified, SystemFault
from dockp.spi.runtime import RuntimeFailure
from dockp.supervisor.client import ShimClient
from dockp.supervisor.state import TaskState

_log = logging.getLogger(__name__)

_SHIM_PATIENCE = 20.0
"""Seconds for a shim to end after its container was killed."""

_DROP_ATTEMPTS = 5

_LOST_EXIT_CODE = 255
"""Docker's exit code for a container whose end nobody saw, as after a power cut."""


class Vanished(NotFound):
    """The container was there a moment ago, and has been removed meanwhile."""


def refresh(context: Context, container: Container) -> Container:
    """``container`` as it is now. One that ended is settled; under ``--rm`` it is then gone.

    Raises: NotFound when it was removed meanwhile. Takes the container's lock only when there is something to settle.
    """
    if not container.active:
        return container
    live = _live(context, container, context.supervisor.state(container.id))
    if live is not None:
        return live
    with context.exclusive(container.id):
        try:
            return settle(context, container.id)
        except SystemFault as error:
            # On a full disk, say. It can be looked at all the same; what would change it settles it first, and fails.
            _log.debug("container %s: its end cannot be recorded: %s", container.id[:12], error)
            return _ended(container, context.supervisor.state(container.id))


def current(context: Context) -> list[Container]:
    """Every container as it is now, newest first."""
    found = []
    for container in context.table.all():
        with contextlib.suppress(NotFound):
            found.append(refresh(context, container))
    return found


def settle(context: Context, container_id: str) -> Container:
    """As `refresh`, for a caller that holds the container's lock."""
    container = context.table.peek(container_id)
    if container is None:
        raise Vanished(f"No such container: {container_id}")
    if not container.active:
        return container
    state = context.supervisor.state(container.id)
    live = _live(context, container, state)
    if live is not None:
        return live
    ended = _ended(container, state)
    # While the record says active, whoever comes next begins this anew: so the record comes after what must be freed,
    # and only then the folder, which holds the exit code until then.
    lost = state is None or state.lost
    if lost:
        _tell_lost(context, ended)
    tell_networks(context, ended, "disconnect")
    release(context, ended, killed=lost)
    tell_unmounts(context, ended)
    if context.registry.moments:
        from dockp.containers.describe import inspect

        context.moment("dockp_container_died", container=inspect(context, ended))
    _log.info("container %s state.transition=%s->exited", container.id[:12], State.RUNNING.value)
    if container.request.host.auto_remove:
        from dockp.containers.removal import erase

        erase(context, ended, volumes=True)
    else:
        with context.database.write() as connection:
            context.table.save_state(connection, ended)
            context.table.drop_execs(connection, container.id)
        drop_run_dir(context, container.id)
    client = context.take_client(container.id)
    if client is not None:
        # Not before: a claim that ends with this process makes the shim see to the rest.
        with contextlib.closing(client), contextlib.suppress(DockpError):
            client.release()
    return ended


def _tell_lost(context: Context, container: Container) -> None:
    """The event that its shim could not write."""
    task = container.task
    ran = max(0, task.finished_at - task.started_at) // 1_000_000_000
    tell(context, container, "die", exitCode=str(task.exit_code), execDuration=str(ran))


def release(context: Context, container: Container, *, killed: bool) -> None:
    """Free what only a running container needs: its endpoints and ports, and what a killed shim left. Idempotent."""
    # The rest must be freed whatever fails here; what stays is listed by its driver's inventory.
    if killed:
        driver = context.exec_driver(container.exec_driver)
        try:
            driver.clean(container.id, _cgroup_parent(context, container))
        except DockpError as error:
            _log.warning("container %s: cannot remove what its shim left: %s", container.id[:12], error)
    host = container.request.host
    try:
        context.networks.release(container.id, published=bool(host.port_bindings) or host.publish_all_ports)
    except DockpError as error:
        _log.warning("container %s: cannot release its network: %s", container.id[:12], error)


def _cgroup_parent(context: Context, container: Container) -> str:
    """Where the container's cgroups are: as its bundle says, since the engine that started it may have been configured
    otherwise."""
    try:
        with open(context.run_dir(container.id) / "config.json", "rb") as file:
            path: str = loads(file.read())["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError):
        path = context.cgroups_path(container.id, container.request.host.cgroup_parent)
    return path.rpartition("/")[0].strip("/")


def drop_run_dir(context: Context, container_id: str) -> None:
    """Remove what a container has while it runs."""
    directory = context.run_dir(container_id)
    for _ in range(_DROP_ATTEMPTS):
        discard_tree(directory)
        if not directory.exists():
            return
        # Its shim, on the way out, made a file there meanwhile.


def clear_strays(context: Context) -> None:
    """Remove the run folders of containers that do not run, and what such a folder stands for.

    Commands leave them that were killed just after a container's end, or between attaching to one and starting it.
    """
    try:
        folders = set(os.listdir(context.run_dir("")))
    except FileNotFoundError:
        return
    folders -= {container.id for container in context.table.all(active_only=True)}
    for container_id in folders:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(context.locks.hold(offset_of("container", container_id), wait=False))
            except BlockingIOError:
                continue  # somebody is at it
            container = context.table.peek(container_id)
            if context.supervisor.alive(container_id) or (container is not None and container.active):
                continue
            if container is not None:
                release(context, container, killed=True)
            drop_run_dir(context, container_id)


def end_shim(context: Context, container_id: str) -> None:
    """Kill the container's process and see its shim to its end, whatever state they are in."""
    deadline = time.monotonic() + _SHIM_PATIENCE
    client: ShimClient | None = context.take_client(container_id)
    if client is None:
        with contextlib.suppress(NotFound):
            client = context.supervisor.connect(container_id)
    if client is not None:
        with contextlib.closing(client):
            try:
                with contextlib.suppress(NotModified):  # it has ended, and somebody who claimed it waits for our lock
                    client.stop(signal.SIGKILL, 0)
                client.release(everyone=True)
                while client.next_event(deadline - time.monotonic()) is not None:
                    pass  # until it closes its end, just before it lets go of its lock
            except (DockpError, RuntimeFailure) as error:
                _log.debug("container %s: its shim went by itself: %s", container_id[:12], error)
    pause = 0.001
    while context.supervisor.alive(container_id):
        if time.monotonic() > deadline:
            raise SystemFault(f"the shim of container {container_id} does not end; is it or its process in state D?")
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _live(context: Context, container: Container, state: TaskState | None) -> Container | None:
    """The container with what its shim says, or None when it ended."""
    if state is None or state.status == "exited":
        return None
    if state.status == "created" and not context.supervisor.alive(container.id):
        return None
    return evolve(
        container,
        task=Task(
            state=State(state.status),
            pid=state.pid,
            exit_code=state.exit_code,
            error=state.error,
            oom_killed=state.oom_killed,
            started_at=state.started_at,
            finished_at=state.finished_at or container.task.finished_at,
            restart_count=state.restart_count,
            health=None if state.health is None else dict(state.health),
        ),
    )


def _ended(container: Container, state: TaskState | None) -> Container:
    if state is None:
        task = evolve(container.task, state=State.EXITED, exit_code=_LOST_EXIT_CODE)
    else:
        task = Task(
            state=State.EXITED,
            exit_code=state.exit_code,
            error=state.error,
            oom_killed=state.oom_killed,
            started_at=state.started_at or container.task.started_at,
            finished_at=state.finished_at,
            restart_count=state.restart_count,
            stopped=state.stopped,
            health=None if state.health is None else dict(state.health),
        )
    return evolve(container, active=False, task=task)
