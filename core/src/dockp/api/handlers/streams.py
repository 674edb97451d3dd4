"""Attach and exec: connections that are handed to a container's shim; and what goes with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from dockp.api.handlers.logs import Framing, followed
from dockp.api.messages import Hijack, RawConnection, Reply, Request, moment
from dockp.api.services import obtained
from dockp.containers.stats import following
from dockp.interface import Document, WaitResult
from dockp.jsonmodel import spelled
from dockp.keys import parse_detach_keys
from dockp.spi.errors import DockpError, InvalidArgument, NotFound, StartFailure
from dockp.supervisor.client import ClientSocket

_log = logging.getLogger(__name__)

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"


def stream_type(request: Request, terminal: bool) -> str:
    """The content type of a container's output."""
    return RAW if terminal or request.version < (1, 42) else MULTIPLEXED


# Attach


async def attach(request: Request) -> Hijack:
    services, query, ref = request.services, request.query, request.parameters["id"]
    containers = services.engine.containers
    container = await services.run(containers.attachable, ref)
    terminal = container.request.config.tty
    keys = query.text("detachKeys")
    parse_detach_keys(keys)
    wants: dict[str, Any] = {name: query.flag(name) for name in ("stdin", "stdout", "stderr")}

    async def take(raw: RawConnection) -> None:
        head = raw.head
        if query.flag("logs") and container.task.started_at:
            await raw.send_head()
            head = b""
            streams = {name for name in ("stdout", "stderr") if wants[name]}
            framing = Framing(streams=streams, framed=not terminal)
            async with contextlib.aclosing(followed(services, container.id, framing)) as written:
                async for data in written:
                    await raw.send(data)
        if query.flag("stream"):
            try:
                await hand_over(
                    request, raw, head, lambda client: containers.attach_client(ref, client, detach_keys=keys, **wants)
                )
            except DockpError as failure:
                if container.active:
                    raise
                # As Docker, which looks at no more than the name here: whoever attaches before the start is told what
                # is wrong with the container by the start.
                _log.debug("attach to container %s before its start: %s", container.id[:12], failure)
                await raw.send(head)
        elif head:
            await raw.send(head)

    return Hijack(take=take, content_type=stream_type(request, terminal))


async def hand_over(request: Request, raw: RawConnection, head: bytes, give: Callable[[ClientSocket], None]) -> None:
    """Give the connection to a shim, from a thread that also gives back our own descriptor: whoever asked may be gone
    before it has been used."""
    handover = raw.handover()

    def work() -> None:
        try:
            give(ClientSocket(handover.descriptor, head, handover.early))
        finally:
            handover.close()

    await request.services.run(work)


async def attach_websocket(request: Request) -> Hijack:
    from dockp.api.websocket import serve_websocket, upgrade  # its library makes a table that takes 50 ms

    services, query, ref = request.services, request.query, request.parameters["id"]
    containers = services.engine.containers
    await services.run(containers.attachable, ref)
    keys = query.text("detachKeys")
    parse_detach_keys(keys)
    # Docker's clients name the streams since 1.42; for those before, all three are attached.
    wants: dict[str, Any] = {
        name: query.flag(name, request.version < (1, 42)) for name in ("stdin", "stdout", "stderr")
    }
    connection, head = upgrade(request)

    async def take(raw: RawConnection) -> None:
        await serve_websocket(
            raw,
            connection,
            lambda client: services.run(
                containers.attach_client, ref, client, detach_keys=keys, framing="raw", **wants
            ),
        )

    return Hijack(take=take, head=head)


# Exec


async def exec_start(request: Request) -> Reply | Hijack:
    services, exec_id = request.services, request.parameters["id"]
    containers = services.engine.containers
    body = spelled(await request.json(), ("Detach", "Tty", "ConsoleSize"))
    await services.run(containers.exec_inspect, exec_id)
    if body.get("Detach"):
        await services.run(containers.exec_start, exec_id, detach=True)
        return Reply()
    # As in Docker it is this request that decides about frames, whether the process has a terminal or not.
    terminal = bool(body.get("Tty"))
    framing = "raw" if terminal else "stdcopy"
    size = _console_size(body.get("ConsoleSize")) if terminal and request.version >= (1, 42) else None

    async def take(raw: RawConnection) -> None:
        try:
            await hand_over(
                request, raw, raw.head, lambda client: containers.exec_start_client(exec_id, client, framing, size)
            )
        except (StartFailure, InvalidArgument) as failure:
            # As Docker, which has answered already when it tries: the reason is the output.
            text = f"{failure}\r\n".encode()
            await raw.send_head()
            await raw.send(text if terminal else b"\1\0\0\0" + len(text).to_bytes(4, "big") + text)

    return Hijack(take=take, content_type=stream_type(request, terminal))


