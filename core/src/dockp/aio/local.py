"""The engine of this process for asyncio: each call of `dockp.engine.LocalEngine` in a thread while it is under way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from dockp import interface
from dockp.aio.running import run
from dockp.interface import WaitResult

if TYPE_CHECKING:
    from dockp.aio.interface import Pending, Stream

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N")
_PIECE = 1 << 16
_AHEAD = 16
"""Items that a thread may be ahead of the program."""


class Engine:
    """Meets `dockp.aio.interface.Engine`. Takes what `dockp.Engine` takes; opened on entering, or by the first call.

    A call that is cancelled goes on in its thread to its end, unseen.
    """

    def __init__(self, engine: interface.Engine | None = None, **settings: Any) -> None:
        self._make: Callable[[], interface.Engine] = _opener(engine, settings)
        self._engine: interface.Engine | None = None
        self._lock = threading.Lock()
        self.containers = Containers(self, "containers")
        self.images = Images(self, "images")
        self.volumes = Volumes(self, "volumes")
        self.networks = Networks(self, "networks")
        self.system = System(self, "system")

    def noun(self, name: str) -> Any:
        """A noun of the engine itself; called in threads."""
        with self._lock:
            if self._engine is None:
                self._engine = self._make()
            return getattr(self._engine, name)

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.close)

    async def __aenter__(self) -> Self:
        await in_thread(lambda: self.noun("system"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _opener(engine: interface.Engine | None, settings: dict[str, Any]) -> Callable[[], interface.Engine]:
    if engine is not None:
        return lambda: engine

    def make() -> interface.Engine:
        from dockp.engine import Engine as LocalEngine

        return LocalEngine(**settings)

    return make


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread of its own: some calls wait for days, and must not use up a pool."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(set_: Callable[[Any], None], outcome: object) -> None:
        if not future.done():
            set_(outcome)

    def body() -> None:
        try:
            outcome: object = work()
            set_: Callable[[Any], None] = future.set_result
        except BaseException as error:
            outcome, set_ = error, future.set_exception
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, set_, outcome)

    threading.Thread(target=body, name="dockp.aio", daemon=True).start()
    return await future


async def iterate(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """An iterator that blocks, from a thread. Leaving it early ends the thread at its next item."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue(_AHEAD)
    given_up = threading.Event()

    def put(is_item: bool, value: object) -> None:
        if not given_up.is_set():
            asyncio.run_coroutine_threadsafe(queue.put((is_item, value)), loop).result()

    source: list[Iterator[T]] = []

    def body() -> None:
        failure: BaseException | None = None
        try:
            source.append(make())
            for item in source[0]:
                put(True, item)
                if given_up.is_set():
                    break
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):
            put(False, failure)

    threading.Thread(target=body, name="dockp.aio", daemon=True).start()
    try:
        while True:
            is_item, value = await queue.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        given_up.set()
        while not queue.empty():
            queue.get_nowait()
        close = getattr(source[0], "close", None) if source else None
        if close is not None:
            with contextlib.suppress(ValueError):  # it is running: the thread ends it
                await asyncio.to_thread(close)


class LocalStream:
    """A stream of `dockp.interface` in a loop. Meets `dockp.aio.interface.Stream`."""

    def __init__(self, stream: interface.Stream) -> None:
        self._stream = stream
        # The descriptor is a socket's; non-blocking it tells by BlockingIOError when there is nothing.
        with socket.socket(fileno=socket.dup(stream.fileno())) as same:
            same.setblocking(False)

    async def recv(self, size: int = _PIECE) -> bytes:
        while True:
            try:
                return self._stream.recv(size)
            except BlockingIOError:
                await self._ready(asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._stream.send(bytes(view[:_PIECE])) :]
            except BlockingIOError:
                await self._ready(asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer)

    async def close_stdin(self) -> None:
        self._stream.close_stdin()

    async def wait_end(self) -> str:
        return await in_thread(self._stream.wait_end)

    async def close(self) -> None:
        self._stream.close()

    async def _ready(self, watch: Callable[..., Any], unwatch: Callable[[int], Any]) -> None:
        ready = asyncio.get_running_loop().create_future()
        descriptor = self._stream.fileno()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        watch(descriptor, tell)
        try:
            await ready
        finally:
            unwatch(descriptor)


class _Noun:
    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name

    def _bound(self, verb: str) -> Any:
        return getattr(self._engine.noun(self._name), verb)


