"""What is done with registries: ``/auth``, push, search and ``/distribution``."""

from __future__ import annotations

from collections.abc import Callable

from dockp.api import registry_auth
from dockp.api.handlers.images import named, platform_of
from dockp.api.handlers.progress import told
from dockp.api.messages import Reply, Request
from dockp.interface import Document, Progress


async def login(request: Request) -> Reply:
    services, given = request.services, await request.json()
    server = given.get("serveraddress")
    credentials = registry_auth.from_document(given)
    document = await services.run_long(
        services.engine.system.login, server if isinstance(server, str) else "", credentials
    )
    return Reply(document=document)


async def push(request: Request) -> Reply:
    services, query = request.services, request.query
    reference = named(request.parameters["name"], query.text("tag"))
    platform = platform_of(query.text("platform"))
    credentials = registry_auth.from_header(request)
    if registry_auth.HEADER not in request.headers:
        credentials = await registry_auth.from_body(request)

    def work(progress: Progress, write: Callable[[Document], None]) -> None:
        for pushed in services.engine.images.push(
            reference, platform=platform, credentials=credentials, progress=progress
        ):
            write({"progressDetail": {}, "aux": pushed})

    return await told(services, work)


async def search(request: Request) -> Reply:
    services, query = request.services, request.query
    found = await services.run_long(
        services.engine.images.search,
        query.text("term"),
        limit=query.integer("limit", 0) or 0,
        filters=query.filters(),
        credentials=registry_auth.from_header(request),
    )
    return Reply(document=list(found))


async def distribution(request: Request) -> Reply:
    services, name = request.services, request.parameters["name"]
    credentials = registry_auth.from_header(request)
    return Reply(document=await services.run_long(services.engine.images.distribution, name, credentials=credentials))
