"""Logs: read once, or followed without a thread for each follower."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Set

from attrs import frozen

from dockp.api.messages import Reply, Request, Services, moment
from dockp.api.services import obtained
from dockp.interface import WaitResult
from dockp.logs import lines
from dockp.spi.errors import InvalidArgument
from dockp.spi.logs import LogEntry

_PORTION = 512
"""Entries that are read at a time."""
_PULSE = 1.0
"""Seconds between two looks at a followed log, when nothing is said to have changed."""


@frozen(kw_only=True)
class Framing:
    """How entries become bytes.

    Attributes:
        streams: those wanted. framed: with Docker's eight bytes before each entry. timestamps: before each entry.
        details: text to put after the timestamp.
    """

    streams: Set[str]
    framed: bool
    timestamps: bool = False
    details: bytes = b""

    def encode(self, entries: list[LogEntry]) -> bytes:
        return b"".join(
            lines.frame(entry, self.framed, (lines.stamp(entry.time) if self.timestamps else b"") + self.details)
            for entry in entries
            if entry.stream in self.streams
        )


async def logs(request: Request) -> Reply:
    from dockp.api.handlers.streams import begun, stream_type

    services, query, ref = request.services, request.query, request.parameters["id"]
    streams = {name for name in ("stdout", "stderr") if query.flag(name)}
    if not streams:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    since, until = moment(query.text("since"), "since"), moment(query.text("until"), "until")
    document = await services.run(services.engine.containers.inspect, ref)
    terminal = document["Config"]["Tty"]
    framing = Framing(
        streams=streams,
        framed=not terminal,
        timestamps=query.flag("timestamps"),
        details=lines.details(document) if query.flag("details") else b"",
    )
    content = followed(
        services,
        ref,
        framing,
        follow=query.flag("follow"),
        since=since,
        until=until,
        tail=lines.parse_tail(query.text("tail")),
    )
    return Reply(
        content=await begun(content), content_type=stream_type(request, terminal), endless=query.flag("follow")
    )


async def followed(
    services: Services,
    ref: str,
    framing: Framing,
    *,
    follow: bool = False,
    since: int = 0,
    until: int = 0,
    tail: int | None = None,
) -> AsyncGenerator[bytes, None]:
    """The log, as bytes for the client; b"" first, once nothing can be refused any more."""
    containers = services.engine.containers
    feed, more = await obtained(
        services.run(containers.log_feed, ref, follow=follow, since=since, until=until, tail=tail),
        lambda found: found[0].close(),
    )
    with contextlib.closing(feed), services.changes.watch(feed.directory) as changed:
        async with _ends(services, ref, changed) if follow else contextlib.nullcontext():
            yield b""
            coming = True
            while True:
                # Asked before the last look at the log: what was written before the answer is seen after it.
                changed.clear()
                if coming and follow:
                    coming = await services.run(more)
                entries = await services.run(feed.take, _PORTION)
                if entries:
                    if data := framing.encode(entries):
                        yield data
                elif feed.over or not (coming and follow):
                    return
                else:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), _PULSE)


@contextlib.asynccontextmanager
async def _ends(services: Services, ref: str, changed: asyncio.Event) -> AsyncGenerator[None, None]:
    """Set ``changed`` at the container's end too."""
    loop = asyncio.get_running_loop()

    def tell(_: WaitResult) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(changed.set)

    when = services.run(services.engine.containers.when, ref, "next-exit", tell)
    cancel = await obtained(when, lambda cancel: cancel())
    try:
        yield
    finally:
        cancel()
