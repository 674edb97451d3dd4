"""Long work that tells how it goes: one JSON object a line, as Docker's clients draw it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from typing import Final

from dockp.api import errors
from dockp.api.messages import Reply, Services
from dockp.interface import Document, Progress, is_summary
from dockp.spi.errors import Unavailable

_WITH_ID: Final = re.compile(r"([^ ]+): (.*)", re.DOTALL)
_BAR: Final = 50  # places of the bar, as docker draws it
_STEP: Final = 0.1
"""Seconds between two lines about the same thing."""


def status_line(status: str) -> Document:
    return {"status": status}


def progress_line(what: str, done: int, total: int | None) -> Document:
    """What `dockp.interface.Progress` says, as Docker's line: ``4abcf2066143: Extracting`` is about one layer."""
    if is_summary(what):
        return status_line(what)
    found = _WITH_ID.fullmatch(what)
    if found and found[2].startswith("Pulling from "):
        return {"status": found[2], "id": found[1]}
    line: Document = {"status": found[2] if found else what, "progressDetail": {}}
    if found:
        line["id"] = found[1]
    if done or total:
        line["progressDetail"] = {"current": done} | ({"total": total} if total else {})
        line["progress"] = _bar(done, total)
    return line


def _bar(done: int, total: int | None) -> str:
    from dockp.units import human_size

    if not total:
        return human_size(done)
    places = min(done * _BAR // total, _BAR)
    arrow = "=" * places + (">" if places < _BAR else "")
    return f"[{arrow:<{_BAR}}] {human_size(done):>8}/{human_size(total)}"


async def told(
    services: Services,
    work: Callable[[Progress, Callable[[Document], None]], None],
    *,
    quiet: bool = False,
    begun: bool = False,
    stops: bool = False,
) -> Reply:
    """Do ``work`` in the pool; what it tells is the body of the reply.

    What fails before there was a word fails as any request; from then on the status has gone out, and the error is the
    last line.

    Args:
        work: is called with a progress to report to, and a function that writes one line.
        quiet: leave the progress out, and keep what ``work`` writes.
        begun: tell every error in the stream, even the first thing that happens.
        stops: end the work when the client has gone: the next progress is answered by Unavailable.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[Document | None] = asyncio.Queue()
    shown: dict[str, float] = {}
    gone = False

    def write(line: Document) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def progress(what: str, done: int, total: int | None) -> None:
        if gone:
            raise Unavailable("the client has gone")
        now = loop.time()
        if quiet or (what in shown and now - shown[what] < _STEP and done != total):
            return
        shown[what] = now
        write(progress_line(what, done, total))

    def run() -> None:
        try:
            work(progress, write)
        finally:
            loop.call_soon_threadsafe(lines.put_nowait, None)

    task = asyncio.ensure_future(services.run_long(run))
    first = await lines.get()
    if first is None and not begun:
        await task

    async def body() -> AsyncGenerator[bytes, None]:
        nonlocal gone
        line = first
        try:
            while line is not None:
                yield _encoded(line)
                line = await lines.get()
        finally:
            gone = stops and line is not None
        try:
            await task
        except Exception as error:
            yield _encoded(errors.line(error))

    return Reply(content=body())


def _encoded(line: Document) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\r\n"