def _verb(verb: Callable[Concatenate[N, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The method that has ``verb`` done in a thread."""
    name = verb.__name__

    async def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> T:
        progress: Any = named.get("progress")
        if progress is not None:
            named["progress"] = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, progress)
        return await in_thread(lambda: noun._bound(name)(*args, **named))

    return method


def _items(verb: Callable[Concatenate[N, P], Iterator[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    name = verb.__name__

    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> AsyncIterator[T]:
        return iterate(lambda: noun._bound(name)(*args, **named))

    return method


def _file(verb: Callable[Concatenate[N, P], Any]) -> Callable[Concatenate[Any, P], AsyncIterator[bytes]]:
    name = verb.__name__

    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> AsyncIterator[bytes]:
        def pieces() -> Iterator[bytes]:
            found = noun._bound(name)(*args, **named)
            with contextlib.closing(found[0] if isinstance(found, tuple) else found) as file:
                while piece := file.read(_PIECE):
                    yield piece

        return iterate(pieces)

    return method


class Containers(_Noun):
    create = _verb(interface.Containers.create)
    start = _verb(interface.Containers.start)
    run = run
    resize = _verb(interface.Containers.resize)
    wait = _verb(interface.Containers.wait)
    stop = _verb(interface.Containers.stop)
    restart = _verb(interface.Containers.restart)
    kill = _verb(interface.Containers.kill)
    pause = _verb(interface.Containers.pause)
    unpause = _verb(interface.Containers.unpause)
    remove = _verb(interface.Containers.remove)
    rename = _verb(interface.Containers.rename)
    inspect = _verb(interface.Containers.inspect)
    list = _verb(interface.Containers.list)
    top = _verb(interface.Containers.top)
    exec_create = _verb(interface.Containers.exec_create)
    exec_inspect = _verb(interface.Containers.exec_inspect)
    exec_wait = _verb(interface.Containers.exec_wait)
    exec_resize = _verb(interface.Containers.exec_resize)
    logs = _items(interface.Containers.logs)
    stats = _items(interface.Containers.stats)
    changes = _verb(interface.Containers.changes)
    export = _file(interface.Containers.export)
    archive_stat = _verb(interface.Containers.archive_stat)
    archive_get = _file(interface.Containers.archive_get)
    archive_put = _verb(interface.Containers.archive_put)
    commit = _verb(interface.Containers.commit)
    update = _verb(interface.Containers.update)
    prune = _verb(interface.Containers.prune)

    async def begin_wait(self, ref: str, condition: str = "not-running") -> Pending:
        end = await in_thread(lambda: self._bound("begin_wait")(ref, condition))

        async def pending() -> WaitResult:
            result: WaitResult = await in_thread(end)
            return result

        return pending

    async def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, detach_keys: str = "", logs: bool = False
    ) -> Stream:
        wanted = {"stdin": stdin, "stdout": stdout, "stderr": stderr, "detach_keys": detach_keys, "logs": logs}
        return LocalStream(await in_thread(lambda: self._bound("attach")(ref, **wanted)))

    async def exec_start(self, exec_id: str, *, detach: bool = False, tty: bool | None = None) -> Stream | None:
        stream = await in_thread(lambda: self._bound("exec_start")(exec_id, detach=detach, tty=tty))
        return None if stream is None else LocalStream(stream)


class Images(_Noun):
    list = _verb(interface.Images.list)
    inspect = _verb(interface.Images.inspect)
    history = _verb(interface.Images.history)
    tag = _verb(interface.Images.tag)
    remove = _verb(interface.Images.remove)
    import_ = _verb(interface.Images.import_)
    pull = _verb(interface.Images.pull)
    save = _file(interface.Images.save)
    load = _verb(interface.Images.load)
    push = _verb(interface.Images.push)
    search = _verb(interface.Images.search)
    distribution = _verb(interface.Images.distribution)
    prune = _verb(interface.Images.prune)


class Volumes(_Noun):
    create = _verb(interface.Volumes.create)
    list = _verb(interface.Volumes.list)
    inspect = _verb(interface.Volumes.inspect)
    remove = _verb(interface.Volumes.remove)
    prune = _verb(interface.Volumes.prune)


class Networks(_Noun):
    list = _verb(interface.Networks.list)
    inspect = _verb(interface.Networks.inspect)


class System(_Noun):
    info = _verb(interface.System.info)
    version = _verb(interface.System.version)
    events = _items(interface.System.events)
    disk_usage = _verb(interface.System.disk_usage)
    login = _verb(interface.System.login)
    plugins = _verb(interface.System.plugins)
    problems = _verb(interface.System.problems)
