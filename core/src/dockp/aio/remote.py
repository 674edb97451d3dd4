"""An engine behind a socket, by asyncio: no threads, but for streams over TLS.

The verbs are those of `dockp.remote.verbs`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from attrs import evolve

from dockp.aio.local import LocalStream
from dockp.aio.running import run
from dockp.interface import Created, Progress
from dockp.remote import verbs
from dockp.remote.calls import (
    NEWEST,
    Answer,
    Call,
    Decoder,
    Download,
    Hijack,
    Items,
    JsonLines,
    Request,
    Work,
    agreed,
    read_version,
)
from dockp.remote.detach import KeyWatch
from dockp.remote.endpoint import Endpoint
from dockp.remote.engine import RemoteEngine as BlockingEngine
from dockp.remote.errors import error_of
from dockp.remote.http import Conversation
from dockp.remote.links import ssh_command, tls_context, unreachable
from dockp.spi.errors import SystemFault, Unavailable

if TYPE_CHECKING:
    from dockp.aio.interface import Pending, Stream
    from dockp.containers.model import CreateRequest, ExecConfig
    from dockp.spi.images import Credentials
    from dockp.spi.logs import LogEntry

P = ParamSpec("P")
T = TypeVar("T")
_PIECE = 1 << 16
_IDLE = 8


class _Link:
    """One connection, and the conversation on it."""

    def __init__(
        self,
        endpoint: Endpoint,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        process: asyncio.subprocess.Process | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.reader, self.writer = reader, writer
        self._process = process
        self.conversation = Conversation(endpoint)

    @classmethod
    async def open(cls, endpoint: Endpoint) -> _Link:
        """Raises: Unavailable, InvalidArgument."""
        address = endpoint.address
        try:
            if address.scheme == "unix":
                return cls(endpoint, *await asyncio.open_unix_connection(address.path))
            if address.scheme == "ssh":
                pipe = asyncio.subprocess.PIPE
                process = await asyncio.create_subprocess_exec(
                    *ssh_command(endpoint, address), stdin=pipe, stdout=pipe, start_new_session=True
                )
                assert process.stdin is not None
                assert process.stdout is not None
                return cls(endpoint, process.stdout, process.stdin, process)
            context = None if endpoint.tls is None else tls_context(endpoint.tls)
            name = None if endpoint.tls is None else endpoint.tls.server_name or address.name
            connection = asyncio.open_connection(address.name, address.port, ssl=context, server_hostname=name)
            return cls(endpoint, *await connection)
        except OSError as error:
            raise unreachable(endpoint, error) from None

    async def ask(self, request: Request, version: tuple[int, int]) -> Answer:
        """Send a request, and give status and headers of its answer. Raises: Unavailable, SystemFault."""
        await self._send(self.conversation.head(request, version))
        if request.upload is not None:
            await self._upload(request)
        while (answer := self.conversation.answer()) is None:
            self.conversation.feed(await self._receive())
        return answer

    async def read(self) -> bytes:
        """A piece of the answer's body; b"" at its end."""
        while (piece := self.conversation.body()) is None:
            self.conversation.feed(await self._receive())
        return piece

    async def read_all(self) -> bytes:
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    def usable(self) -> bool:
        return not (self.reader.at_eof() or self.writer.is_closing() or self.reader.exception())

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        if self._process is not None:
            await self._process.wait()

    async def _receive(self) -> bytes:
        try:
            return await self.reader.read(_PIECE)
        except ConnectionError:
            return b""
        except OSError as error:
            raise SystemFault(f"error during connect: {self.endpoint.host}: {error}") from None

    async def _upload(self, request: Request) -> None:
        upload = request.upload
        assert upload is not None
        try:
            # Reading a file may wait for a disk or a pipe, and the loop must not.
            while piece := await asyncio.to_thread(upload.read, _PIECE):
                await self._send(self.conversation.upload(piece))
            await self._send(self.conversation.upload_end())
        except Unavailable:
            return  # the server takes no more: its answer says why

    async def _send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise Unavailable(f"error during connect: {self.endpoint.host}: {error}") from None


class RemoteStream:
    """Meets `dockp.aio.interface.Stream`."""

    def __init__(self, link: _Link, detach_keys: bytes) -> None:
        self._link = link
        self._rest = link.conversation.rest
        self._watch = KeyWatch(detach_keys) if detach_keys else None

    async def recv(self, size: int = _PIECE) -> bytes:
        if self._rest:
            piece, self._rest = self._rest[:size], self._rest[size:]
            return piece
        if self._watch is not None and self._watch.seen:
            return b""
        try:
            return await self._link.reader.read(size)
        except ConnectionResetError:
            return b""

    async def send(self, data: bytes) -> None:
        outgoing = data
        if self._watch is not None:
            outgoing = self._watch.offer(data)
            if not self._watch.seen:
                self._watch.sent(data, len(outgoing))
        self._link.writer.write(outgoing)
        await self._link.writer.drain()
        if self._watch is not None and self._watch.seen:
            self._link.writer.close()

    async def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._link.writer.write_eof()

    async def wait_end(self) -> str:
        return "detach" if self._watch is not None and self._watch.seen else "exit"

    async def close(self) -> None:
        await self._link.close()


