"""Starting a container: bundle, network and process.

The order is chosen for speed. The shim's interpreter starts (15 ms when it cannot be forked from a zygote) while this
process reserves addresses and writes the bundle; interfaces are put into the sandbox while the container's init makes
its mounts. Nothing of the user's runs before both are done.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from dockp.containers import signals
from dockp.containers import spec as oci
from dockp.containers.context import Context
from dockp.containers.model import Config, CreateRequest, HostConfig
from dockp.containers.mounts import Staged, check_propagation, staged
from dockp.containers.record import Container, MountRecord, with_task
from dockp.containers.settling import Vanished, drop_run_dir, end_shim, release, settle
from dockp.containers.states import State, move
from dockp.containers.telling import attributes, tell_mounts, tell_networks, tell_unmounts
from dockp.interface import START_FAILURE_CODES
from dockp.jsonmodel import to_json
from dockp.linux.trees import discard_tree
from dockp.spi.errors import Conflict, DockpError, InvalidArgument, NotImplemented, NotModified, StartFailure
from dockp.spi.runtime import RuntimeFailure
from dockp.supervisor.client import ShimClient

_log = logging.getLogger(__name__)

_DOCKER_INIT = ("/usr/libexec/docker/docker-init", "/usr/bin/docker-init", "/usr/bin/tini-static", "/usr/bin/tini")


def start(context: Context, container: Container) -> None:
    """Raises: NotModified when it runs; Conflict when paused; StartFailure when its command cannot be executed."""
    with context.exclusive(container.id):
        current = settle(context, container.id)
        if current.active:
            if current.task.state is State.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            raise NotModified(f"container {current.name} is already running")
        if context.table.peek(current.id) is None:  # --rm: settling has just removed it
            raise Vanished(f"No such container: {current.id}")
        if current.task.state in (State.DEAD, State.REMOVING):
            raise Conflict("container is marked for removal and cannot be started")
        move(current.task.state, State.RUNNING)
        running = evolve(current, active=True)
        try:
            with context.journal.operation(
                "container.start",
                current.id,
                record=lambda connection: context.table.save_state(connection, running),
            ):
                _start(context, running)
        except RuntimeFailure as failure:
            told = StartFailure(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: "
                f"unable to start container process: {failure}",
                failure.kind,
            )
            _remember_failure(context, current, told)
            raise told from failure
        except (DockpError, OSError) as failure:
            _remember_failure(context, current, failure)
            raise
    _log.info("container %s state.transition=%s->running", current.id[:12], current.task.state.value)


def undo(context: Context, container_id: str) -> None:
    """Take a half-started container back to where it was. Idempotent; the journal's way back."""
    container = context.table.peek(container_id)
    if container is None:
        return
    end_shim(context, container_id)
    tell_networks(context, container, "disconnect")
    release(context, container, killed=True)
    tell_unmounts(context, container)
    with context.database.write() as connection:
        context.table.save_state(connection, evolve(container, active=False))
    drop_run_dir(context, container_id)


def attach_point(context: Context, container: Container) -> ShimClient:
    """The connection to attach through: to the running shim, or to a new one that `start` will use."""
    if container.active:
        return context.supervisor.connect(container.id)
    with context.guard:
        client = context.clients.get(container.id)
    if client is None:
        with context.exclusive(container.id):
            current = context.table.peek(container.id)
            if current is None:
                raise Vanished(f"No such container: {container.id}")
            if current.active:  # somebody else has started it meanwhile
                return context.supervisor.connect(container.id)
            client = _launch(context, current)
            # Under the lock: whoever starts the container next must find this shim.
            context.keep_client(container.id, client)
    return client


def _remember_failure(context: Context, container: Container, failure: Exception) -> None:
    """As Docker: the container stays as it was, with the exit code and the error of the attempt; with ``--rm`` it
    goes."""
    if container.request.host.auto_remove:
        from dockp.containers.removal import erase

        erase(context, container, volumes=True)
        return
    code = START_FAILURE_CODES.get(failure.kind, 128) if isinstance(failure, StartFailure) else 128
    with context.database.write() as connection:
        context.table.save_state(connection, with_task(container, exit_code=code, error=str(failure)))


