"""Networks."""

from __future__ import annotations

from dockp.api.messages import Reply, Request
from dockp.networks.service import PREDEFINED
from dockp.spi.errors import Forbidden, InvalidArgument, NotFound, NotImplemented


async def list_(request: Request) -> Reply:
    services = request.services
    rows = await services.run(services.engine.networks.list, request.query.filters())
    if request.version < (1, 28):
        return Reply(document=list(rows))
    # Who is in a network is told by the network alone.
    return Reply(document=[{**row, "Containers": {}} for row in rows])


async def inspect(request: Request) -> Reply:
    services, ref = request.services, request.parameters["id"]
    scope = request.query.text("scope")
    if scope not in ("", "local", "global", "swarm"):
        raise InvalidArgument(f"invalid scope: {scope}")
    document = await services.run(services.engine.networks.inspect, ref)
    if scope and document["Scope"] != scope:
        raise NotFound(f"network {ref} not found")
    return Reply(document=document)


async def remove(request: Request) -> Reply:
    services, ref = request.services, request.parameters["id"]
    document = await services.run(services.engine.networks.inspect, ref)
    if document["Name"] in PREDEFINED:
        raise Forbidden(f"{document['Name']} is a pre-defined network and cannot be removed")
    raise NotImplemented(f"cannot remove network {ref}: that is not supported yet")


async def create(request: Request) -> Reply:
    body = await request.json()
    name = body.get("Name")
    if not isinstance(name, str) or not name:
        raise InvalidArgument("network name cannot be empty")
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    raise NotImplemented(f"cannot create network {name}: that is not supported yet; containers use the default ones")


async def connect(request: Request) -> Reply:
    """Both connect and disconnect."""
    services, ref = request.services, request.parameters["id"]
    body = await request.json()
    container = body.get("Container")
    if not isinstance(container, str) or not container:
        raise InvalidArgument("invalid container name or ID: value is empty")
    await services.run(services.engine.networks.inspect, ref)
    await services.run(services.engine.containers.inspect, container)
    raise NotImplemented("connecting containers to networks, and disconnecting them, is not supported yet")


async def prune(request: Request) -> Reply:
    """There are only the predefined networks, which prune never removes."""
    request.query.filters()
    return Reply(document={"NetworksDeleted": None})