class RemoteEngine:
    """Meets `dockp.aio.interface.Engine`. Belongs to one loop; any number of its calls may be under way."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        endpoint.address  # noqa: B018 - a host that is none is refused here
        self._idle: list[_Link] = []
        self._version = read_version(endpoint.api_version) if endpoint.api_version else None
        self.containers = Containers(self)
        self.images = Images(self)
        self.volumes = Volumes(self)
        self.networks = Networks(self)
        self.system = System(self)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def version(self) -> tuple[int, int]:
        """The API version in use, as `dockp.remote.engine.RemoteEngine.version`."""
        if self._version is None:
            self._version = agreed(await self.call(verbs.ping()))
        return self._version

    async def call(self, call: Call[T]) -> T:
        return await (await self.begin(call))()

    async def begin(self, call: Call[T]) -> Callable[[], Coroutine[Any, Any, T]]:
        link, answer = await self._ask(call)

        async def end() -> T:
            async with _closed_on_failure(link):
                body = await link.read_all()
            await self._give_back(link)
            return call.read(Answer(status=answer.status, headers=answer.headers, body=body))

        return end

    async def items(self, request: Items[T]) -> AsyncIterator[T]:
        link, answer = await self._ask(request)
        async for item in _items(link, request.decoder(answer)):
            yield item

    async def download(self, request: Download[Any]) -> AsyncIterator[bytes]:
        link, _ = await self._ask(request)
        try:
            while piece := await link.read():
                yield piece
        finally:
            await link.close()

    async def work(self, request: Work[T]) -> T:
        link, answer = await self._ask(request)
        said: list[Any] = []
        async for message in _items(link, JsonLines(answer)):
            request.hear(message, said)
        return request.result(said)

    async def hijack(self, request: Hijack) -> Stream:
        version, tty = await self.version(), request.tty
        if self.endpoint.tls is not None:
            # The end of input must be told, and asyncio's TLS cannot be closed one way: a thread pumps such a stream.
            known = evolve(self.endpoint, api_version=f"{version[0]}.{version[1]}")
            return LocalStream(await asyncio.to_thread(BlockingEngine(known).hijack, request))
        link = await _Link.open(self.endpoint)
        async with _closed_on_failure(link):
            answer = await link.ask(request, version)
            if answer.status not in (101, 200):
                raise error_of(answer.status, answer.headers, await link.read_all(), starting=request.starting)
            if request.detach_keys and tty is None:
                tty = request.told_tty(answer, version)
            if request.detach_keys and tty is None and request.ask_tty is not None:
                tty = await self.call(request.ask_tty)
        return RemoteStream(link, request.detach_keys if tty else b"")

    async def _ask(self, request: Request) -> tuple[_Link, Answer]:
        version = NEWEST if request.timeless else await self.version()
        link = await self._take()
        async with _closed_on_failure(link):
            answer = await link.ask(request, version)
            if answer.status < 300:
                return link, answer
            body = await link.read_all()
        await self._give_back(link)
        raise error_of(answer.status, answer.headers, body, starting=request.starting)

    async def _take(self) -> _Link:
        while self._idle:
            link = self._idle.pop()
            if link.usable():
                return link
            await link.close()
        return await _Link.open(self.endpoint)

    async def _give_back(self, link: _Link) -> None:
        if link.conversation.again() and len(self._idle) < _IDLE:
            self._idle.append(link)
        else:
            await link.close()


@contextlib.asynccontextmanager
async def _closed_on_failure(link: _Link) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        link.writer.close()  # without waiting: this may be a cancellation
        raise


async def _items(link: _Link, decoder: Decoder[T]) -> AsyncIterator[T]:
    try:
        while piece := await link.read():
            for item in decoder.feed(piece):
                yield item
        for item in decoder.end():
            yield item
    finally:
        await link.close()


class _Noun:
    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine


def _verb(describe: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    async def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> T:
        return await noun._engine.call(describe(*args, **named))

    return method


def _stream(describe: Callable[P, Items[T]]) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> AsyncIterator[T]:
        return noun._engine.items(describe(*args, **named))

    return method


def _file(describe: Callable[P, Download[Any]]) -> Callable[Concatenate[Any, P], AsyncIterator[bytes]]:
    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> AsyncIterator[bytes]:
        return noun._engine.download(describe(*args, **named))

    return method


def _work(describe: Callable[P, Work[T]]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    async def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> T:
        return await noun._engine.work(describe(*args, **named))

    return method


class Containers(_Noun):
    start = _verb(verbs.start)
    run = run
    resize = _verb(verbs.resize)
    wait = _verb(verbs.wait)
    stop = _verb(verbs.stop)
    restart = _verb(verbs.restart)
    kill = _verb(verbs.kill)
    pause = _verb(verbs.pause)
    unpause = _verb(verbs.unpause)
    remove = _verb(verbs.remove)
    rename = _verb(verbs.rename)
    inspect = _verb(verbs.inspect)
    list = _verb(verbs.list_containers)
    top = _verb(verbs.top)
    exec_inspect = _verb(verbs.exec_inspect)
    exec_resize = _verb(verbs.exec_resize)
    stats = _stream(verbs.stats)
    changes = _verb(verbs.changes)
    export = _file(verbs.export)
    archive_stat = _verb(verbs.archive_stat)
    archive_get = _file(verbs.archive_get)
    archive_put = _verb(verbs.archive_put)
    commit = _verb(verbs.commit)
    update = _verb(verbs.update)
    prune = _verb(verbs.prune_containers)

    def __init__(self, engine: RemoteEngine) -> None:
        super().__init__(engine)
        self._exec_keys: dict[str, str] = {}

    async def create(self, request: CreateRequest) -> Created:
        if request.host.storage_driver:
            verbs.check_own(await self._engine.call(verbs.version()), "choosing a storage driver")
        return await self._engine.call(verbs.create(request))

    async def begin_wait(self, ref: str, condition: str = "not-running") -> Pending:
        return await self._engine.begin(verbs.wait(ref, condition))

    async def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, detach_keys: str = "", logs: bool = False
    ) -> Stream:
        return await self._engine.hijack(
            verbs.attach(ref, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=detach_keys, logs=logs)
        )

    async def logs(
        self,
        ref: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
    ) -> AsyncIterator[LogEntry]:
        tty = await self._engine.call(verbs.has_terminal(ref))
        request = verbs.logs(
            ref, stdout=stdout, stderr=stderr, follow=follow, since=since, until=until, tail=tail, tty=tty
        )
        async for entry in self._engine.items(request):
            yield entry

    async def exec_create(self, ref: str, config: ExecConfig) -> str:
        id = await self._engine.call(verbs.exec_create(ref, config))
        if config.detach_keys:
            self._exec_keys[id] = config.detach_keys
        return id

    async def exec_start(self, exec_id: str, *, detach: bool = False, tty: bool | None = None) -> Stream | None:
        keys = self._exec_keys.pop(exec_id, "")
        if tty is None:
            tty = bool(((await self.exec_inspect(exec_id)).get("ProcessConfig") or {}).get("tty"))
        if detach:
            await self._engine.call(verbs.exec_detached(exec_id, tty=tty))
            return None
        return await self._engine.hijack(verbs.exec_attached(exec_id, tty=tty, keys=keys))

    async def exec_wait(self, exec_id: str) -> int:
        pause = 0.005
        while (document := await self.exec_inspect(exec_id)).get("Running"):
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)
        return int(document.get("ExitCode") or 0)


class Images(_Noun):
    list = _verb(verbs.list_images)
    inspect = _verb(verbs.inspect_image)
    history = _verb(verbs.history)
    tag = _verb(verbs.tag)
    remove = _verb(verbs.remove_image)
    import_ = _work(verbs.import_image)
    save = _file(verbs.save)
    load = _work(verbs.load)
    push = _work(verbs.push)
    search = _verb(verbs.search)
    distribution = _verb(verbs.distribution)
    prune = _verb(verbs.prune_images)

    async def pull(
        self,
        reference: str,
        *,
        tag: str = "",
        platform: str = "",
        all_tags: bool = False,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> str:
        name, id = await self._engine.work(
            verbs.pull(
                reference,
                tag=tag,
                platform=platform,
                all_tags=all_tags,
                credentials=credentials,
                progress=progress,
            )
        )
        return id or str((await self.inspect(name))["Id"])


class Volumes(_Noun):
    create = _verb(verbs.create_volume)
    list = _verb(verbs.list_volumes)
    inspect = _verb(verbs.inspect_volume)
    remove = _verb(verbs.remove_volume)
    prune = _verb(verbs.prune_volumes)


class Networks(_Noun):
    list = _verb(verbs.list_networks)
    inspect = _verb(verbs.inspect_network)


class System(_Noun):
    info = _verb(verbs.info)
    version = _verb(verbs.version)
    events = _stream(verbs.events)
    disk_usage = _verb(verbs.disk_usage)
    login = _verb(verbs.login)
    plugins = _verb(verbs.plugins)
    problems = _verb(verbs.problems)
