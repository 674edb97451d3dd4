"""New limits and another restart policy for a container that is there: ``update``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve, fields

from dockp.containers import limits, settling
from dockp.containers.model import HostConfig, UpdateRequest
from dockp.containers.states import State
from dockp.containers.telling import tell
from dockp.spi.errors import Conflict, DockpError, InvalidArgument, NotFound, NotImplemented
from dockp.spi.runtime import RuntimeFailure

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.record import Container

_LIMITS = tuple(item.name for item in fields(UpdateRequest) if item.name != "restart_policy")


def update(context: Context, container: Container, request: UpdateRequest) -> Sequence[str]:
    """See `dockp.interface.Containers.update`. Raises: InvalidArgument, Conflict, NotImplemented; Docker's words."""
    from dockp.containers.creation import check_restart

    if request.restart_policy is not None:
        check_restart(request.restart_policy)
    alone = _wanted(request)
    alone.pop("memory_swap", None)  # it may go with the memory limit that the container has
    limits.check(evolve(HostConfig(), **alone))
    if request.cpu_realtime_period or request.cpu_realtime_runtime:
        raise NotImplemented("--cpu-rt-*: this needs a realtime-group kernel")
    with context.exclusive(container.id):
        current = settling.settle(context, container.id)
        if context.table.peek(container.id) is None:
            raise NotFound(f"No such container: {container.id}")
        try:
            host = merged(current.request.host, request)
            if current.task.state in (State.DEAD, State.REMOVING):
                raise Conflict('container is marked for removal and cannot be "update"')
            # First what may fail: a record that says what is not so would mislead everybody.
            warnings = _apply(context, current, host) if current.active else ()
        except (Conflict, InvalidArgument) as error:
            raise type(error)(f"Cannot update container {current.id}: {error}") from error
        except RuntimeFailure as failure:
            raise InvalidArgument(f"Cannot update container {current.id}: {failure}") from failure
        with context.database.write() as connection:
            stored = context.table.peek(container.id) or current
            changed = evolve(stored, request=evolve(stored.request, host=host))
            context.table.save(connection, changed)
    tell(context, changed, "update")
    return warnings


def merged(host: HostConfig, request: UpdateRequest) -> HostConfig:
    """``host`` with what ``request`` changes. Raises: Conflict, InvalidArgument."""
    wanted = _wanted(request)
    if request.nano_cpus and host.cpu_period:
        raise Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set")
    if request.nano_cpus and host.cpu_quota:
        raise Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set")
    if request.cpu_period and host.nano_cpus:
        raise Conflict("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
    if request.cpu_quota and host.nano_cpus:
        raise Conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set")
    if request.memory and not request.memory_swap and request.memory > host.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    policy = request.restart_policy
    if policy is not None and policy.name:
        if host.auto_remove and policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        wanted["restart_policy"] = policy
    result: HostConfig = evolve(host, **wanted)
    limits.check(result)
    return result


def _wanted(request: UpdateRequest) -> dict[str, Any]:
    """The limits that a request names."""
    wanted = {name: getattr(request, name) for name in _LIMITS if getattr(request, name)}
    if request.oom_kill_disable is not None:
        wanted["oom_kill_disable"] = request.oom_kill_disable
    return wanted


def _apply(context: Context, container: Container, host: HostConfig) -> Sequence[str]:
    """Tell the shim, which does it."""
    resources = limits.resources(host, [])
    before = limits.resources(container.request.host, [])
    policy = host.restart_policy
    with contextlib.closing(context.supervisor.connect(container.id)) as shim:
        running = container.task.state in (State.RUNNING, State.PAUSED)
        try:
            return shim.update(
                {key: value for key, value in resources.items() if key != "devices" and value != before.get(key)}
                if running
                else None,
                {"name": policy.name, "max": policy.maximum_retry_count},
            )
        except DockpError:
            if context.supervisor.alive(container.id):
                raise
            return ()  # it has just ended; the record is what counts then
