"""Containers as Docker's documents: the summary of ``ps`` and the whole of ``inspect``."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from dockp.containers import execs, security
from dockp.containers.record import Container, MountRecord
from dockp.containers.states import State
from dockp.jsonmodel import to_json
from dockp.linux.trees import content_size
from dockp.spi.errors import DockpError, InvalidArgument
from dockp.timestamps import rfc3339_nano

if TYPE_CHECKING:
    from dockp.containers.context import Context

_RUNNING = (State.RUNNING, State.PAUSED, State.RESTARTING)

# What Docker's documents have for a list or object without elements; those not named here have an empty one.
_NULL_IF_EMPTY = (
    *("Binds", "CapAdd", "CapDrop", "DeviceCgroupRules", "DeviceRequests", "ExtraHosts", "GroupAdd", "Links"),
    *("SecurityOpt", "VolumesFrom"),
)
_ABSENT_IF_EMPTY = ("Annotations", "Mounts", "StorageOpt", "Sysctls", "Tmpfs")
_HEALTH = frozenset({"healthy", "none", "starting", "unhealthy"})


def status(container: Container) -> str:
    """The STATUS column: ``Up 2 minutes (healthy)``, ``Exited (0) 3 seconds ago``, ``Created``."""
    task = container.task
    if task.state in _RUNNING:
        if task.state is State.RESTARTING:
            return f"Restarting ({task.exit_code}) {_ago(task.finished_at)} ago"
        text = f"Up {_ago(task.started_at)}"
        if task.state is State.PAUSED:
            return f"{text} (Paused)"
        health = (task.health or {}).get("Status")
        if health == "starting":
            return f"{text} (health: starting)"
        return f"{text} ({health})" if health in ("healthy", "unhealthy") else text
    if task.state is State.EXITED:
        return f"Exited ({task.exit_code}) {_ago(task.finished_at)} ago" if task.finished_at else "Exited"
    return {State.CREATED: "Created", State.REMOVING: "Removal In Progress", State.DEAD: "Dead"}[task.state]


def _marked(text: str, reason: str) -> str:
    return f"{text} (degraded: {reason})" if reason else text


def _ago(moment: int) -> str:
    from dockp.units import human_duration

    return human_duration((time.time_ns() - moment) / 1e9)


def degraded(context: Context, container: Container) -> str:
    """Which driver a container needs that is not there, or ""."""
    for kind, noun, name in (
        ("storage", "storage driver", container.storage_driver),
        ("exec", "execution driver", container.exec_driver),
        ("log", "log driver", container.request.host.log_config.type),
    ):
        if not any(info.name == name for info in context.registry.drivers(kind)):
            return f'{noun} "{name}" is missing'
    return ""


def summary(context: Context, container: Container, *, size: bool = False) -> dict[str, Any]:
    """One element of ``GET /containers/json``."""
    config, host = container.request.config, container.request.host
    document: dict[str, Any] = {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": config.image,
        "ImageID": container.image,
        "Command": command_line(container),
        "Created": container.created // 1_000_000_000,
        "Ports": _ports(context, container),
        "Labels": dict(config.labels),
        "State": container.task.state.value,
        "Status": _marked(status(container), degraded(context, container)),
        "HostConfig": {"NetworkMode": host.network_mode},
        "NetworkSettings": {"Networks": context.networks.endpoints_document(container.id, container.request)},
        "Mounts": _mounts(container),
    }
    if size:
        document.update(sizes(context, container))
    return document


def command_line(container: Container) -> str:
    """Path and arguments as ``ps`` shows them."""
    words = [*(container.request.config.entrypoint or ()), *(container.request.config.cmd or ())]
    return " ".join([words[0], *(f"'{word}'" if " " in word else word for word in words[1:])]) if words else ""


def _ports(context: Context, container: Container) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    running = container.task.state in _RUNNING
    settings = context.networks.ports_document(container.id) if running else {}
    names = [*settings, *(name for name in container.request.config.exposed_ports if name not in settings)]
    for name in names if running else ():
        port, _, protocol = name.partition("/")
        if not port.isdigit():
            continue
        entry: dict[str, Any] = {"PrivatePort": int(port), "Type": protocol or "tcp"}
        bindings = settings.get(name)
        if not bindings:
            rows.append(entry)
        for binding in bindings or ():
            rows.append({"IP": binding["HostIp"], **entry, "PublicPort": int(binding["HostPort"])})
    return rows


def _mounts(container: Container) -> list[dict[str, Any]]:
    """``Mounts``, which in Docker has a tmpfs only if it was asked for by ``--mount``."""
    plain = container.request.host.tmpfs
    return [mount_document(mount) for mount in container.mounts if mount.type != "tmpfs" or mount.target not in plain]


def mount_document(mount: MountRecord) -> dict[str, Any]:
    """One element of ``Mounts``."""
    document: dict[str, Any] = {"Type": mount.type}
    if mount.name:
        document["Name"] = mount.name
    document |= {"Source": mount.source, "Destination": mount.target}
    if mount.driver:
        document["Driver"] = mount.driver
    return document | {"Mode": mount.mode, "RW": mount.read_write, "Propagation": mount.propagation}


def sizes(context: Context, container: Container) -> dict[str, int]:
    """``SizeRw`` and ``SizeRootFs``, bytes."""
    own = written(context, container)
    try:
        image = int(context.images.inspect(container.image)["Size"])
    except DockpError:
        image = 0
    return {"SizeRw": own, "SizeRootFs": own + image}


def written(context: Context, container: Container) -> int:
    """Bytes in the files that a container wrote. As in Docker directories count nothing."""
    if container.snapshot is None:
        return 0
    directories = context.snapshots.changes(container.snapshot)
    return content_size(directories[0].path) if directories else context.snapshots.usage(container.snapshot).size


def state_document(container: Container) -> dict[str, Any]:
    """The ``State`` object."""
    task = container.task
    document: dict[str, Any] = {
        "Status": task.state.value,
        "Running": task.state in _RUNNING,
        "Paused": task.state is State.PAUSED,
        "Restarting": task.state is State.RESTARTING,
        "OOMKilled": task.oom_killed,
        "Dead": task.state is State.DEAD,
        "Pid": task.pid if task.state in _RUNNING else 0,
        "ExitCode": task.exit_code,
        "Error": task.error,
        "StartedAt": rfc3339_nano(task.started_at),
        "FinishedAt": rfc3339_nano(task.finished_at),
    }
    if task.health is not None:
        document["Health"] = task.health
    return document


def inspect(context: Context, container: Container, *, size: bool = False) -> dict[str, Any]:
    """The document of ``GET /containers/{id}/json``."""
    config, host = container.request.config, container.request.host
    words = [*(config.entrypoint or ()), *(config.cmd or ())]
    directory = context.container_dir(container.id)
    host_document = to_json(host)
    host_document.pop("StorageDriver")
    host_document["MaskedPaths"], host_document["ReadonlyPaths"] = _paths(container)
    for name in _NULL_IF_EMPTY:
        host_document[name] = host_document[name] or None
    for name in _ABSENT_IF_EMPTY:
        if not host_document[name]:
            host_document.pop(name)
    if host.init is None:
        host_document.pop("Init")
    if host.memory_swappiness == -1:
        host_document["MemorySwappiness"] = None
    if host.pids_limit is not None and host.pids_limit <= 0:
        host_document["PidsLimit"] = None
    host_document |= dict.fromkeys(("CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"), 0)  # of Windows
    document: dict[str, Any] = {
        "Id": container.id,
        "Created": rfc3339_nano(container.created),
        "Path": words[0] if words else "",
        "Args": words[1:],
        "State": state_document(container),
        "Image": container.image,
        "ResolvConfPath": _if_there(directory / "resolv.conf"),
        "HostnamePath": _if_there(directory / "hostname"),
        "HostsPath": _if_there(directory / "hosts"),
        "LogPath": context.log_path(container.id)
        if host.log_config.type == "json-file" and container.task.started_at
        else "",
        "Name": f"/{container.name}",
        "RestartCount": container.task.restart_count,
        "Driver": container.storage_driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs.live(context, container.id) or None,
        "HostConfig": host_document,
        "GraphDriver": {"Name": container.storage_driver, "Data": _graph(context, container)},
        "Mounts": _mounts(container),
        "Config": _config_document(container),
        "NetworkSettings": context.networks.settings_document(container.id, container.request),
    }
    if document["NetworkSettings"]["SandboxID"]:
        # Docker's is a file where the namespace is mounted; this one serves nsenter and ip as well.
        document["NetworkSettings"]["SandboxKey"] = f"/proc/{container.task.pid}/ns/net"
    if size:
        document |= sizes(context, container)
    reason = degraded(context, container)
    if reason:
        document["Degraded"] = reason
    return document


def _paths(container: Container) -> tuple[list[str], list[str]]:
    host = container.request.host
    try:
        verdict = security.judge(host)
    except DockpError:  # a profile file that is gone since
        return [], []
    return list(verdict.masked_paths), list(verdict.readonly_paths)


def _config_document(container: Container) -> dict[str, Any]:
    document = to_json(container.request.config)
    for name in ("Healthcheck", "StopTimeout", "Shell"):
        if document[name] is None:
            document.pop(name)
    for name in ("ExposedPorts", "StopSignal", "MacAddress", "NetworkDisabled"):
        if not document[name]:
            document.pop(name)
    for name in ("Env", "Volumes"):
        document[name] = document[name] or None
    if "Healthcheck" in document:
        document["Healthcheck"] = {key: value for key, value in document["Healthcheck"].items() if value}
    return document


def _graph(context: Context, container: Container) -> dict[str, str] | None:
    if container.snapshot is None:
        return None
    data: dict[str, str] = {"ID": str(container.snapshot)}
    try:
        mounts = context.snapshots.mounts(container.snapshot)
    except DockpError:  # its driver is missing: see `degraded`
        return data
    for mount in mounts:
        for option in mount.options:
            name, separator, value = option.partition("=")
            field = {"lowerdir+": "LowerDir", "lowerdir": "LowerDir", "upperdir": "UpperDir", "workdir": "WorkDir"}
            if separator and name in field:
                key = field[name]
                data[key] = f"{data[key]}:{value}" if key in data else value
    return data


def _if_there(path: Any) -> str:
    return str(path) if path.exists() else ""


def matches(context: Context, container: Container, filters: dict[str, list[str]]) -> bool:
    """Whether a container passes ``ps`` filters: values of one key are alternatives, but for labels, which must all be
    there; all keys must match."""
    return all(
        (all if key == "label" else any)(_match(context, container, key, value) for value in values)
        for key, values in filters.items()
    )


def check_filters(filters: dict[str, list[str]]) -> None:
    """Raises: InvalidArgument, with Docker's words, for a filter that there is not, or a value that makes no sense."""
    states = {state.value for state in State}
    for key, values in filters.items():
        if key not in KNOWN_FILTERS:
            raise InvalidArgument(f"invalid filter '{key}'")
        for value in values:
            if key == "status" and value not in states:
                raise InvalidArgument(f"invalid filter 'status={value}'")
            if key == "health" and value not in _HEALTH:
                raise InvalidArgument(f"unrecognized filter value for health: {value}")
            if key == "exited" and not re.fullmatch(r"[+-]?\d+", value):
                raise InvalidArgument(f'strconv.Atoi: parsing "{value}": invalid syntax')
            if key == "is-task" and value.lower() not in ("0", "1", "f", "false", "t", "true"):
                raise InvalidArgument(f"invalid filter 'is-task=[{value}]'")
            if key in ("publish", "expose"):
                _port_filter(key, value)


