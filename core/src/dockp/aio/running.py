"""`run` for asyncio: one container from its creation to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec

from dockp.aio.interface import Containers, Stream
from dockp.containers.running import Job, describe
from dockp.interface import RunResult
from dockp.spi.errors import DockpError
from dockp.supervisor.stdio import Demultiplexer

P = ParamSpec("P")


def _of(describe: Callable[P, Job]) -> Callable[Concatenate[Containers, P], Coroutine[Any, Any, RunResult]]:
    async def run(containers: Containers, /, *args: P.args, **named: P.kwargs) -> RunResult:
        return await _carry_out(containers, describe(*args, **named))

    run.__doc__ = describe.__doc__
    return run


run = _of(describe)


async def _carry_out(containers: Containers, job: Job) -> RunResult:
    created = await containers.create(job.request)
    try:
        if job.detach:
            await containers.start(created.id)
            return RunResult(id=created.id, exit_code=0, warnings=created.warnings)
        stream = await containers.attach(created.id, stdin=job.stdin is not None, stdout=True, stderr=True)
        try:
            end = await containers.begin_wait(created.id, "removed" if job.removed else "next-exit")
            await containers.start(created.id)
            out, err = await _collect(stream, job.stdin)
        finally:
            await stream.close()
        ended = await end()
    except BaseException:
        if job.removed:
            with contextlib.suppress(DockpError):
                await asyncio.shield(containers.remove(created.id, force=True, volumes=True))
        raise
    return RunResult(id=created.id, exit_code=ended.exit_code, stdout=out, stderr=err, warnings=created.warnings)


async def _collect(stream: Stream, stdin: bytes | None) -> tuple[bytes, bytes]:
    """Feed ``stdin`` and gather both outputs until the stream ends."""

    async def feed() -> None:
        with contextlib.suppress(OSError):  # the process may not care for all of it
            await stream.send(stdin or b"")
            await stream.close_stdin()

    feeder = None if stdin is None else asyncio.create_task(feed())
    out, err, frames = bytearray(), bytearray(), Demultiplexer()
    try:
        while chunk := await stream.recv():
            for number, data in frames.feed(chunk):
                (err if number == 2 else out).extend(data)
    finally:
        if feeder is not None:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)
    return bytes(out), bytes(err)