def _start(context: Context, container: Container) -> None:
    host = container.request.host
    client = context.take_client(container.id)
    attached = client is not None
    if client is None:
        client = _launch(context, container)
    # From here on the journal's way back finds the shim through its socket, or here.
    context.keep_client(container.id, client)
    tell_networks(context, container, "connect")
    tell_mounts(context, container)
    mode = host.network_mode
    if mode == "host" or mode.startswith("container:"):
        _, warnings = client.create()
    elif mode == "none" or container.request.config.network_disabled:
        warnings = _create_alone(context, client)
    else:
        with context.networks.sandbox(container.id, container.name, container.request) as sandbox:
            warnings = _create_wired(client, sandbox)
    if context.watcher is not None:
        # Before the start: a container that ends at once must find its end claimed.
        context.watcher.adopt(container.id)
    client.start()
    for warning in warnings:
        _log.warning("WARNING: %s", warning)
    if not attached:
        context.take_client(container.id)
        client.close()
    if context.registry.moments:
        from dockp.containers.describe import inspect

        context.moment("dockp_container_started", container=inspect(context, container))


def _create_alone(context: Context, client: ShimClient) -> list[str]:
    """Let the shim build a container without networks; returns what the host could not give."""
    namespace = context.networks.pool.take()
    try:
        return client.create(netns=namespace)[1]
    finally:
        if namespace is not None:
            os.close(namespace)


def _create_wired(client: ShimClient, sandbox: Any) -> list[str]:
    """Let the shim build the container while another thread wires its network; the first error of either counts.

    Returns: what the host could not give.
    """
    errors: list[BaseException] = []

    def wire() -> None:
        try:
            sandbox.wire()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wire, name="wire")
    thread.start()
    try:
        _, warnings = client.create(netns=sandbox.fileno(), ports=sandbox.reservations())
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return warnings


def _launch(context: Context, container: Container) -> ShimClient:
    """Write the bundle and start the shim process. The caller holds the container's lock."""
    run_dir = context.run_dir(container.id)
    if run_dir.exists():
        # Left by an attempt that was killed; nobody lives there, or the container would be active.
        end_shim(context, container.id)
        discard_tree(run_dir)
    os.makedirs(run_dir / "rootfs", mode=0o700)
    driver = context.exec_driver(container.exec_driver)
    check_propagation(container.mounts)
    volumes = staged(container.mounts, str(run_dir / "volumes"), context.volumes)
    spec = _spec(context, container, volumes.mounts)
    if context.registry.moments:
        from copy import deepcopy

        from dockp.containers.describe import inspect

        spec = deepcopy(spec)  # parts of it belong to other containers too, and plug-ins may change theirs
        context.moment("dockp_container_spec", container=inspect(context, container), spec=spec)
    driver.prepare(spec)
    (run_dir / "config.json").write_text(json.dumps(spec))
    (run_dir / "shim.json").write_text(json.dumps(_shim_config(context, container, driver, volumes)))
    return context.supervisor.launch(container.id)


def _spec(context: Context, container: Container, mounts: Sequence[MountRecord]) -> dict[str, Any]:
    request = container.request
    config, host = request.config, request.host
    joined = _joined(context, container)
    directory = context.container_dir(container.id)
    binds: dict[str, str] = {}
    if host.ipc_mode == "shareable":
        binds["/dev/shm"] = _shareable_shm(context, container.id)
    elif host.ipc_mode.startswith("container:"):
        binds["/dev/shm"] = _joined_shm(context, host.ipc_mode)
    elif host.ipc_mode == "host":
        binds["/dev/shm"] = "/dev/shm"
    hostname = config.hostname
    if joined.paths.get("uts") == "" or host.network_mode == "host":
        hostname = config.hostname or os.uname().nodename
    for target, text in context.networks.files(container.id, _with_resolvers(context, request), hostname).items():
        path = directory / target.rsplit("/", 1)[1]
        path.write_text(text)
        os.chmod(path, 0o644)  # whatever the umask
        binds[target] = str(path)
    if host.network_mode.startswith("container:"):
        other = context.container_dir(context.table.find(host.network_mode.partition(":")[2]).id)
        for target in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname"):
            binds[target] = str(other / target.rsplit("/", 1)[1])
    return oci.build(
        container_id=container.id,
        config=config,
        host=host,
        mounts=mounts,
        joined=joined,
        files=oci.Files(binds=binds),
        rootfs=str(context.run_dir(container.id) / "rootfs"),
        hostname=hostname,
        cgroups_path=context.cgroups_path(container.id, host.cgroup_parent),
        init_binary=_init_binary() if host.init else "",
        default_ulimits={name: (limit.soft, limit.hard) for name, limit in context.config.default_ulimits.items()},
    )


def _with_resolvers(context: Context, request: CreateRequest) -> CreateRequest:
    """``request`` with the engine's resolver settings where the container has none of its own."""
    settings, host = context.config, request.host
    return evolve(
        request,
        host=evolve(
            host,
            dns=host.dns or settings.dns,
            dns_options=host.dns_options or settings.dns_opts,
            dns_search=host.dns_search or settings.dns_search,
        ),
    )


