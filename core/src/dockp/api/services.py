"""What handlers work with: the engine, and threads to call it in.

The engine is synchronous; the loop must not be. Calls go to one of two lanes of threads, so that what waits (a stop
with a timeout, a pull, the body of a slow client) never stands in the way of what is short.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from dockp.api.changes import Changes

if TYPE_CHECKING:
    from dockp.engine.local import LocalEngine

T = TypeVar("T")

SHORT_THREADS = 16
LONG_THREADS = 256
_IDLE = 10.0
"""Seconds after which a thread without work ends."""
_CHUNK = 1 << 18
_NOTHING: Any = object()


class Lane:
    """Threads that come when there is more work than idle threads, up to ``most``, and go when there is none.

    They are daemons: a call that hangs does not keep the process from ending.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._free = 0  # threads that wait, less the work that waits for them
        self.threads = 0

    def put(self, work: Callable[[], None]) -> None:
        """Have ``work``, which raises nothing, done."""
        with self._guard:
            self._queue.put(work)
            self._free -= 1
            grow = self._free < 0 and self.threads < self._most
            if grow:
                self.threads += 1
                self._free += 1
        if grow:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                work = self._queue.get(timeout=_IDLE)
            except queue.Empty:
                with self._guard:
                    if self._free > 0:  # else there is work on its way to this thread
                        self._free -= 1
                        self.threads -= 1
                        return
                continue
            work()
            del work
            with self._guard:
                self._free += 1


class ApiServices:
    """See `dockp.api.messages.Services`."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        self._changes = Changes()
        self.short = Lane("api", SHORT_THREADS)
        self.long = Lane("api-long", LONG_THREADS)

    @property
    def engine(self) -> LocalEngine:
        return self._engine

    @property
    def changes(self) -> Changes:
        return self._changes

    def run(self, work: Callable[..., T], *arguments: Any, **named: Any) -> Awaitable[T]:
        return _submit(self.short, partial(work, *arguments, **named))

    def run_long(self, work: Callable[..., T], *arguments: Any, **named: Any) -> Awaitable[T]:
        return _submit(self.long, partial(work, *arguments, **named))

    async def chunks(self, file: BinaryIO) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._asked(partial(file.read, _CHUNK), file.close)) as chunks:
            async for chunk in chunks:
                if not chunk:
                    return
                yield chunk

    async def items(self, iterator: Iterator[T]) -> AsyncGenerator[T, None]:
        close: Callable[[], object] = getattr(iterator, "close", lambda: None)
        async with contextlib.aclosing(self._asked(partial(next, iterator, _NOTHING), close)) as items:
            async for item in items:
                if item is _NOTHING:
                    return
                yield item

    async def _asked(self, ask: Callable[[], T], close: Callable[[], object]) -> AsyncGenerator[T, None]:
        """What ``ask`` gives, for ever. At the end ``close``, but not while a thread still asks."""
        asking: asyncio.Future[T] | None = None
        try:
            while True:
                asking = _submit(self.long, ask)
                yield await asyncio.shield(asking)
        finally:
            if asking is None or asking.done():
                _submit(self.long, close)
            else:
                asking.add_done_callback(lambda done: (done.exception(), _submit(self.long, close)))


async def obtained(asked: Awaitable[T], give_back: Callable[[T], object]) -> T:
    """What a thread was asked for; given back should it come when whoever asked has been cancelled."""
    coming = asyncio.ensure_future(asked)
    try:
        return await asyncio.shield(coming)
    except asyncio.CancelledError:
        coming.add_done_callback(lambda done: None if done.exception() else give_back(done.result()))
        raise


def _submit(lane: Lane, work: Callable[[], T]) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, failure: BaseException | None) -> None:
        if future.cancelled():
            return
        if failure is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(failure)

    def call() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(settle, result, failure)

    lane.put(call)
    return future
