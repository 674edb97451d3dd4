"""The daemon about itself: ``/_ping``, ``/version``, ``/info``, ``/system/df``."""

from __future__ import annotations

from typing import Final

from dockp.api.messages import NEWEST, OLDEST, Reply, Request
from dockp.api.versions import spelled
from dockp.spi.errors import InvalidArgument

# What a client may learn before it knows a version. Builder 1: there is no BuildKit to ask for.
_PING: Final = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


async def ping(request: Request) -> Reply:
    return Reply(content=b"OK", content_type="text/plain; charset=utf-8", headers=_PING)


async def ping_head(request: Request) -> Reply:
    return Reply(content_type="text/plain; charset=utf-8", headers=_PING)


async def version(request: Request) -> Reply:
    services = request.services
    document = await services.run(services.engine.system.version)
    first, *others = document["Components"]
    shown = {
        "ApiVersion": spelled(NEWEST),
        "MinAPIVersion": spelled(OLDEST),
        "GitCommit": "",
        "GoVersion": f"Python {first['Details']['Python']}",  # what it is written in, where clients look for that
        "BuildTime": "",
    }
    details = {**first["Details"], **shown, "Experimental": "false"}
    return Reply(document={**document, **shown, "Components": [{**first, "Details": details}, *others]})


async def info(request: Request) -> Reply:
    return Reply(document=await request.services.run(request.services.engine.system.info))


async def disk_usage(request: Request) -> Reply:
    types = request.query.texts("type")
    for name in types:
        if name not in ("container", "image", "volume", "build-cache"):
            raise InvalidArgument(f"unknown object type: {name}")
    services = request.services
    return Reply(document=await services.run_long(services.engine.system.disk_usage, types))
