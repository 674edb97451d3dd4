"""What the engine cannot do yet: one clear line, with the status that Docker has for it."""

from __future__ import annotations

from dockp.api.messages import Handler, Reply, Request
from dockp.spi.errors import DockpError, NotFound, NotImplemented, Unavailable


def _refusal(error: type[DockpError], line: str) -> Handler:
    async def refuse(request: Request) -> Reply:
        raise error(line.format(**request.parameters))

    return refuse


build = _refusal(NotImplemented, "building images is not supported yet")
session = _refusal(NotImplemented, "sessions are not supported: they are for building images with BuildKit")
plugin_arrival = _refusal(
    NotImplemented, "plugins cannot be installed through the API: install them as Python packages"
)
no_plugin = _refusal(NotFound, 'plugin "{name}" not found')
swarm_start = _refusal(NotImplemented, "swarm is not supported yet")

# As dockerd says of a node that is in no swarm.
not_a_manager = _refusal(
    Unavailable,
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again.",
)
not_in_a_swarm = _refusal(Unavailable, "This node is not part of a swarm")


async def no_plugins(request: Request) -> Reply:
    """Docker's managed plug-ins: there are none. Drivers of dockp are listed in ``GET /info``."""
    return Reply(document=[])


async def build_prune(request: Request) -> Reply:
    """There is no cache of builds, so nothing of it is left after this."""
    return Reply(document={"CachesDeleted": None, "SpaceReclaimed": 0})
