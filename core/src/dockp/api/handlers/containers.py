"""Containers, but for their streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dockp.api.messages import Query, Reply, Request
from dockp.containers.model import Config, CreateRequest, EndpointSettings, HostConfig, UpdateRequest
from dockp.jsonmodel import from_json, json_names, spelled
from dockp.spi.errors import InvalidArgument


async def create(request: Request) -> Reply:
    body = spelled(await request.json(), _CREATE)
    wanted = create_request(body, request.query.text("name"), request.query.text("platform"))
    services = request.services
    created = await services.run(services.engine.containers.create, wanted)
    return Reply(status=201, document={"Id": created.id, "Warnings": list(created.warnings)})


_CREATE = json_names(Config) | {"HostConfig", "NetworkingConfig"}


def create_request(body: Mapping[str, Any], name: str, platform: str) -> CreateRequest:
    """The body of ``POST /containers/create``: a container's configuration with two parts beside it.

    Raises: InvalidArgument.
    """
    if not body.keys() & json_names(Config):
        raise InvalidArgument("config cannot be empty in order to create a container")
    networking = body.get("NetworkingConfig") or {}
    if not isinstance(networking, dict):
        raise InvalidArgument("invalid JSON: NetworkingConfig must be an object")
    endpoints = spelled(networking, ("EndpointsConfig",)).get("EndpointsConfig") or {}
    if not isinstance(endpoints, dict):
        raise InvalidArgument("invalid JSON: NetworkingConfig.EndpointsConfig must be an object")
    return CreateRequest(
        config=_config(body),
        host=from_json(HostConfig, body.get("HostConfig") or {}, "HostConfig"),
        networks={
            network: from_json(EndpointSettings, settings or {}, f"NetworkingConfig.EndpointsConfig.{network}")
            for network, settings in endpoints.items()
        },
        name=name.removeprefix("/"),
        platform=platform,
    )


def _config(body: Mapping[str, Any]) -> Config:
    """One word may stand for a list of one."""
    words = {name: [body[name]] for name in ("Cmd", "Entrypoint", "Shell") if isinstance(body.get(name), str)}
    return from_json(Config, {**body, **words})


async def list_(request: Request) -> Reply:
    services, query = request.services, request.query
    limit = query.integer("limit", 0) or 0
    rows = await services.run(
        services.engine.containers.list,
        all=query.flag("all"),
        limit=max(limit, 0),
        size=query.flag("size"),
        filters=query.filters(),
    )
    return Reply(document=rows)


async def inspect(request: Request) -> Reply:
    services = request.services
    size = request.query.flag("size")
    return Reply(document=await services.run(services.engine.containers.inspect, request.parameters["id"], size=size))


async def top(request: Request) -> Reply:
    services = request.services
    found = await services.run(
        services.engine.containers.top, request.parameters["id"], request.query.text("ps_args", "-ef")
    )
    return Reply(document={"Titles": list(found.titles), "Processes": [list(row) for row in found.processes]})


async def changes(request: Request) -> Reply:
    services = request.services
    rows = await services.run_long(services.engine.containers.changes, request.parameters["id"])
    return Reply(document=list(rows))


async def start(request: Request) -> Reply:
    services = request.services
    await services.run(services.engine.containers.start, request.parameters["id"])
    return Reply(status=204)


async def stop(request: Request) -> Reply:
    services = request.services
    seconds, signal = _ending(request.query)
    await services.run_long(services.engine.containers.stop, request.parameters["id"], seconds, signal)
    return Reply(status=204)


async def restart(request: Request) -> Reply:
    services = request.services
    seconds, signal = _ending(request.query)
    await services.run_long(services.engine.containers.restart, request.parameters["id"], seconds, signal)
    return Reply(status=204)


def _ending(query: Query) -> tuple[int | None, str]:
    return query.integer("t"), query.text("signal")


async def kill(request: Request) -> Reply:
    services = request.services
    signal = request.query.text("signal", "KILL")
    await services.run_long(services.engine.containers.kill, request.parameters["id"], signal)
    return Reply(status=204)


async def pause(request: Request) -> Reply:
    await request.services.run(request.services.engine.containers.pause, request.parameters["id"])
    return Reply(status=204)


async def unpause(request: Request) -> Reply:
    await request.services.run(request.services.engine.containers.unpause, request.parameters["id"])
    return Reply(status=204)


async def rename(request: Request) -> Reply:
    services = request.services
    name = request.query.text("name")
    await services.run(services.engine.containers.rename, request.parameters["id"], name)
    return Reply(status=204)


async def update(request: Request) -> Reply:
    services = request.services
    wanted = from_json(UpdateRequest, await request.json())
    warnings = await services.run(services.engine.containers.update, request.parameters["id"], wanted)
    return Reply(document={"Warnings": list(warnings)})


async def remove(request: Request) -> Reply:
    services, query = request.services, request.query
    if query.flag("link"):
        raise InvalidArgument("links between containers cannot be removed: there are no legacy links")
    await services.run_long(
        services.engine.containers.remove, request.parameters["id"], force=query.flag("force"), volumes=query.flag("v")
    )
    return Reply(status=204)


async def prune(request: Request) -> Reply:
    services = request.services
    return Reply(document=await services.run_long(services.engine.containers.prune, request.query.filters()))


async def commit(request: Request) -> Reply:
    services, query = request.services, request.query
    body = await request.json()
    ref = query.text("container")
    if not ref:
        raise InvalidArgument("invalid reference format: the parameter container is missing")
    image = await services.run_long(
        services.engine.containers.commit,
        ref,
        repository=query.text("repo"),
        tag=query.text("tag"),
        message=query.text("comment"),
        author=query.text("author"),
        changes=query.texts("changes"),
        pause=query.flag("pause", True),
        config=_config(spelled(body, json_names(Config))) if body else None,
    )
    return Reply(status=201, document={"Id": image})
