"""`RemoteEngine`: carries the verbs out over blocking sockets. May be used from many threads."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Concatenate, ParamSpec, TypeVar

from dockp.containers.running import run
from dockp.interface import Created, Document, Progress, WaitResult
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
from dockp.remote.endpoint import Endpoint
from dockp.remote.errors import error_of
from dockp.remote.links import Link, bridge
from dockp.remote.stream import RemoteStream
from dockp.spi.errors import DockpError

if TYPE_CHECKING:
    from typing import Self

    from dockp.containers.model import CreateRequest
    from dockp.spi.images import Credentials
    from dockp.spi.logs import LogEntry

P = ParamSpec("P")
T = TypeVar("T")

_IDLE = 8
"""Connections kept open for the next call."""


class RemoteEngine:
    """An engine behind a socket. Meets `dockp.interface.Engine`. Nothing is sent before the first call."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        endpoint.address  # noqa: B018 - a host that is none is refused here
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._version = read_version(endpoint.api_version) if endpoint.api_version else None
        self.containers = Containers(self)
        self.images = Images(self)
        self.volumes = Volumes(self)
        self.networks = Networks(self)
        self.system = System(self)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def version(self) -> tuple[int, int]:
        """The API version in use: the newest that both sides know, unless the endpoint names one.

        Raises: Unavailable when nobody answers; InvalidArgument when the server is too old.
        """
        if self._version is None:
            self._version = agreed(self.call(verbs.ping()))
        return self._version

    def call(self, call: Call[T]) -> T:
        """Ask and read the whole answer. Raises: what the engine raises, and Unavailable when it cannot be reached."""
        return self.begin(call)()

    def begin(self, call: Call[T]) -> Callable[[], T]:
        """Ask and read the headers; the function waits for the rest."""
        link, answer = self._ask(call)

        def end() -> T:
            with _closed_on_failure(link):
                body = link.read_all()
            self._give_back(link)
            return call.read(Answer(status=answer.status, headers=answer.headers, body=body))

        return end

    def items(self, request: Items[T]) -> Iterator[T]:
        """Ask at once, and give item by item. The iterator's ``close``, by any thread, ends it."""
        link, answer = self._ask(request)
        return _Items(link, request.decoder(answer))

    def download(self, request: Download[T]) -> tuple[BinaryIO, T]:
        link, answer = self._ask(request)
        about = request.about(answer)
        return io.BufferedReader(_Body(link), 1 << 16), about

    def work(self, request: Work[T]) -> T:
        link, answer = self._ask(request)
        said: list[Any] = []
        for message in _Items(link, JsonLines(answer)):
            request.hear(message, said)
        return request.result(said)

    def hijack(self, request: Hijack) -> RemoteStream:
        version = self.version
        tty = request.tty
        link = Link(self.endpoint)
        try:
            answer = link.hijack(request, version)
            if answer.status not in (101, 200):
                raise _refusal(link, answer, request)
            if request.detach_keys and tty is None:
                tty = request.told_tty(answer, version)
            if request.detach_keys and tty is None and request.ask_tty is not None:
                tty = self.call(request.ask_tty)
        except BaseException:
            link.close()
            raise
        keys = request.detach_keys if tty else b""
        if self.endpoint.tls is not None:
            return RemoteStream(bridge(link), keys)
        return RemoteStream(link.socket, keys, link.rest)

    def _ask(self, request: Request) -> tuple[Link, Answer]:
        version = NEWEST if request.timeless else self.version
        link = self._take()
        with _closed_on_failure(link):
            answer = link.ask(request, version)
            error = _refusal(link, answer, request) if answer.status >= 300 else None
        if error is not None:
            self._give_back(link)
            raise error
        return link, answer

    def _take(self) -> Link:
        while True:
            with self._lock:
                link = self._idle.pop() if self._idle else None
            if link is None:
                return Link(self.endpoint)
            if link.usable():
                return link
            link.close()

    def _give_back(self, link: Link) -> None:
        if link.again():
            with self._lock:
                if len(self._idle) < _IDLE:
                    self._idle.append(link)
                    return
        link.close()


@contextlib.contextmanager
def _closed_on_failure(link: Link) -> Iterator[None]:
    try:
        yield
    except BaseException:
        link.close()
        raise


def _refusal(link: Link, answer: Answer, request: Request) -> DockpError:
    return error_of(answer.status, answer.headers, link.read_all(), starting=request.starting)


