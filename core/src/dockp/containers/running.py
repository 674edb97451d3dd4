"""Running a command to its end, in one call: `run` of every engine's containers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Concatenate, ParamSpec

from attrs import evolve, frozen

from dockp.containers.model import Config, CreateRequest, HostConfig, MountPoint, PortBinding
from dockp.interface import Containers, RunResult, Stream
from dockp.jsonmodel import from_json
from dockp.spi.errors import DockpError

P = ParamSpec("P")


@frozen(kw_only=True)
class Job:
    """A container to run. ``stdin`` is all of its input; with ``detach`` nobody waits for it."""

    request: CreateRequest
    stdin: bytes | None
    detach: bool

    @property
    def removed(self) -> bool:
        return self.request.host.auto_remove


def describe(
    image: str,
    command: Sequence[str] | str | None = None,
    *,
    name: str = "",
    environment: Mapping[str, str] | None = None,
    entrypoint: Sequence[str] | None = None,
    user: str = "",
    working_dir: str = "",
    network: str = "",
    ports: Mapping[str, int | str] | None = None,
    volumes: Sequence[str] = (),
    mounts: Sequence[MountPoint] = (),
    labels: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    detach: bool = False,
    remove: bool | None = None,
    host: HostConfig | None = None,
) -> Job:
    """Run a command in a new container and give back what it wrote and how it ended.

    Args:
        command: words, or one line for ``/bin/sh -c``; None for the image's own.
        ports: container port (``"80/tcp"``) to host port. volumes: as for ``-v``.
        stdin: bytes for its standard input. detach: return as soon as it runs; ``stdout`` is empty then.
        remove: take the container away afterwards; by default yes, unless detached.
        host: anything else, as Docker's host configuration; the arguments above are put into it.
    Raises: NotFound, StartFailure and what `create` raises.
    """
    from dockp.networks.ports import parse_publish

    exposed, bindings = parse_publish([f"{outside}:{inside}" for inside, outside in (ports or {}).items()])
    base = host or HostConfig()
    words = ("/bin/sh", "-c", command) if isinstance(command, str) else None if command is None else tuple(command)
    published = {port: tuple(from_json(PortBinding, item) for item in items) for port, items in bindings.items()}
    request = CreateRequest(
        name=name,
        config=Config(
            image=image,
            cmd=words,
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            env=tuple(f"{key}={value}" for key, value in (environment or {}).items()),
            user=user,
            working_dir=working_dir,
            labels=dict(labels or {}),
            exposed_ports={port: {} for port in exposed},
            open_stdin=stdin is not None,
            stdin_once=stdin is not None,
            attach_stdin=stdin is not None,
            attach_stdout=not detach,
            attach_stderr=not detach,
        ),
        host=evolve(
            base,
            network_mode=network or base.network_mode,
            binds=(*base.binds, *volumes),
            mounts=(*base.mounts, *mounts),
            port_bindings={**base.port_bindings, **published},
            auto_remove=(not detach) if remove is None else remove,
        ),
    )
    return Job(request=request, stdin=stdin, detach=detach)


def _of(describe: Callable[P, Job]) -> Callable[Concatenate[Containers, P], RunResult]:
    def run(containers: Containers, /, *args: P.args, **named: P.kwargs) -> RunResult:
        return carry_out(containers, describe(*args, **named))

    run.__doc__ = describe.__doc__
    return run


run = _of(describe)


def carry_out(containers: Containers, job: Job) -> RunResult:
    """Create, start, collect, wait. A container that was to be removed does not stay, whatever happens."""
    created = containers.create(job.request)
    try:
        if job.detach:
            containers.start(created.id)
            return RunResult(id=created.id, exit_code=0, warnings=created.warnings)
        stream = containers.attach(created.id, stdin=job.stdin is not None, stdout=True, stderr=True)
        with contextlib.closing(stream):
            end = containers.begin_wait(created.id, "removed" if job.removed else "next-exit")
            containers.start(created.id)
            out, err = _collect(stream, job.stdin)
        ended = end()
    except BaseException:
        if job.removed:
            with contextlib.suppress(DockpError):
                containers.remove(created.id, force=True, volumes=True)
        raise
    return RunResult(id=created.id, exit_code=ended.exit_code, stdout=out, stderr=err, warnings=created.warnings)


def _collect(stream: Stream, stdin: bytes | None) -> tuple[bytes, bytes]:
    """Feed ``stdin`` and gather both outputs until the stream ends."""
    import threading

    from dockp.supervisor.stdio import Demultiplexer

    def feed() -> None:
        view = memoryview(stdin or b"")
        with contextlib.suppress(OSError):  # the process may not care for all of it
            while view:
                view = view[stream.send(bytes(view[:65536])) :]
            stream.close_stdin()

    feeder = None
    if stdin is not None:
        feeder = threading.Thread(target=feed, name="stdin", daemon=True)
        feeder.start()
    out, err, frames = bytearray(), bytearray(), Demultiplexer()
    while chunk := stream.recv(65536):
        for number, data in frames.feed(chunk):
            (err if number == 2 else out).extend(data)
    if feeder is not None:
        feeder.join()
    return bytes(out), bytes(err)
