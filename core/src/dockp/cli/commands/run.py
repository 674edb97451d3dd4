"""``run`` and ``create``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import attrs

from dockp.cli.app import App, Failure, warn
from dockp.cli.command import Command
from dockp.cli.create_flags import COMMON, RUN_ONLY
from dockp.cli.create_request import build
from dockp.cli.flags import Values
from dockp.cli.session import check_terminal, pump, signals_sent_to, window_size
from dockp.interface import START_FAILURE_CODES
from dockp.spi.errors import DockpError, NotFound, StartFailure

if TYPE_CHECKING:
    from dockp.containers.model import CreateRequest
    from dockp.interface import Engine, WaitResult

_PULL = ("always", "missing", "never", "")


def _failure(error: object, command: str, code: int = 125) -> Failure:
    return Failure(f"dockp: {error}\n\nRun 'dockp {command} --help' for more information", code)


def _request(app: App, values: Values, command: str) -> CreateRequest:
    """The request, with the drivers that the global flags name; or the complaint about it with exit code 125."""
    try:
        if values["pull"] not in _PULL:
            raise ValueError(
                f'invalid pull option: \'{values["pull"]}\': must be one of "always", "missing" or "never"'
            )
        request = build(values)
    except (ValueError, DockpError) as error:
        raise _failure(error, command) from None
    host = attrs.evolve(
        request.host,
        storage_driver=str(app.flags.get("storage_driver") or request.host.storage_driver),
        runtime=request.host.runtime or str(app.flags.get("exec_driver") or ""),
    )
    return attrs.evolve(request, host=host)


@contextlib.contextmanager
def _cid_file(path: str) -> Iterator[Callable[[str], None]]:
    """Gives a function that writes the id. The file must be new, and goes again when no id was written."""
    if not path:
        yield lambda id: None
        return
    try:
        file = open(path, "x")  # noqa: SIM115 - closed below, and removed when it stays empty
    except FileExistsError:
        raise Failure(
            f"container ID file found, make sure the other container isn't running or delete {path}", 125
        ) from None
    except OSError as error:
        raise Failure(f"failed to create the container ID file: {path}: {error.strerror}", 125) from None
    written = False

    def write(id: str) -> None:
        nonlocal written
        file.write(id)
        file.flush()
        written = True

    try:
        yield write
    finally:
        file.close()
        if not written:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _create(app: App, request: CreateRequest, values: Values) -> str:
    """Create the container, pulling its image when asked for or missing. Returns the id."""
    engine, image = app.engine, request.config.image

    def fetch() -> str:
        from dockp.cli.pulling import pull

        return pull(app, image, sys.stderr, platform=values["platform"], quiet=values["quiet"])

    with _cid_file(request.host.container_id_file) as write_id:
        if values["pull"] == "always":
            fetch()
        try:
            created = engine.containers.create(request)
        except NotFound as error:
            if values["pull"] != "missing" or not _lacks_image(error):
                raise
            if not values["quiet"]:
                warn(f"Unable to find image '{_with_tag(image)}' locally")
            id = fetch()
            # The pulled image may bear another name, as one made from an archive does.
            config = attrs.evolve(request.config, image=image if _is_there(engine, image) else id)
            created = engine.containers.create(attrs.evolve(request, config=config))
        for warning in created.warnings:
            warn(f"WARNING: {warning}")
        write_id(created.id)
    return created.id


def _lacks_image(error: NotFound) -> bool:
    return "No such image" in str(error) or "does not match the specified platform" in str(error)


def _is_there(engine: Engine, image: str) -> bool:
    try:
        engine.images.inspect(image)
    except DockpError:
        return False
    return True


def _with_tag(image: str) -> str:
    from dockp.images.reference import parse

    try:
        return parse(image).with_default_tag().familiar
    except DockpError:
        return image


def create(app: App, values: Values) -> None:
    request = _request(app, values, "create")
    print(_create(app, request, values))


def run(app: App, values: Values) -> int:
    request = _request(app, values, "run")
    if values["detach"]:
        if values["attach"]:
            raise Failure("conflicting options: cannot specify both --attach and --detach")
        config = attrs.evolve(
            request.config, attach_stdin=False, attach_stdout=False, attach_stderr=False, stdin_once=False
        )
        request = attrs.evolve(request, config=config)
    config = request.config
    check_terminal(config.attach_stdin, config.tty)
    if config.tty:
        request = attrs.evolve(request, host=attrs.evolve(request.host, console_size=window_size()))
    try:
        id = _create(app, request, values)
    except DockpError as error:
        raise _failure(error, "run") from None
    return _run_created(app.engine, id, request, values)


def _run_created(engine: Engine, id: str, request: CreateRequest, values: Values) -> int:
    config, containers = request.config, engine.containers
    attached = config.attach_stdin or config.attach_stdout or config.attach_stderr
    if not attached:
        print(id, flush=True)
        with _start_failures():
            containers.start(id)
        return 0
    with (
        _discarded_unless_started(engine, id, request) as started,
        signals_sent_to(lambda name: containers.kill(id, name), values["sig-proxy"]),
    ):
        with _start_failures():
            stream = containers.attach(
                id,
                stdin=config.attach_stdin,
                stdout=config.attach_stdout,
                stderr=config.attach_stderr,
                detach_keys=values["detach-keys"],
            )
        with contextlib.closing(stream):
            with _start_failures():
                # The waiting begins before the start: a short-lived container may be gone right after it.
                condition = "removed" if request.host.auto_remove else "next-exit"
                end = containers.begin_wait(id, condition)
                containers.start(id)
            started()
            code = _exit_code(end, restarted=request.host.restart_policy.name not in ("", "no"))
            ended = pump(
                stream,
                tty=config.tty,
                stdin=config.attach_stdin,
                stdout=config.attach_stdout,
                stderr=config.attach_stderr,
                resize=lambda rows, columns: containers.resize(id, rows, columns),
            )
        return 0 if ended == "detach" else code()


@contextlib.contextmanager
def _discarded_unless_started(engine: Engine, id: str, request: CreateRequest) -> Iterator[Callable[[], None]]:
    """Remove a ``--rm`` container that never started, also after Ctrl-C. Gives the function that says it started."""
    has_started = False

    def started() -> None:
        nonlocal has_started
        has_started = True

    try:
        yield started
    finally:
        if request.host.auto_remove and not has_started:
            with contextlib.suppress(DockpError):
                engine.containers.remove(id, force=True, volumes=True)


@contextlib.contextmanager
def _start_failures() -> Iterator[None]:
    """Give a failure to start the exit code of its kind. Attaching is part of the start: it may set up what runs."""
    try:
        yield
    except StartFailure as error:
        raise _failure(error, "run", START_FAILURE_CODES.get(error.kind, 125)) from None
    except DockpError as error:
        raise _failure(error, "run") from None


def _exit_code(end: Callable[[], WaitResult], *, restarted: bool) -> Callable[[], int]:
    """A function that waits for the end and returns the exit code. To be called right after the start."""

    def code() -> int:
        try:
            result = end()
        except DockpError as error:
            warn(f"Error waiting for container: {error}")
            return 125
        if result.error:
            warn(f"Error waiting for container: {result.error}")
            return 125
        return result.exit_code

    if not restarted:
        return code
    # A container that is restarted may run for ever: what counts is its first exit, which may come before the output
    # ends here, so it is waited for from the start.
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1).submit(code).result


RUN_EXAMPLES = (
    "dockp run --rm -it debian:bookworm bash",
    "dockp run -d --name web -p 8080:80 nginx",
    "dockp run --rm --network none -v /srv/data:/data:ro busybox ls -l /data",
)
CREATE_EXAMPLES = (
    "dockp create --name job -e MODE=fast busybox env",
    "dockp create -m 256m --cpus 0.5 --mount type=tmpfs,dst=/tmp busybox true",
)
_USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"

RUN = Command(
    _USAGE,
    "Create and run a new container from an image",
    run,
    (*COMMON, *RUN_ONLY),
    args=(1, None),
    interspersed=False,
    aliases="dockp container run, dockp run",
    examples=RUN_EXAMPLES,
    names="image",
)
CREATE = Command(
    _USAGE,
    "Create a new container",
    create,
    COMMON,
    args=(1, None),
    interspersed=False,
    aliases="dockp container create, dockp create",
    examples=CREATE_EXAMPLES,
    names="image",
)