class _Items(Iterator[T]):
    """A stream of items. `close` may be called by another thread, which a generator would not allow."""

    def __init__(self, link: Link, decoder: Decoder[T]) -> None:
        self._link = link
        self._decoder = decoder
        self._closed = False
        self._items = self._read()

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        self._closed = True
        self._link.close()

    def __del__(self) -> None:
        self.close()

    def _read(self) -> Iterator[T]:
        try:
            while piece := self._link.read():
                yield from self._decoder.feed(piece)
            yield from self._decoder.end()
        except (DockpError, OSError):
            if not self._closed:
                raise
        finally:
            self._link.close()


class _Body(io.RawIOBase):
    """An answer's body as a file."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # The end is read once: whoever reads in pieces asks again, and the link would wait for more.
        if not self._left and not self._ended:
            self._left = self._link.read()
            self._ended = not self._left
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._link.close()
        super().close()


class _Noun:
    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine


def _verb(describe: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """The method that asks what ``describe`` describes."""

    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> T:
        return noun._engine.call(describe(*args, **named))

    return method


def _stream(describe: Callable[P, Items[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> Iterator[T]:
        return noun._engine.items(describe(*args, **named))

    return method


def _file(describe: Callable[P, Download[None]]) -> Callable[Concatenate[Any, P], BinaryIO]:
    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> BinaryIO:
        return noun._engine.download(describe(*args, **named))[0]

    return method


def _work(describe: Callable[P, Work[T]]) -> Callable[Concatenate[Any, P], T]:
    def method(noun: _Noun, /, *args: P.args, **named: P.kwargs) -> T:
        return noun._engine.work(describe(*args, **named))

    return method


class Containers(_Noun):
    start = _verb(verbs.start)
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
    archive_put = _verb(verbs.archive_put)
    commit = _verb(verbs.commit)
    update = _verb(verbs.update)
    prune = _verb(verbs.prune_containers)
    run = run

    def __init__(self, engine: RemoteEngine) -> None:
        super().__init__(engine)
        self._exec_keys: dict[str, str] = {}

    def create(self, request: CreateRequest) -> Created:
        if request.host.storage_driver:
            verbs.check_own(self._engine.call(verbs.version()), "choosing a storage driver")
        return self._engine.call(verbs.create(request))

    def begin_wait(self, ref: str, condition: str = "not-running") -> Callable[[], WaitResult]:
        return self._engine.begin(verbs.wait(ref, condition))

    def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, detach_keys: str = "", logs: bool = False
    ) -> RemoteStream:
        return self._engine.hijack(
            verbs.attach(ref, stdin=stdin, stdout=stdout, stderr=stderr, detach_keys=detach_keys, logs=logs)
        )

    def archive_get(self, ref: str, path: str) -> tuple[BinaryIO, Document]:
        return self._engine.download(verbs.archive_get(ref, path))

    def logs(
        self,
        ref: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
    ) -> Iterator[LogEntry]:
        tty = self._engine.call(verbs.has_terminal(ref))
        return self._engine.items(
            verbs.logs(ref, stdout=stdout, stderr=stderr, follow=follow, since=since, until=until, tail=tail, tty=tty)
        )

    def exec_create(self, ref: str, config: Any) -> str:
        id = self._engine.call(verbs.exec_create(ref, config))
        if config.detach_keys:
            self._exec_keys[id] = config.detach_keys
        return id

    def exec_start(self, exec_id: str, *, detach: bool = False, tty: bool | None = None) -> RemoteStream | None:
        keys = self._exec_keys.pop(exec_id, "")
        if tty is None:
            tty = bool((self.exec_inspect(exec_id).get("ProcessConfig") or {}).get("tty"))
        if detach:
            self._engine.call(verbs.exec_detached(exec_id, tty=tty))
            return None
        return self._engine.hijack(verbs.exec_attached(exec_id, tty=tty, keys=keys))

    def exec_wait(self, exec_id: str) -> int:
        pause = 0.005
        while (document := self.exec_inspect(exec_id)).get("Running"):
            time.sleep(pause)
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

    def pull(
        self,
        reference: str,
        *,
        tag: str = "",
        platform: str = "",
        all_tags: bool = False,
        credentials: Credentials | None = None,
        progress: Progress | None = None,
    ) -> str:
        name, id = self._engine.work(
            verbs.pull(
                reference,
                tag=tag,
                platform=platform,
                all_tags=all_tags,
                credentials=credentials,
                progress=progress,
            )
        )
        return id or str(self.inspect(name)["Id"])


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
