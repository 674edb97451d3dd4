"""Further processes in a running container (``exec``)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from dockp.containers import process, security
from dockp.containers.context import Context
from dockp.containers.model import ExecConfig, HostConfig
from dockp.containers.record import Container
from dockp.containers.states import State
from dockp.containers.telling import tell
from dockp.interface import START_FAILURE_CODES, Stream
from dockp.jsonmodel import from_json, to_json
from dockp.keys import parse_detach_keys
from dockp.spi.errors import Conflict, DockpError, InvalidArgument, NotFound, StartFailure, Unavailable
from dockp.spi.runtime import RuntimeFailure
from dockp.supervisor.client import ClientSocket, ShimClient

_REMEMBERED = 1000
"""Execs of a container that can be inspected after their end, and as many more now and then. The shim remembers how as
many ended."""


def create(context: Context, container: Container, config: ExecConfig) -> str:
    """Remember an exec; its id. Raises: Conflict when the container does not run; InvalidArgument."""
    if container.task.state is State.PAUSED:
        raise Conflict(f"container {container.id} is paused, unpause the container before exec")
    if container.task.state is not State.RUNNING:
        raise Conflict(f"container {container.id} is not running")
    if not config.cmd:
        raise InvalidArgument("No exec command specified")
    parse_detach_keys(config.detach_keys)
    exec_id = os.urandom(32).hex()
    document = {"config": to_json(config), "started": False, "exit_code": None}
    context.table.put_exec(exec_id, container.id, document)
    if context.table.count_execs(container.id) > 2 * _REMEMBERED:
        _forget(context, container.id)
    tell(context, container, "exec_create: " + " ".join(config.cmd), execID=exec_id)
    return exec_id


def _forget(context: Context, container_id: str) -> None:
    """Drop all but the newest and those that run."""
    running = set(_running(context, container_id))
    old = list(context.table.execs_of(container_id))[:-_REMEMBERED]
    context.table.forget_execs(exec_id for exec_id in old if exec_id not in running)


def _running(context: Context, container_id: str) -> Sequence[str]:
    if not context.supervisor.alive(container_id):
        return ()
    try:
        with contextlib.closing(context.supervisor.connect(container_id)) as client:
            return client.execs()
    except DockpError:  # it ends just now
        return ()


def live(context: Context, container_id: str) -> list[str]:
    """Those that run or were not started yet, oldest first."""
    known = context.table.execs_of(container_id)
    started = {exec_id for exec_id, was_started in known.items() if was_started}
    ended = started & context.ended_execs.keys()
    if ended != started:
        ended = started.difference(_running(context, container_id))
    return [exec_id for exec_id in known if exec_id not in ended]


def start(
    context: Context,
    container: Container,
    exec_id: str,
    document: dict[str, Any],
    *,
    detach: bool,
    tty: bool | None,
    client_socket: ClientSocket | None = None,
    framing: str = "auto",
    console_size: tuple[int, int] | None = None,
) -> Stream | None:
    """Run it; a stream unless ``detach`` or there is a ``client_socket`` to serve.

    Raises: Conflict when it was started before; StartFailure when its command cannot be executed.
    """
    if document["started"]:
        raise Conflict(f"Error: Exec command {exec_id} has already run")
    if container.task.state is State.PAUSED:
        raise Conflict(f"container {container.id} is paused, unpause the container before exec")
    if container.task.state is not State.RUNNING:
        raise Conflict(f"container {container.id} is not running")
    config = from_json(ExecConfig, document["config"])
    context.table.put_exec(exec_id, container.id, {**document, "started": True})
    try:
        client = context.supervisor.connect(container.id)
    except (NotFound, Unavailable) as failure:  # it ends just now
        raise Conflict(f"container {container.id} is not running") from failure
    size = console_size or (config.console_size if config.console_size != (0, 0) else None)
    options: dict[str, Any] = {
        "user": config.user or container.request.config.user,
        "groups": list(container.request.host.group_add),
        "terminal": config.tty,
        "console_size": size,
    }
    stream = None
    try:
        if detach:
            client.exec(exec_id, _process(container, config), **options)
        else:
            options |= {
                "stdin": config.attach_stdin,
                "stdout": config.attach_stdout,
                "stderr": config.attach_stderr,
                "detach_keys": parse_detach_keys(config.detach_keys) if config.tty else b"",
            }
            if client_socket is None:
                stream = client.exec_attached(exec_id, _process(container, config), **options)
                stream.owns_client = True
            else:
                client.exec(
                    exec_id,
                    _process(container, config),
                    stream=client_socket.descriptor,
                    framing=framing,
                    head=client_socket.head,
                    early=client_socket.early,
                    **options,
                )
    except RuntimeFailure as failure:
        client.close()
        code = START_FAILURE_CODES.get(failure.kind, 126)
        context.table.put_exec(exec_id, container.id, {**document, "started": True, "exit_code": code})
        raise StartFailure(
            f"OCI runtime exec failed: exec failed: unable to start container process: {failure}", failure.kind
        ) from failure
    except BaseException as failure:
        client.close()
        if isinstance(failure, DockpError):
            context.table.put_exec(exec_id, container.id, {**document, "started": True, "exit_code": 126})
        if isinstance(failure, Unavailable):  # it ended meanwhile
            raise Conflict(f"container {container.id} is not running") from failure
        raise
    if stream is None:
        client.close()
    return stream


def _process(container: Container, config: ExecConfig) -> dict[str, Any]:
    """The OCI ``process`` object; the shim resolves the user inside the container."""
    request = container.request
    host = request.host
    verdict = security.judge(HostConfig(privileged=True) if config.privileged else host)
    env = process.merge_env(process.environment(request.config, host, request.config.hostname), config.env)
    if config.tty and not any(entry.startswith("TERM=") for entry in env):
        env.append("TERM=xterm")
    document: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0},
        "args": list(config.cmd),
        "env": env,
        "cwd": config.working_dir or request.config.working_dir or "/",
        "capabilities": {name: list(verdict.capabilities) for name in ("bounding", "effective", "permitted")},
        "noNewPrivileges": verdict.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    }
    if verdict.apparmor_profile:
        document["apparmorProfile"] = verdict.apparmor_profile
    return document


def inspect(context: Context, exec_id: str) -> dict[str, Any]:
    """The document of ``GET /exec/{id}/json``."""
    container_id, document = context.table.get_exec(exec_id)
    config = from_json(ExecConfig, document["config"])
    exit_code, running, pid = document["exit_code"], False, 0
    if exec_id in context.ended_execs:
        exit_code, pid = context.ended_execs[exec_id]
    elif document["started"] and exit_code is None and context.supervisor.alive(container_id):
        client = context.supervisor.connect(container_id)
        try:
            live = client.exec_inspect(exec_id)
        finally:
            client.close()
        running, exit_code, pid = live["running"], live["exit_code"], live["pid"]
        if not running:
            _note_end(context, exec_id, exit_code, pid)
    return {
        "ID": exec_id,
        "Running": running,
        "ExitCode": exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": config.cmd[0],
            "arguments": list(config.cmd[1:]),
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": False,
        "ContainerID": container_id,
        "DetachKeys": "",
        "Pid": pid,
    }


def _note_end(context: Context, exec_id: str, exit_code: int, pid: int) -> None:
    """Spare the shim the next question: most who execute something ask how it ended, and it stays so."""
    with context.guard:
        context.ended_execs[exec_id] = exit_code, pid
        if len(context.ended_execs) > 2 * _REMEMBERED:
            context.ended_execs.pop(next(iter(context.ended_execs)))


def wait(context: Context, exec_id: str) -> int:
    """Wait for its end; the exit code."""
    container_id, document = context.table.get_exec(exec_id)
    if document["exit_code"] is not None:
        return int(document["exit_code"])
    client: ShimClient = context.supervisor.connect(container_id)
    try:
        return client.exec_wait(exec_id)
    finally:
        client.close()
