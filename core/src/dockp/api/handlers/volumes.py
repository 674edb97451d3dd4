"""Volumes."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from dockp.api.messages import Reply, Request
from dockp.jsonmodel import Model, from_json
from dockp.spi.errors import NotImplemented, Unavailable


@frozen(kw_only=True, eq=False, repr=False)
class VolumeCreate(Model):
    """The body of ``POST /volumes/create``."""

    name: str = ""
    driver: str = ""
    driver_opts: Mapping[str, str] = field(factory=dict)
    labels: Mapping[str, str] = field(factory=dict)
    cluster_volume_spec: Mapping[str, object] = field(factory=dict)


async def list_(request: Request) -> Reply:
    services = request.services
    rows = await services.run(services.engine.volumes.list, request.query.filters())
    return Reply(document={"Volumes": list(rows), "Warnings": None})


async def create(request: Request) -> Reply:
    services = request.services
    wanted = from_json(VolumeCreate, await request.json())
    if wanted.cluster_volume_spec:
        raise NotImplemented("cluster volumes are not supported yet")
    document = await services.run(
        services.engine.volumes.create,
        wanted.name,
        driver=wanted.driver or "local",
        options=wanted.driver_opts,
        labels=wanted.labels,
    )
    return Reply(status=201, document=document)


async def inspect(request: Request) -> Reply:
    services = request.services
    return Reply(document=await services.run(services.engine.volumes.inspect, request.parameters["name"]))


async def update(request: Request) -> Reply:
    """Only cluster volumes can be updated, and those are a swarm's."""
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(request: Request) -> Reply:
    services = request.services
    force = request.query.flag("force")
    await services.run_long(services.engine.volumes.remove, request.parameters["name"], force=force)
    return Reply(status=204)


async def prune(request: Request) -> Reply:
    services = request.services
    return Reply(document=await services.run_long(services.engine.volumes.prune, request.query.filters()))
