"""Further processes in containers, but for their streams."""

from __future__ import annotations

from dockp.api.messages import Reply, Request
from dockp.containers.model import ExecConfig
from dockp.jsonmodel import from_json


async def create(request: Request) -> Reply:
    services = request.services
    config = from_json(ExecConfig, await request.json())
    exec_id = await services.run(services.engine.containers.exec_create, request.parameters["id"], config)
    return Reply(status=201, document={"Id": exec_id})


async def inspect(request: Request) -> Reply:
    services = request.services
    return Reply(document=await services.run(services.engine.containers.exec_inspect, request.parameters["id"]))
