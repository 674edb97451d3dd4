"""The OCI runtime spec of a container: a pure function from what was decided to ``config.json``.

Source: OCI runtime-spec ``config.md`` and ``config-linux.md``; the defaults are Docker's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from dockp.containers import devices, limits, process, security
from dockp.containers.model import Config, HostConfig
from dockp.containers.record import MountRecord
from dockp.spi.errors import InvalidArgument

DEFAULT_SHM_SIZE = 64 * 1024 * 1024
_NAMESPACED_SYSCTLS: tuple[str, ...] = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
)
_NAMESPACED_SYSCTLS += ("kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced")
_RLIMITS = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]


@frozen(kw_only=True)
class Joined:
    """Namespaces that are not the container's own: ``{"network": "/proc/12/ns/net"}``; ``""`` means the host's."""

    paths: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Files:
    """Host files mounted over the image's: container path → host path (``/etc/hosts`` and friends, ``/dev/shm``)."""

    binds: Mapping[str, str] = field(factory=dict)


def build(
    *,
    container_id: str,
    config: Config,
    host: HostConfig,
    mounts: Sequence[MountRecord],
    joined: Joined,
    files: Files,
    rootfs: str,
    hostname: str,
    cgroups_path: str,
    init_binary: str = "",
    default_ulimits: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """The spec. Raises InvalidArgument, with Docker's words, for what cannot be.

    ``process.user`` is left to the shim, which resolves names inside the root file system.
    """
    verdict = security.judge(host)
    limits.check(host)
    nodes, rules = devices.plan(host)
    args = process.arguments(config)
    if init_binary:
        args = ["/sbin/docker-init", "--", *args]
    spec: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": config.tty,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": process.environment(config, host, hostname),
            "cwd": config.working_dir or "/",
            "capabilities": {name: list(verdict.capabilities) for name in ("bounding", "effective", "permitted")},
            "noNewPrivileges": verdict.no_new_privileges,
            "rlimits": _rlimits(host, default_ulimits or {}),
            "oomScoreAdj": host.oom_score_adj,
        },
        "root": {"path": rootfs, "readonly": host.readonly_rootfs},
        "mounts": _mounts(host, mounts, joined, files, init_binary),
        "annotations": dict(host.annotations),
        "linux": {
            "namespaces": _namespaces(joined),
            "cgroupsPath": cgroups_path,
            "resources": limits.resources(host, rules),
            "devices": nodes,
            "sysctl": _sysctls(host, joined),
            "maskedPaths": list(verdict.masked_paths),
            "readonlyPaths": list(verdict.readonly_paths),
            "rootfsPropagation": _root_propagation(mounts),
        },
    }
    if host.console_size != (0, 0) and config.tty:
        spec["process"]["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    if "uts" not in joined.paths:
        spec["hostname"] = hostname
        if config.domainname:
            spec["domainname"] = config.domainname
    if verdict.apparmor_profile:
        spec["process"]["apparmorProfile"] = verdict.apparmor_profile
    if verdict.seccomp is not None:
        spec["linux"]["seccomp"] = verdict.seccomp
    return spec


def _namespaces(joined: Joined) -> list[dict[str, str]]:
    rows = []
    for kind in ("mount", "pid", "network", "ipc", "uts", "cgroup"):
        path = joined.paths.get(kind)
        if path is None:
            rows.append({"type": kind})
        elif path:
            rows.append({"type": kind, "path": path})
    return rows


def _mounts(
    host: HostConfig,
    mounts: Sequence[MountRecord],
    joined: Joined,
    files: Files,
    init_binary: str,
) -> list[dict[str, Any]]:
    writable = "rw" if host.privileged else "ro"
    safe = ["nosuid", "noexec", "nodev"]
    rows = [
        _row("/proc", "proc", "proc", safe),
        _row("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _row(
            "/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
    ]
    # A sysfs shows the network namespace of whoever mounts it; with the host's, a bind is all there can be.
    rows.append(_row("/sys", "sysfs", "sysfs", [*safe, writable]))
    rows.append(_row("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", writable]))
    rows.append(_row("/dev/mqueue", "mqueue", "mqueue", safe))
    taken = {mount.target for mount in mounts}
    if host.ipc_mode != "none" and "/dev/shm" not in taken and "/dev/shm" not in files.binds:
        size = host.shm_size or DEFAULT_SHM_SIZE
        rows.append(_row("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", f"size={size}"]))
    for target, source in files.binds.items():
        if target not in taken:
            ro = ["ro"] if host.readonly_rootfs and target.startswith("/etc/") else []
            rows.append(_row(target, "bind", source, ["rbind", "rprivate", *ro]))
    if init_binary:
        rows.append(_row("/sbin/docker-init", "bind", init_binary, ["bind", "ro"]))
    for mount in mounts:
        if mount.type == "tmpfs":
            rows.append(_row(mount.target, "tmpfs", "tmpfs", list(mount.options)))
        else:
            propagation = [] if mount.propagation else ["rprivate"]
            rows.append(_row(mount.target, "bind", mount.source, [*mount.options, *propagation]))
    return rows


def _row(target: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}


def _root_propagation(mounts: Sequence[MountRecord]) -> str:
    words = {mount.propagation for mount in mounts}
    if words & {"shared", "rshared"}:
        return "shared"
    return "slave" if words & {"slave", "rslave"} else "rprivate"


def _rlimits(host: HostConfig, defaults: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    wanted = dict(defaults)
    for ulimit in host.ulimits:
        if ulimit.name not in _RLIMITS:
            raise InvalidArgument(f"invalid ulimit type: {ulimit.name}")
        if ulimit.hard != -1 and (ulimit.soft > ulimit.hard or ulimit.soft == -1):
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
            )
        wanted[ulimit.name] = (ulimit.soft, ulimit.hard)
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": _unsigned(soft), "hard": _unsigned(hard)}
        for name, (soft, hard) in sorted(wanted.items())
    ]


def _unsigned(value: int) -> int:
    """-1 is "unlimited": all bits set, in the kernel's 64 bits (getrlimit(2))."""
    return value if value >= 0 else 2**64 - 1


def _sysctls(host: HostConfig, joined: Joined) -> dict[str, str]:
    chosen = {}
    if "network" not in joined.paths and not host.privileged:
        # Docker's defaults: ordinary users may ping and bind low ports inside their own namespace.
        chosen = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    for name, value in host.sysctls.items():
        if name.startswith("net."):
            if joined.paths.get("network") == "":
                raise InvalidArgument(f"sysctl '{name}' not allowed as network namespace is shared with the host")
        elif name in _NAMESPACED_SYSCTLS or name.startswith("fs.mqueue."):
            if joined.paths.get("ipc") == "":
                raise InvalidArgument(f"sysctl '{name}' not allowed as IPC namespace is shared with the host")
        else:
            raise InvalidArgument(f"sysctl '{name}' is not allowed")
        chosen[name] = value
    return chosen


def cgroup_mode() -> int:
    """2 when the host has the unified hierarchy alone, else 1. Source: kernel doc ``admin-guide/cgroup-v2``."""
    return 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1