def _console_size(given: Any) -> tuple[int, int] | None:
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(part, int) for part in given):
        raise InvalidArgument("invalid JSON: ConsoleSize must be two numbers, rows and columns")
    return (given[0], given[1]) if all(given) else None


# Sizes of terminals


async def resize(request: Request) -> Reply:
    rows, columns = _size(request)
    await request.services.run(request.services.engine.containers.resize, request.parameters["id"], rows, columns)
    return Reply()


async def exec_resize(request: Request) -> Reply:
    rows, columns = _size(request)
    await request.services.run(request.services.engine.containers.exec_resize, request.parameters["id"], rows, columns)
    return Reply()


def _size(request: Request) -> tuple[int, int]:
    sizes = []
    for name in ("h", "w"):
        text = request.query.text(name)
        if not text.isascii() or not text.isdigit():
            raise InvalidArgument(f'invalid resize {"height" if name == "h" else "width"} "{text}": use a whole number')
        sizes.append(min(int(text), 0xFFFF))
    return sizes[0], sizes[1]


# Waiting


async def wait(request: Request) -> Reply:
    """The head is sent as soon as the end cannot be missed any more, the document at the end."""
    services = request.services
    condition = request.query.text("condition") if request.version >= (1, 30) else ""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[WaitResult] = loop.create_future()

    def settle(result: WaitResult) -> None:
        if not ended.done():
            ended.set_result(result)

    def tell(result: WaitResult) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result)

    async def body() -> AsyncGenerator[bytes, None]:
        when = services.run(services.engine.containers.when, request.parameters["id"], condition, tell)
        cancel = await obtained(when, lambda cancel: cancel())
        try:
            yield b""
            result = await ended
            document: dict[str, Any] = {"StatusCode": result.exit_code}
            if result.error:
                document["Error"] = {"Message": result.error}
            yield json.dumps(document).encode() + b"\n"
        finally:
            cancel()

    return Reply(content=await begun(body()), endless=True)


async def begun(content: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """``content``, after its first piece, which is empty: what is raised up to there becomes an ordinary reply, and
    what is to be given back at the end will be."""
    await anext(content)
    return content


# Counters


async def stats(request: Request) -> Reply:
    services, query, ref = request.services, request.query, request.parameters["id"]
    containers = services.engine.containers
    stream, one_shot = query.flag("stream", True), query.flag("one-shot")
    if stream and one_shot:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    if not stream:
        document = await services.run_long(lambda: next(iter(containers.stats(ref, stream=False, one_shot=one_shot))))
        return Reply(document=document)

    def sample(which: str) -> Document:
        return next(iter(containers.stats(which, stream=False, one_shot=True)))

    async def body() -> AsyncGenerator[bytes, None]:
        # The pause is made here, so that no thread spends it.
        document = await services.run(sample, ref)
        yield b""
        while True:
            yield json.dumps(document).encode() + b"\n"
            await asyncio.sleep(1.0)
            try:
                document = following(document, await services.run(sample, document["id"]))
            except NotFound:
                return

    return Reply(content=await begun(body()), endless=True)


# Events


async def events(request: Request) -> Reply:
    services, query = request.services, request.query
    since, until = ((moment(query.text(name), name) if query.text(name) else None) for name in ("since", "until"))
    stream = await obtained(
        services.run(services.engine.system.events, since=since, until=until, filters=query.filters(), watched=False),
        lambda stream: stream.close(),
    )

    async def body() -> AsyncGenerator[bytes, None]:
        with contextlib.closing(stream), services.changes.watch(services.engine.config.exec_root) as changed:
            yield b""
            while True:
                changed.clear()
                found = await services.run(stream.take)
                if found is None:
                    return
                if found:
                    yield b"".join(json.dumps(event).encode() + b"\n" for event in found)
                else:
                    left = None if until is None else max(0.0, (until - time.time_ns()) / 1e9) + 0.001
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), left)

    return Reply(content=await begun(body()), endless=True)