def _init_binary() -> str:
    for path in _DOCKER_INIT:
        if os.path.exists(path):
            return path
    raise NotImplemented("--init needs an init program on the host: install the Debian package tini")


def _joined(context: Context, container: Container) -> oci.Joined:
    host = container.request.host
    paths: dict[str, str] = {}
    for kind, name, mode in (
        ("network", "net", host.network_mode),
        ("pid", "pid", host.pid_mode),
        ("ipc", "ipc", host.ipc_mode),
        ("uts", "uts", host.uts_mode),
        ("cgroup", "cgroup", host.cgroupns_mode),
    ):
        if mode == "host":
            paths[kind] = ""
        elif mode.startswith("container:"):
            paths[kind] = f"/proc/{_pid_of(context, mode, kind)}/ns/{name}"
    if host.network_mode.startswith("container:"):
        paths["uts"] = f"/proc/{_pid_of(context, host.network_mode, 'network')}/ns/uts"
    return oci.Joined(paths=paths)


def _pid_of(context: Context, mode: str, noun: str) -> int:
    other = context.table.find(mode.partition(":")[2])
    state = context.supervisor.state(other.id) if other.active else None
    if state is None or state.status not in ("running", "paused"):
        raise Conflict(f"cannot join {noun} of a non running container: {other.id}")
    return state.pid


def _shareable_shm(context: Context, container_id: str) -> str:
    # A directory of the run root, which is memory too, so that others can bind it; no mount on the host is needed.
    path = context.run_dir(container_id) / "shm"
    path.mkdir(exist_ok=True)
    os.chmod(path, 0o1777)
    return str(path)


def _joined_shm(context: Context, mode: str) -> str:
    other = context.table.find(mode.partition(":")[2])
    path = context.run_dir(other.id) / "shm"
    if not path.exists():
        raise InvalidArgument(
            f"cannot join IPC namespace of container {other.id}: its IPC namespace is not shareable: "
            "start it with --ipc shareable"
        )
    return str(path)


def _shim_config(context: Context, container: Container, driver: Any, volumes: Staged) -> dict[str, Any]:
    config, host = container.request.config, container.request.host
    assert container.snapshot is not None
    log = context.log_driver(host.log_config.type)
    run_dir = context.run_dir(container.id)
    return {
        "id": container.id,
        "bundle": str(run_dir),
        "rootfs": {
            "mounts": [
                {"type": mount.type, "source": mount.source, "options": list(mount.options)}
                for mount in context.snapshots.mounts(container.snapshot)
            ],
            "read_only": host.readonly_rootfs,
        },
        "runtime": {"class": driver.runtime, "options": dict(driver.runtime_options())},
        "log": {
            "class": log.writer,
            "path": context.log_path(container.id),
            "options": dict(log.validate(host.log_config.config)),
            "info": {
                "id": container.id,
                "name": container.name,
                "image": config.image,
                "labels": dict(config.labels),
                "env": list(config.env),
            },
        }
        if log.writer
        else None,
        "terminal": config.tty,
        "console_size": list(host.console_size) if host.console_size != (0, 0) else None,
        "open_stdin": config.open_stdin,
        "stdin_once": config.stdin_once,
        "stop_signal": signals.number(config.stop_signal),
        "stop_timeout": config.stop_timeout if config.stop_timeout is not None else 10,
        "user": {"user": config.user, "groups": list(host.group_add)},
        "env_home": True,
        "volumes": list(volumes.rows),
        "copy_up": [{"source": mount.source, "target": mount.target} for mount in volumes.mounts if mount.copy_up],
        "restart": {"name": host.restart_policy.name, "max": host.restart_policy.maximum_retry_count},
        "health": _health(config),
        "events": {"path": context.events.path, "attributes": attributes(container)},
        "on_exit": reaper(context, container.id) if wants_reaper(host) else None,
    }


def _health(config: Config) -> dict[str, Any] | None:
    """Docker's ``Healthcheck`` document for the shim, or None; times left at 0 are the shim's to choose."""
    check = config.healthcheck
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    document = to_json(check)
    return document | {"Shell": list(config.shell)} if config.shell else document


def wants_reaper(host: HostConfig) -> bool:
    """Every container's end needs some engine to see it, but only these need it soon."""
    return host.auto_remove or bool(host.port_bindings) or host.publish_all_ports


def reaper(context: Context, container_id: str) -> list[str]:
    """The command that settles a container when no engine was there to see its end, with this engine's settings."""
    command = [sys.executable, "-m", "dockp.engine.reaper", json.dumps(context.config.given()), container_id]
    if os.environ.get("PYTHONPATH"):  # the shim has no environment to speak of
        return ["/usr/bin/env", f"PYTHONPATH={os.environ['PYTHONPATH']}", *command]
    return command
