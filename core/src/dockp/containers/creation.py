"""Making a container: everything up to, but not including, its process."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from typing import Any

from attrs import evolve

from dockp.containers import devices, limits, mounts, names, process, security, signals
from dockp.containers.context import Context
from dockp.containers.model import Config, CreateRequest, Healthcheck, HostConfig, LogConfig, RestartPolicy
from dockp.containers.record import Container
from dockp.containers.spec import DEFAULT_SHM_SIZE, cgroup_mode
from dockp.containers.telling import tell
from dockp.interface import Created
from dockp.jsonmodel import from_json
from dockp.linux.trees import discard_tree
from dockp.spi.errors import AlreadyExists, InvalidArgument, NotImplemented
from dockp.spi.values import Platform
from dockp.store.journal import Operation

_log = logging.getLogger(__name__)

_NAME_ATTEMPTS = 12


def create(context: Context, request: CreateRequest) -> Created:
    """Make a container from an image. Raises: NotFound for the image, Conflict for the name, InvalidArgument …"""
    refuse_later(request)
    name = names.check(request.name) if request.name else ""
    if not request.config.image:
        raise InvalidArgument("no command specified: name an image")
    image = context.images.get(request.config.image, _platform(request.platform))
    merged = process.merge(request.config, from_json(Config, context.images.config(image).process, "image config"))
    process.arguments(merged)
    signals.number(merged.stop_signal)
    host, warnings = complete(context, request.host, merged)
    exec_driver = host.runtime or context.default_exec()
    context.exec_driver(exec_driver)
    storage_driver = host.storage_driver or context.default_storage()
    if context.registry.moments:
        context.moment("dockp_image_verify", image=context.images.policy(image))
    layer = context.images.unpack(image, storage_driver)
    container_id = os.urandom(32).hex()
    if not merged.hostname and not _shares_names(host):
        merged = evolve(merged, hostname=container_id[:12])
    container = Container(
        id=container_id,
        name=name,
        created=time.time_ns(),
        image=image.id,
        storage_driver=storage_driver,
        exec_driver=exec_driver,
        request=evolve(request, config=merged, host=evolve(host, runtime=exec_driver, storage_driver=storage_driver)),
        visible=False,
    )
    with contextlib.ExitStack() as stack:
        container, operation = _begin(context, container, stack)
        snapshot = stack.enter_context(
            context.snapshots.making(
                storage_driver, layer.id if layer else None, container.id, options=dict(host.storage_opt)
            )
        )
        resolved = mounts.resolve(container.request, container.id, context.volumes, context.table.find)
        os.makedirs(context.container_dir(container.id), mode=0o710)
        with context.database.write() as connection:
            context.table.save_state(connection, evolve(container, visible=True, snapshot=snapshot.id, mounts=resolved))
            context.snapshots.complete(connection, snapshot)
            operation.finish(connection)
    tell(context, container, "create")
    return Created(id=container.id, warnings=tuple(warnings))


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    from dockp.images.documents import parse_platform

    return parse_platform(text)


def undo(context: Context, container_id: str) -> None:
    """Take away whatever `create` got done. Idempotent; the journal's way back."""
    for snapshot in context.snapshots.owned_by(container_id):
        context.snapshots.remove(snapshot.id)
    context.volumes.let_go(container_id, remove_anonymous=True)
    discard_tree(context.container_dir(container_id))
    with context.database.write() as connection:
        context.table.delete(connection, container_id)


def _begin(context: Context, container: Container, stack: contextlib.ExitStack) -> tuple[Container, Operation]:
    """Open the operation together with the invisible record, under its name or an invented one that is free."""
    candidates = (
        [container.name] if container.name else [*(names.invent(n) for n in range(_NAME_ATTEMPTS)), container.id[:12]]
    )
    for candidate in candidates:
        named = evolve(container, name=candidate)
        with contextlib.suppress(AlreadyExists) if not container.name else contextlib.nullcontext():
            operation = stack.enter_context(
                context.journal.operation(
                    "container.create", named.id, record=functools.partial(context.table.insert, container=named)
                )
            )
            return named, operation
    raise AlreadyExists("could not invent a free container name: give one with --name")


def _shares_names(host: HostConfig) -> bool:
    return host.uts_mode == "host" or host.network_mode == "host" or host.network_mode.startswith("container:")


