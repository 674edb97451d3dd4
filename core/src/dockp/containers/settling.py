"""What a container's end leaves to do: take the exit record, free addresses and ports, and remove what was ``--rm``.

With no daemon there is nobody who must do this at once. Whoever looks next does it: every verb reads a container through
`refresh`, which settles those whose shim says (or whose missing shim shows) that they ended.
"""

from __future__ import annotations

import logging
import shutil

from attrs import evolve

from dockp.containers.context import Context
from dockp.containers.record import Container, Task
from dockp.containers.states import State
from dockp.spi.errors import DockpError, NotFound
from dockp.supervisor.state import TaskState

_log = logging.getLogger(__name__)

_LOST_EXIT_CODE = 255
"""Docker's exit code for a container whose end nobody saw, as after a power cut."""


def refresh(context: Context, container: Container) -> Container:
    """``container`` as it is now. One that ended is settled; under ``--rm`` it is then gone.

    Raises: NotFound when it was removed meanwhile. Takes the container's lock only when there is something to settle.
    """
    if not container.active:
        return container
    live = _live(context, container)
    if live is not None:
        return live
    with context.exclusive(container.id):
        return settle(context, container.id)


def settle(context: Context, container_id: str) -> Container:
    """As `refresh`, for a caller that holds the container's lock."""
    container = context.table.peek(container_id)
    if container is None:
        raise NotFound(f"No such container: {container_id}")
    if not container.active:
        return container
    live = _live(context, container)
    if live is not None:
        return live
    state = context.supervisor.state(container.id)
    ended = _ended(container, state)
    with context.database.write() as connection:
        context.table.save(connection, ended)
        context.table.drop_execs(connection, container.id)
    release(context, ended, killed=state is None or state.lost)
    if context.registry.moments:
        from dockp.containers.describe import inspect

        context.moment("dockp_container_died", container=inspect(context, ended))
    _log.info("container %s state.transition=%s->exited", container.id[:12], State.RUNNING.value)
    if container.request.host.auto_remove:
        from dockp.containers.removal import erase

        erase(context, container.id, volumes=True)
    return ended


def release(context: Context, container: Container, *, killed: bool) -> None:
    """Free what only a running container needs: its endpoints and ports, its bundle, and remains of a killed shim."""
    client = context.take_client(container.id)
    if client is not None:
        client.close()
    if killed:
        driver = context.exec_driver(container.exec_driver)
        driver.clean(container.id, (container.request.host.cgroup_parent or context.config.cgroup_parent).strip("/"))
    try:
        context.networks.release(container.id)
    except DockpError as error:
        # The rest must still be freed; what stays of the network is found again by its driver's inventory.
        _log.warning("container %s: cannot release its network: %s", container.id[:12], error)
    shutil.rmtree(context.run_dir(container.id), ignore_errors=True)


def _live(context: Context, container: Container) -> Container | None:
    """The container with what its shim says, or None when it ended."""
    state = context.supervisor.state(container.id)
    if state is None or state.status == "exited":
        return None
    if state.status == "created" and not context.supervisor.alive(container.id):
        return None
    return evolve(
        container,
        task=Task(
            state=State(state.status),
            pid=state.pid,
            exit_code=state.exit_code or 0,
            error=state.error,
            oom_killed=state.oom_killed,
            started_at=state.started_at,
            finished_at=state.finished_at or container.task.finished_at,
            restart_count=state.restart_count,
            health=state.health,
        ),
    )


def _ended(container: Container, state: TaskState | None) -> Container:
    if state is None:
        task = evolve(container.task, state=State.EXITED, exit_code=_LOST_EXIT_CODE)
    else:
        task = Task(
            state=State.EXITED,
            exit_code=state.exit_code if state.exit_code is not None else _LOST_EXIT_CODE,
            error=state.error,
            oom_killed=state.oom_killed,
            started_at=state.started_at or container.task.started_at,
            finished_at=state.finished_at,
            restart_count=state.restart_count,
            health=state.health,
        )
    return evolve(container, active=False, task=task)
