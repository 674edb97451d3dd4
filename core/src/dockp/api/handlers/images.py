"""Images: lists and names, and what comes and goes as a stream."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence

from attrs import evolve

from dockp.api import errors, registry_auth
from dockp.api.handlers.progress import status_line, told
from dockp.api.messages import Reply, Request
from dockp.interface import Document, Progress
from dockp.spi.errors import InvalidArgument, NotFound, NotImplemented, Unauthorized


async def list_(request: Request) -> Reply:
    services, query = request.services, request.query
    rows = await services.run(
        services.engine.images.list,
        all=query.flag("all"),
        filters=query.filters(),
        shared_size=query.flag("shared-size"),
        manifests=query.flag("manifests"),
    )
    return Reply(document=list(rows))


async def inspect(request: Request) -> Reply:
    services, query = request.services, request.query
    platform = platform_of(query.text("platform"))
    if platform and query.flag("manifests"):
        raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
    document = await services.run(services.engine.images.inspect, request.parameters["name"])
    _check_platform(request.parameters["name"], document, platform)
    return Reply(document=document)


async def history(request: Request) -> Reply:
    services, name = request.services, request.parameters["name"]
    platform = platform_of(request.query.text("platform"))
    if platform:
        _check_platform(name, await services.run(services.engine.images.inspect, name), platform)
    return Reply(document=await services.run(services.engine.images.history, name))


def platform_of(text: str) -> str:
    """A platform as a JSON object of OCI, which some parameters have: as ``os/architecture/variant``.

    Raises: InvalidArgument.
    """
    if not text:
        return ""
    try:
        document = json.loads(text)
        parts = [document.get(name) or "" for name in ("os", "architecture", "variant")]
        if not parts[0] or not parts[1]:
            raise ValueError
        return "/".join(part for part in parts if part)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument("failed to parse platform: an object with os and architecture is wanted") from None


def _check_platform(name: str, document: Document, wanted: str) -> None:
    """An image here is of one platform. Raises: NotFound when that is not the wanted one."""
    from dockp.images.documents import parse_platform

    if not wanted:
        return
    given = parse_platform(wanted)
    if (given.os, given.architecture) != (document["Os"], document["Architecture"]):
        raise NotFound(f"image with reference {name} was found but does not provide the specified platform ({wanted})")


async def tag(request: Request) -> Reply:
    services, query = request.services, request.query
    await services.run(
        services.engine.images.tag, request.parameters["name"], named(query.text("repo"), query.text("tag"))
    )
    return Reply(status=201)


def named(repository: str, tag: str) -> str:
    """A name of two parts: ``name``, ``name:tag`` or ``name@sha256:…``. A tag in the first part gives way."""
    if not repository or not tag:
        return repository
    if tag.startswith("sha256:"):
        return f"{repository.partition('@')[0]}@{tag}"
    head, slash, last = repository.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}:{tag}"


async def remove(request: Request) -> Reply:
    services, query, name = request.services, request.query, request.parameters["name"]
    for text in query.texts("platforms"):
        platform = platform_of(text)
        _check_platform(name, await services.run(services.engine.images.inspect, name), platform)
    rows = await services.run_long(
        services.engine.images.remove, name, force=query.flag("force"), prune=not query.flag("noprune")
    )
    return Reply(document=list(rows))


async def prune(request: Request) -> Reply:
    services = request.services
    return Reply(document=await services.run_long(services.engine.images.prune, request.query.filters()))


async def create(request: Request) -> Reply:
    """Pull an image, or import one from a tar."""
    if request.query.text("fromImage"):
        return await _pull(request)
    return await _import(request)


async def _pull(request: Request) -> Reply:
    from dockp.images.reference import parse

    services, query = request.services, request.query
    name, platform = query.text("fromImage").removesuffix(":"), query.text("platform")
    reference = named(name, query.text("tag")) if query.text("tag") else name
    all_tags = False
    # Clients send docker.io/library/debootstrap, tag bookworm, for what their user called debootstrap:bookworm.
    with contextlib.suppress(InvalidArgument):
        parsed = parse(reference)
        reference, all_tags = parsed.familiar, not parsed.tag and not parsed.digest

    credentials = registry_auth.from_header(request)

    def work(progress: Progress, write: Callable[[Document], None]) -> None:
        image = services.engine.images.pull(
            reference, platform=platform, all_tags=all_tags, credentials=credentials, progress=progress
        )
        write({"aux": {"ID": image}})

    try:
        return await told(services, work, stops=True)
    except Unauthorized as error:
        # As dockerd. At 401 docker's command line would ask for a name and a password, also where nobody can answer.
        return evolve(errors.reply(error), status=500)


async def _import(request: Request) -> Reply:
    services, query = request.services, request.query
    origin = query.text("fromSrc")
    if not origin:
        raise InvalidArgument("either fromImage or fromSrc must be given")
    if origin != "-":
        raise NotImplemented(f"cannot import from {origin}: send the tar as the body, with fromSrc=-")
    source = request.body.file()

    def work(progress: Progress, write: Callable[[Document], None]) -> None:
        with source:
            image = services.engine.images.import_(
                source,
                reference=named(query.text("repo"), query.text("tag")),
                changes=query.texts("changes"),
                message=query.text("message") or f"Imported from {origin}",
                platform=query.text("platform"),
                progress=progress,
            )
        write(status_line(image))

    return await told(services, work, quiet=True)


async def load(request: Request) -> Reply:
    services, query = request.services, request.query
    platform = platform_of(query.text("platform"))
    source = request.body.file()

    def work(progress: Progress, write: Callable[[Document], None]) -> None:
        with source:
            for name in services.engine.images.load(source, platform=platform, progress=progress):
                kind = "Loaded image ID" if name.startswith("sha256:") else "Loaded image"
                write({"stream": f"{kind}: {name}\n"})

    return await told(services, work, quiet=query.flag("quiet", True), begun=True)


async def get(request: Request) -> Reply:
    return await _save(request, [request.parameters["name"]])


async def get_all(request: Request) -> Reply:
    names = [name for text in request.query.texts("names") for name in text.split(",") if name]
    if not names:
        raise InvalidArgument("no image names provided")
    return await _save(request, names)


async def _save(request: Request, names: Sequence[str]) -> Reply:
    services = request.services
    if len(request.query.texts("platform")) > 1:
        raise InvalidArgument(
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later"
        )
    platform = platform_of(request.query.text("platform"))
    source = await services.run_long(services.engine.images.save, names, platform=platform)
    return Reply(content=services.chunks(source), content_type="application/x-tar")