def complete(context: Context, host: HostConfig, config: Config) -> tuple[HostConfig, list[str]]:
    """Fill in defaults and check the rest, as Docker does at creation. Returns warnings beside it."""
    warnings: list[str] = []
    settings = context.config
    mode = host.network_mode
    if mode in ("", "default"):
        mode = "bridge"
    log_type = host.log_config.type or settings.log_driver
    inherited = dict(settings.driver_options("log", log_type, default=settings.log_driver))
    log_options = {**(inherited if not host.log_config.type else {}), **host.log_config.config}
    context.log_driver(log_type).validate(log_options)
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    check_restart(host.restart_policy)
    _check_health(config.healthcheck)
    if host.userns_mode not in ("", "host"):
        raise NotImplemented(
            f'user namespace mode "{host.userns_mode}": only "host" works yet, others need ID-mapped layers'
        )
    if host.ipc_mode not in ("", "none", "private", "shareable", "host") and not host.ipc_mode.startswith("container:"):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.ipc_mode == "shareable" and host.shm_size:
        raise NotImplemented("--shm-size: a /dev/shm that is shared (--ipc shareable) has no limit of its own yet")
    if host.pid_mode not in ("", "host") and not host.pid_mode.startswith("container:"):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.cgroupns_mode not in ("", "host", "private"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if mode in ("host",) or mode.startswith("container:"):
        if host.port_bindings and mode.startswith("container:"):
            raise InvalidArgument("conflicting options: port publishing and the container type network mode")
        if host.port_bindings:
            warnings.append("Published ports are discarded when using host network mode")
        if mode.startswith("container:") and config.hostname:
            raise InvalidArgument("conflicting options: hostname and the network mode")
    filled = evolve(
        host,
        network_mode=mode,
        log_config=LogConfig(type=log_type, config=log_options),
        ipc_mode=host.ipc_mode or settings.default_ipc_mode,
        cgroupns_mode=(
            host.cgroupns_mode or settings.default_cgroupns_mode or ("private" if cgroup_mode() == 2 else "host")
        ),
        shm_size=host.shm_size or settings.default_shm_size or DEFAULT_SHM_SIZE,
        restart_policy=RestartPolicy(
            name=host.restart_policy.name or "no", maximum_retry_count=host.restart_policy.maximum_retry_count
        ),
        memory_swap=host.memory_swap or (2 * host.memory if host.memory else 0),
        masked_paths=host.masked_paths,
        readonly_paths=host.readonly_paths,
    )
    security.judge(filled)
    limits.check(filled)
    devices.plan(filled)
    return filled, warnings


def check_restart(policy: RestartPolicy) -> None:
    """Raises InvalidArgument, with Docker's words, for a policy that makes no sense."""
    if policy.name not in ("", "no", "always", "on-failure", "unless-stopped"):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")


def _check_health(check: Healthcheck | None) -> None:
    if check is None:
        return
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    for name, value in times.items():
        if value and value < 1_000_000:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries and check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _requested(host: HostConfig) -> str:
    wanted: dict[str, Any] = host.device_requests[0] if host.device_requests else {}
    words = " ".join(f"[{' '.join(names)}]" for names in wanted.get("Capabilities") or ())
    return f'"{wanted.get("Driver") or ""}" with capabilities: [{words}]'


def refuse_later(request: CreateRequest) -> None:
    """Say no, in one line, to what this engine cannot do yet; nothing is accepted and ignored."""
    host, config = request.host, request.config
    wanted: list[tuple[Any, str]] = [
        (host.links, "--link: links between containers are not supported yet; share a network instead"),
        (host.device_requests, f"could not select device driver {_requested(host)}: use --device"),
        (host.isolation not in ("", "default"), f'invalid isolation "{host.isolation}": linux only supports "default"'),
        (host.cgroup, "joining another container's cgroup is not supported"),
        (config.on_build, "ONBUILD triggers belong into images"),
        (host.cpu_realtime_period or host.cpu_realtime_runtime, "--cpu-rt-*: this needs a realtime-group kernel"),
    ]
    for given, why in wanted:
        if given:
            raise NotImplemented(why)
    for name, settings in request.networks.items():
        if settings.links:
            raise NotImplemented(f"network {name}: links between containers are not supported yet")
        if settings.ipam_config is not None and settings.ipam_config.link_local_ips:
            raise NotImplemented(f"network {name}: --link-local-ip is not supported yet")
        if settings.gw_priority:
            raise NotImplemented(f"network {name}: gateway priorities are not supported yet")
