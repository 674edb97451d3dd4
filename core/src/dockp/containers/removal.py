"""Removing a container, so that a kill at any point leaves either a container or nothing."""

from __future__ import annotations

import contextlib

from attrs import evolve

from dockp.containers.context import Context
from dockp.containers.record import Container, with_task
from dockp.containers.settling import drop_run_dir, end_shim, release, settle
from dockp.containers.states import State
from dockp.containers.telling import tell
from dockp.linux.trees import discard_tree
from dockp.spi.errors import Conflict, NotFound
from dockp.store.journal import Operation


def remove(context: Context, container: Container, *, force: bool, volumes: bool) -> None:
    """Raises: Conflict, with Docker's words, for one that runs unless ``force``."""
    with context.exclusive(container.id):
        current = settle(context, container.id)
        if current.active:
            if not force:
                raise Conflict(_running(current))
            end_shim(context, current.id)
            with contextlib.suppress(NotFound):  # --rm: settling removes it too
                settle(context, container.id)
        left = context.table.peek(container.id)
        if left is not None:
            erase(context, left, volumes=volumes)


def _running(container: Container) -> str:
    if container.task.state is State.PAUSED:
        return f'cannot remove container "/{container.name}": container is paused and must be unpaused first'
    return (
        f'cannot remove container "/{container.name}": container is {container.task.state.value}: '
        "stop the container before removing or force remove"
    )


def erase(context: Context, container: Container, *, volumes: bool) -> None:
    """Remove a container that does not run; the caller holds its lock. Journaled: once begun, it is finished."""
    # Dead until the very end: whoever sees it meanwhile, or after a failure, sees that only removing helps.
    doomed = evolve(with_task(container, state=State.REMOVING), active=False)
    with context.journal.operation(
        "container.remove",
        container.id,
        record=lambda connection: context.table.save_state(connection, doomed),
        volumes=volumes,
    ) as operation:
        finish(context, container.id, volumes=volumes, operation=operation)


def finish(context: Context, container_id: str, *, volumes: bool, operation: Operation | None = None) -> None:
    """Do, or finish, a removal, and end its operation with the record. Idempotent; also the journal's way onward after
    a crash."""
    container = context.table.peek(container_id)
    if container is None:
        return
    try:
        state = context.supervisor.state(container_id)
        killed = context.run_dir(container_id).exists() and (state is None or state.lost or state.status != "exited")
        if killed:
            # Its shim may still be on its way out, if whoever attached to it was killed before the start.
            end_shim(context, container_id)
        release(context, container, killed=killed)
        drop_run_dir(context, container_id)
        for snapshot in context.snapshots.owned_by(container_id):
            context.snapshots.remove(snapshot.id)
        context.volumes.let_go(container_id, remove_anonymous=volumes)
        discard_tree(context.container_dir(container_id))
    except BaseException as error:
        with context.database.write() as connection:
            context.table.save_state(connection, with_task(container, state=State.DEAD, error=str(error)))
        raise
    with context.database.write() as connection:
        context.table.delete(connection, container_id)
        if operation is not None:
            operation.finish(connection)
    tell(context, container, "destroy")
    if context.watcher is not None:
        context.watcher.removed(container_id)
    try:
        context.images.get(container.image)
    except NotFound:  # removed by force before; nobody else may need its layers now
        context.collector.collect()