KNOWN_FILTERS = frozenset(
    [
        "id",
        "name",
        "label",
        "status",
        "exited",
        "ancestor",
        "before",
        "since",
        "volume",
        "network",
        "publish",
        "expose",
        "health",
        "is-task",
        "isolation",
    ]
)


def _match(context: Context, container: Container, key: str, value: str) -> bool:
    config = container.request.config
    if key == "id":
        return container.id.startswith(value)
    if key == "name":
        # Docker matches a pattern anywhere, with and without the slash; what is no pattern matches nothing.
        try:
            return bool(re.search(value, container.name) or re.search(value, f"/{container.name}"))
        except re.error:
            return False
    if key == "label":
        name, separator, wanted = value.partition("=")
        return name in config.labels and (not separator or config.labels[name] == wanted)
    if key == "status":
        return container.task.state.value == value
    if key == "exited":
        return container.task.state is State.EXITED and container.task.exit_code == int(value)
    if key == "ancestor":
        return _descends(context, container, value)
    if key == "before":
        return container.created < context.table.find(value).created
    if key == "since":
        return container.created > context.table.find(value).created
    if key == "volume":
        return any(value in (mount.name, mount.source, mount.target) for mount in container.mounts)
    if key == "network":
        networks = context.networks.endpoints_document(container.id, container.request)
        return any(
            name == value or str(entry.get("NetworkID", "")).startswith(value) for name, entry in networks.items()
        )
    if key in ("publish", "expose"):
        return _port_matches(context, container, key, value)
    if key == "health":
        return bool((container.task.health or {}).get("Status", "none") == value)
    return key == "isolation" or (key == "is-task" and value.lower() in ("0", "f", "false"))


def _descends(context: Context, container: Container, ref: str) -> bool:
    try:
        wanted = context.images.get(ref)
    except DockpError:
        return False
    if container.image == wanted.id:
        return True
    try:
        layers = context.images.config(context.images.get(container.image)).diff_ids
    except DockpError:
        return False
    base = context.images.config(wanted).diff_ids
    return list(layers[: len(base)]) == list(base)


def _port_filter(key: str, value: str) -> tuple[int, int, str]:
    """First and last port, and protocol. Raises: InvalidArgument."""
    from dockp.networks.ports import port_range

    text, _, protocol = value.partition("/")
    try:
        first, last = port_range(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid filter '{key}={value}': {error}") from None
    return first, last, protocol or "tcp"


def _port_matches(context: Context, container: Container, key: str, value: str) -> bool:
    """As in Docker it is ports of the host that are published, and ports of the container that are exposed."""
    first, last, protocol = _port_filter(key, value)
    port = "PublicPort" if key == "publish" else "PrivatePort"
    rows = _ports(context, container)
    return any(row["Type"] == protocol and first <= row.get(port, -1) <= last for row in rows)
