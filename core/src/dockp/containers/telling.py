"""Events of containers. What happens inside a shim (start, die, health checks …) is told by the shim itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.record import Container


def attributes(container: Container) -> dict[str, str]:
    """What every event of a container says of it: its labels, image and name."""
    config = container.request.config
    found = dict(config.labels)
    if config.image:
        found["image"] = config.image
    found["name"] = container.name
    return found


def tell(context: Context, container: Container, action: str, **extra: str) -> None:
    """Write the event ``action`` ("create", "kill", "exec_create: ls") of a container, with ``extra`` attributes under
    Docker's names (``signal="15"``, ``execID=…``). Never raises."""
    context.events.emit("container", action, container.id, attributes(container) | extra)
