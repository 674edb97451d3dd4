"""Files of containers, as tars."""

from __future__ import annotations

import base64
import json

from dockp.api.messages import Reply, Request
from dockp.api.services import obtained
from dockp.interface import Document
from dockp.spi.errors import InvalidArgument


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


def _stat(document: Document) -> dict[str, str]:
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(document).encode()).decode()}


async def head(request: Request) -> Reply:
    services = request.services
    document = await services.run(services.engine.containers.archive_stat, request.parameters["id"], _path(request))
    return Reply(headers=_stat(document))


async def get(request: Request) -> Reply:
    services = request.services
    file, document = await obtained(
        services.run_long(services.engine.containers.archive_get, request.parameters["id"], _path(request)),
        lambda found: found[0].close(),
    )
    return Reply(content=services.chunks(file), content_type="application/x-tar", headers=_stat(document))


async def put(request: Request) -> Reply:
    services, query = request.services, request.query
    path = _path(request)
    with request.body.file() as source:
        await services.run_long(
            services.engine.containers.archive_put,
            request.parameters["id"],
            path,
            source,
            no_overwrite_dir_non_dir=query.flag("noOverwriteDirNonDir"),
            copy_uid_gid=query.flag("copyUIDGID"),
        )
    return Reply()


async def export(request: Request) -> Reply:
    services = request.services
    exported = services.run_long(services.engine.containers.export, request.parameters["id"])
    file = await obtained(exported, lambda file: file.close())
    return Reply(content=services.chunks(file), content_type="application/octet-stream")
