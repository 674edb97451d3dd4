"""The containers of an engine: `dockp.interface.Containers`, done in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import evolve

from dockp.containers import creation, describe, execs, launch, names, removal, running, settling, signals
from dockp.containers.context import Context
from dockp.containers.model import CreateRequest, ExecConfig
from dockp.containers.record import Container
from dockp.containers.states import State
from dockp.containers.telling import tell
from dockp.interface import Created, Document, Filters, Stream, Top, WaitResult
from dockp.keys import parse_detach_keys
from dockp.spi.errors import (
    AlreadyExists,
    Conflict,
    DockpError,
    InvalidArgument,
    NotFound,
    NotImplemented,
    NotModified,
    StartFailure,
    SystemFault,
    Unavailable,
)
from dockp.spi.logs import LogEntry, LogFeed
from dockp.spi.runtime import RuntimeFailure

if TYPE_CHECKING:
    from dockp.containers.model import Config, UpdateRequest
    from dockp.events.log import Follower
    from dockp.supervisor.client import ClientSocket, ShimClient

_LONGEST_LOOK = 5.0
"""Seconds after which waiting for an event looks whether one is missing."""

_DEATH = 10.0
"""Seconds that a killed container is waited for."""

_RUNNING = (State.RUNNING, State.PAUSED, State.RESTARTING)


class ContainerService:
    """See `dockp.interface.Containers` for what each verb promises."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # Life cycle

    def create(self, request: CreateRequest) -> Created:
        with _host_faults():
            return creation.create(self._context, request)

    def start(self, ref: str) -> None:
        with _asked_for(ref), _host_faults():
            launch.start(self._context, self._context.table.find(ref))

    def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        number = signals.number(signal) if signal else None
        container = self._find_settled(ref)
        if not container.active:
            raise NotModified(f"container {container.name} is already stopped")
        # It may end by itself, or by somebody else's command, at any moment: then it is as asked for.
        with contextlib.suppress(Conflict, NotModified), self._shim(container) as shim:
            shim.stop(number, timeout)
        self._settled(container)
        tell(self._context, container, "stop")

    def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        with contextlib.suppress(NotModified):
            self.stop(ref, timeout, signal)
        with contextlib.suppress(NotModified):  # somebody else was quicker
            self.start(ref)
        tell(self._context, self._context.table.find(ref), "restart")

    def kill(self, ref: str, signal: str = "KILL") -> None:
        number = signals.number(signal or "KILL")
        try:
            container = self._find_settled(ref)
        except NotFound as error:
            raise NotFound(f"cannot kill container: {ref}: {error}") from error
        if not container.active:
            raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
        with self._shim(container) as shim:
            shim.kill(number)
            if number == SIGKILL:
                # As Docker, which answers when it is over. A process in state D may take longer than anybody waits.
                with contextlib.suppress(Unavailable):
                    shim.wait(timeout=_DEATH)
        if number == SIGKILL:
            self._settled(container)

    def pause(self, ref: str) -> None:
        container = self._find_settled(ref)
        if container.task.state is State.PAUSED:
            raise Conflict(f"container {container.id} is already paused")
        if container.task.state is not State.RUNNING:
            raise Conflict(f"container {container.id} is not running")
        with self._shim(container) as shim:
            shim.pause()

    def unpause(self, ref: str) -> None:
        container = self._find_settled(ref)
        if container.task.state is not State.PAUSED:
            raise Conflict(f"Container {container.id} is not paused")
        with self._shim(container) as shim:
            shim.unpause()

    def wait(self, ref: str, condition: str = "not-running") -> WaitResult:
        return self.begin_wait(ref, condition)()

    def begin_wait(self, ref: str, condition: str = "not-running") -> Callable[[], WaitResult]:
        _check_condition(condition)
        container = self._find(ref)
        if self._context.watcher is not None:
            return self._context.watcher.begin_wait(container.id, condition)
        if not container.active and condition in ("", "not-running"):
            result = WaitResult(exit_code=container.task.exit_code)
            return lambda: result
        # The log tells of every end from here on, also of one that others have settled by the time it is asked for.
        follower = self._context.events.follower()
        return lambda: self._end_wait(container, follower, removed=condition == "removed")

    def _end_wait(self, container: Container, follower: Follower, *, removed: bool) -> WaitResult:
        """Wait for the removal, or for the next end, of which a removal is one too."""
        result, over = WaitResult(exit_code=container.task.exit_code, error=container.task.error), False
        with follower, contextlib.ExitStack() as stack:
            shim = self._claimed_shim(container.id, stack)
            while True:
                # Looked at before the events are read, so that the last of them is among them.
                now = self._context.table.peek(container.id)
                for event in follower.read():
                    if event["Actor"]["ID"] == container.id and event["Action"] == "die":
                        result, over = WaitResult(exit_code=int(event["Actor"]["Attributes"]["exitCode"])), True
                if now is None or (over and not removed):
                    self._settled(container)
                    return result
                if not over and shim is not None:
                    with contextlib.suppress(Unavailable):  # it was killed, and left no record
                        state = shim.wait("next-exit")
                        result, over = WaitResult(exit_code=state.exit_code or 0, error=state.error), True
                    shim = None
                    self._settled(container)
                else:
                    self._now(now)  # a shim that was killed tells of nothing
                    follower.wait(_LONGEST_LOOK)

    def _claimed_shim(self, container_id: str, stack: contextlib.ExitStack) -> ShimClient | None:
        """A connection to the shim, by which this process claims the end where it came with the start. Given back not
        before ``stack`` is closed: a claim that ends with this process makes the shim see to the rest."""
        shim = self._context.take_client(container_id)
        if shim is None:
            try:
                shim = self._context.supervisor.connect(container_id)
            except NotFound:
                return None
        stack.callback(shim.close)

        def release(client: ShimClient = shim) -> None:
            with contextlib.suppress(DockpError):
                client.release()

        stack.callback(release)
        return shim

    def when(self, ref: str, condition: str, callback: Callable[[WaitResult], object]) -> Callable[[], object]:
        """`wait` without a thread: calls back, from another one; cancel with what is returned. Raises: NotImplemented
        in a process that does not stay (`dockp.engine.local.LocalEngine.watch`)."""
        _check_condition(condition)
        if self._context.watcher is None:
            raise NotImplemented("nobody watches for the ends of containers in this process")
        return self._context.watcher.when(self._find(ref).id, condition, callback)

    def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        with _asked_for(ref):
            removal.remove(self._context, self._find(ref), force=force, volumes=volumes)

    def prune(self, filters: Filters | None = None) -> Document:
        from dockp.containers.prune import prune

        self.settle_all()
        return prune(self._context, self._context.table.all(), filters or {})

    def rename(self, ref: str, name: str) -> None:
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        container = self._context.table.find(ref)
        if container.name == name.removeprefix("/"):
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            bare = names.check(name)
        except InvalidArgument as error:
            raise InvalidArgument(f"Error when allocating new name: {error}") from None
        with self._context.exclusive(container.id), self._context.database.write() as connection:
            current = self._context.table.peek(container.id)
            if current is None:
                raise NotFound(f"No such container: {ref}")
            renamed = evolve(current, name=bare)
            try:
                self._context.table.save(connection, renamed)
            except AlreadyExists as error:
                raise AlreadyExists(f"Error when allocating new name: {error}") from None
            self._context.networks.rename(current.id, bare)
        if current.active:
            # One that ends meanwhile tells its end by the old name.
            with contextlib.suppress(DockpError), self._shim(current) as shim:
                shim.rename(bare)
        tell(self._context, renamed, "rename", oldName=f"/{current.name}")

    # Streams

    def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, detach_keys: str = "", logs: bool = False
    ) -> Stream:
        with self._attaching(ref, detach_keys) as (container, shim, keys):
            options: dict[str, Any] = {
                "stdin": stdin and container.request.config.open_stdin,
                "stdout": stdout,
                "stderr": stderr,
                "detach_keys": keys,
            }
            if logs and (stdout or stderr):
                from dockp.logs.lines import frame

                framed = not container.request.config.tty
                written = self.logs(container.id, stdout=stdout, stderr=stderr)
                stream = shim.attach_after((frame(entry, framed) for entry in written), framed, **options)
            else:
                stream = shim.attach(**options)
        if container.active:
            stream.owns_client = True
        return stream

    def attach_client(
        self,
        ref: str,
        client: ClientSocket,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        detach_keys: str = "",
        framing: str = "auto",
    ) -> None:
        """As `attach`, for a client of somebody else: from now on the shim talks to it, and nothing is left here.

        Args: framing: "raw", "stdcopy", or "auto" (frames unless there is a terminal).
        """
        with self._attaching(ref, detach_keys) as (container, shim, keys):
            shim.attach_fd(
                client.descriptor,
                stdin=stdin and container.request.config.open_stdin,
                stdout=stdout,
                stderr=stderr,
                detach_keys=keys,
                framing=framing,
                head=client.head,
                early=client.early,
            )
        if container.active:
            shim.close()

    @contextlib.contextmanager
    def _attaching(self, ref: str, detach_keys: str) -> Iterator[tuple[Container, ShimClient, bytes]]:
        """Container, connection to attach through, detach keys. Raises: Conflict, StartFailure, InvalidArgument."""
        container = self.attachable(ref)
        keys = parse_detach_keys(detach_keys)
        try:
            with _asked_for(ref), _host_faults():
                shim = launch.attach_point(self._context, container)
            tell(self._context, container, "attach")  # before whoever attached can go on and start it
            try:
                yield container, shim, keys if container.request.config.tty else b""
            except BaseException:
                if container.active:
                    shim.close()
                raise
        except RuntimeFailure as failure:
            raise StartFailure(str(failure), failure.kind) from failure
        if not container.active and self._context.watcher is None and launch.wants_reaper(container.request.host):
            # Whoever watches such a container from its start on also sees its end, and settles it.
            shim.claim()

    def attachable(self, ref: str) -> Container:
        """The container, which is in a state to be attached to. Raises: NotFound, Conflict."""
        container = self._find(ref)
        if container.task.state is State.PAUSED:
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.task.state is State.RESTARTING:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        return container

    def log_feed(
        self, ref: str, *, follow: bool = False, since: int = 0, until: int = 0, tail: int | None = None
    ) -> tuple[LogFeed, Callable[[], bool]]:
        """`logs` for somebody who follows many: what is there in steps, and whether more may come."""
        container = self._find(ref)
        log = container.request.host.log_config
        feed = self._context.log_driver(log.type).feed(
            self._context.log_path(container.id), log.config, since=since, until=until, tail=tail
        )

        def more() -> bool:
            current = self._context.table.peek(container.id)
            return current is not None and current.active and self._context.supervisor.alive(container.id)

        return feed, more if follow and container.active else _never

    def resize(self, ref: str, rows: int, columns: int) -> None:
        container = self._find(ref)
        if not container.active:
            raise Conflict(f"container {container.id} is not running")
        with self._shim(container) as shim:
            shim.resize(rows, columns)
        tell(self._context, container, "resize", height=str(rows), width=str(columns))

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
        if not (stdout or stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        container = self._find(ref)
        log = container.request.host.log_config
        driver = self._context.log_driver(log.type)
        wanted = {name for name, on in (("stdout", stdout), ("stderr", stderr)) if on}

        def more() -> bool:
            return self._context.supervisor.alive(container.id)

        entries = driver.read(
            self._context.log_path(container.id),
            log.config,
            follow=more if follow and container.active else None,
            since=since,
            until=until,
            tail=tail,
        )
        return (entry for entry in entries if entry.stream in wanted)

    # Looking

    def list(
        self, *, all: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None
    ) -> Sequence[Document]:
        given = {key: [*values] for key, values in (filters or {}).items()}
        describe.check_filters(given)
        self.settle_all()
        containers = settling.current(self._context)
        everything = all or limit > 0 or "status" in given or "exited" in given
        rows = []
        for container in containers:
            if not everything and container.task.state not in _RUNNING:
                continue
            if describe.matches(self._context, container, given):
                rows.append(describe.summary(self._context, container, size=size))
                if limit and len(rows) == limit:
                    break
        return rows

    def inspect(self, ref: str, *, size: bool = False) -> Document:
        return describe.inspect(self._context, self._find(ref), size=size)

    def top(self, ref: str, ps_args: str = "") -> Top:
        from dockp.containers.top import top

        container = self._find(ref)
        if container.task.state is State.RESTARTING:
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        if not container.active:
            raise Conflict(f"container {container.id} is not running")
        with self._shim(container) as shim:
            pids = set(shim.processes())
        tell(self._context, container, "top")
        return top(pids, ps_args or "-ef")

    # Counters, files, changes

    def stats(self, ref: str, *, stream: bool = True, one_shot: bool = False) -> Iterator[Document]:
        from dockp.containers.stats import stats

        return stats(self._context, self._find(ref), stream=stream, one_shot=one_shot)

    def changes(self, ref: str) -> Sequence[Document]:
        from dockp.containers.changes import changes

        with self._files_of(ref):
            return changes(self._context, self._find(ref))

    def export(self, ref: str) -> BinaryIO:
        from dockp.containers.export import export

        with self._files_of(ref):
            return export(self._context, self._find(ref))

    def archive_stat(self, ref: str, path: str) -> Document:
        from dockp.containers.copying import archive_stat

        with self._files_of(ref):
            return archive_stat(self._context, self._find(ref), path)

    def archive_get(self, ref: str, path: str) -> tuple[BinaryIO, Document]:
        from dockp.containers.copying import archive_get

        with self._files_of(ref):
            return archive_get(self._context, self._find(ref), path)

    def archive_put(
        self,
        ref: str,
        path: str,
        source: BinaryIO,
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        from dockp.containers.copying import archive_put

        with self._files_of(ref):
            archive_put(
                self._context,
                self._find(ref),
                path,
                source,
                no_overwrite_dir_non_dir=no_overwrite_dir_non_dir,
                copy_uid_gid=copy_uid_gid,
            )

    def commit(
        self,
        ref: str,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        config: Config | None = None,
    ) -> str:
        from dockp.containers.commit import commit

        with self._files_of(ref):
            return commit(
                self._context,
                self._find(ref),
                reference=f"{repository}:{tag}" if repository and tag else repository,
                message=message,
                author=author,
                changes=changes,
                pause=pause,
                config=config,
            )

    def update(self, ref: str, request: UpdateRequest) -> Sequence[str]:
        from dockp.containers.updating import update

        with _asked_for(ref), _host_faults():
            return update(self._context, self._find(ref), request)

    # Further processes

    def exec_create(self, ref: str, config: ExecConfig) -> str:
        return execs.create(self._context, self._find(ref), config)

    def exec_start(self, exec_id: str, *, detach: bool = False, tty: bool | None = None) -> Stream | None:
        container_id, document = self._context.table.get_exec(exec_id)
        return execs.start(self._context, self._find(container_id), exec_id, document, detach=detach, tty=tty)

    def exec_start_client(
        self, exec_id: str, client: ClientSocket, framing: str = "auto", console_size: tuple[int, int] | None = None
    ) -> None:
        """As `exec_start`, for a client of somebody else, see `attach_client`.

        Args: framing: see `attach_client`. console_size: rows and columns, other than what `exec_create` was told.
        """
        container_id, document = self._context.table.get_exec(exec_id)
        container = self._find(container_id)
        execs.start(
            self._context,
            container,
            exec_id,
            document,
            detach=False,
            tty=None,
            client_socket=client,
            framing=framing,
            console_size=console_size,
        )

    def exec_inspect(self, exec_id: str) -> Document:
        return execs.inspect(self._context, exec_id)

    def exec_wait(self, exec_id: str) -> int:
        return execs.wait(self._context, exec_id)

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        container_id, _ = self._context.table.get_exec(exec_id)
        with self._shim(self._find(container_id)) as shim:
            shim.resize(rows, columns, exec_id)

    # For programs

    run = running.run

    # For the engine itself

    def settle_all(self) -> None:
        """Take every exit record that is waiting."""
        for container in self._context.table.all(active_only=True):
            self._now(container)
        settling.clear_strays(self._context)

    def settle_one(self, container_id: str) -> None:
        """Take one container's exit record, if it ended."""
        with contextlib.suppress(NotFound), self._context.exclusive(container_id):
            settling.settle(self._context, container_id)

    # Inside

    def _find(self, ref: str) -> Container:
        with _asked_for(ref):
            return settling.refresh(self._context, self._context.table.find(ref))

    def _find_settled(self, ref: str) -> Container:
        """As `_find`; while somebody else starts it, waits for the outcome."""
        container = self._find(ref)
        if container.active and container.task.state is State.CREATED:
            with _asked_for(ref), self._context.exclusive(container.id):
                container = settling.settle(self._context, container.id)
        return container

    def _now(self, container: Container) -> Container | None:
        try:
            return settling.refresh(self._context, container)
        except NotFound:
            return None

    def _settled(self, container: Container) -> None:
        with contextlib.suppress(NotFound):
            settling.refresh(self._context, evolve(container, active=True))

    @contextlib.contextmanager
    def _files_of(self, ref: str) -> Iterator[None]:
        """Its files may go while they are read. Raises: NotFound, Conflict when it was, or is, removed meanwhile."""
        try:
            with _asked_for(ref), _host_faults():
                yield
        except SystemFault as error:
            if (container := self._find(ref)).task.state is State.REMOVING:
                raise Conflict(f"container {container.id} is being removed") from error
            raise

    @contextlib.contextmanager
    def _shim(self, container: Container) -> Iterator[ShimClient]:
        """A connection to the shim. Raises: Conflict when the container has ended meanwhile."""
        try:
            with contextlib.closing(self._context.supervisor.connect(container.id)) as shim:
                yield shim
        except RuntimeFailure as failure:
            raise Unavailable(f"container {container.name}: {failure}") from failure
        except (NotFound, Unavailable) as error:
            if self._context.supervisor.alive(container.id):
                raise
            raise Conflict(f"container {container.id} is not running") from error


def _never() -> bool:
    return False


def _check_condition(condition: str) -> None:
    if condition not in ("", "not-running", "next-exit", "removed"):
        raise InvalidArgument(f'invalid condition: "{condition}"')


@contextlib.contextmanager
def _asked_for(ref: str) -> Iterator[None]:
    """Let a container that vanished meanwhile be missed by the name that the caller knows."""
    try:
        yield
    except settling.Vanished as error:
        raise NotFound(f"No such container: {ref}") from error


@contextlib.contextmanager
def _host_faults() -> Iterator[None]:
    """What the host refuses (no space, no permission) becomes one line."""
    try:
        yield
    except OSError as error:
        raise SystemFault(f"{(error.strerror or str(error)).lower()}: {error.filename or ''}".rstrip(": ")) from error
