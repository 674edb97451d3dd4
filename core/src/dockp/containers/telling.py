"""Events of containers, their networks and volumes. What happens inside a shim (start, die …) is told there."""

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


def tell_networks(context: Context, container: Container, action: str) -> None:
    """The event "connect" or "disconnect" of each network that a container is on."""
    for network in context.networks.joined_by(container.id, container.request):
        details = {"container": container.id, "name": network.name, "type": network.driver}
        context.events.emit("network", action, network.id, details)


def tell_mounts(context: Context, container: Container) -> None:
    """The event ``mount`` of each volume of a container that is about to run."""
    for record in container.mounts:
        if record.type == "volume":
            details = {
                "container": container.id,
                "destination": record.target,
                "driver": record.driver,
                "propagation": record.propagation,
                "read/write": str(record.read_write).lower(),
            }
            context.events.emit("volume", "mount", record.name, details)


def tell_unmounts(context: Context, container: Container) -> None:
    """The event ``unmount`` of each volume of a container that has ended."""
    for record in container.mounts:
        if record.type == "volume":
            context.events.emit("volume", "unmount", record.name, {"container": container.id, "driver": record.driver})
