"""Capabilities and ``--security-opt``: what a container may do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import frozen

from dockp.containers import seccomp
from dockp.containers.model import HostConfig
from dockp.spi.errors import InvalidArgument, NotImplemented

ALL = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)
"""Every capability, in the kernel's order. Source: capabilities(7)."""

DEFAULT = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)
"""Docker's fourteen."""

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@frozen(kw_only=True)
class Security:
    """The verdict on one container: ``seccomp`` is an OCI ``linux.seccomp`` object or None for unconfined."""

    capabilities: tuple[str, ...]
    no_new_privileges: bool
    seccomp: dict[str, Any] | None
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    apparmor_profile: str


def capabilities(host: HostConfig) -> tuple[str, ...]:
    """The set after ``--cap-add`` and ``--cap-drop``. Raises InvalidArgument for an unknown name."""
    added, dropped = _names(host.cap_add, "add"), _names(host.cap_drop, "drop")
    if host.privileged:
        return ALL
    if "ALL" in added:
        return tuple(name for name in ALL if name not in dropped)
    kept = () if "ALL" in dropped else tuple(name for name in DEFAULT if name not in dropped)
    return tuple(dict.fromkeys([*kept, *(name for name in added if name not in dropped or "ALL" in dropped)]))


def _names(words: Iterable[str], verb: str) -> list[str]:
    names = []
    for word in words:
        name = word.upper()
        if name not in ("ALL", "CAP_ALL") and not name.startswith("CAP_"):
            name = f"CAP_{name}"
        if name == "CAP_ALL":
            name = "ALL"
        if name != "ALL" and name not in ALL:
            raise InvalidArgument(f'invalid Cap{verb.capitalize()}: unknown capability: "{word}"')
        names.append(name)
    return names


def judge(host: HostConfig) -> Security:
    """Read ``--privileged``, ``--cap-*`` and ``--security-opt``. Raises InvalidArgument, NotImplemented."""
    held = capabilities(host)
    no_new_privileges = False
    masked: tuple[str, ...] = () if host.privileged else MASKED_PATHS
    readonly: tuple[str, ...] = () if host.privileged else READONLY_PATHS
    if host.masked_paths is not None:
        masked = host.masked_paths
    if host.readonly_paths is not None:
        readonly = host.readonly_paths
    profile = "unconfined" if host.privileged else ""
    apparmor = ""
    for option in host.security_opt:
        name, separator, value = option.partition("=")
        if not separator:
            name, separator, value = option.partition(":")
        if name in ("no-new-privileges", "no_new_privileges"):
            if value not in ("", "true", "false"):
                raise InvalidArgument(f'invalid --security-opt: "{option}"')
            no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            profile = value
        elif name == "apparmor" and value:
            apparmor = "" if value == "unconfined" else value
        elif name == "systempaths" and value == "unconfined":
            masked, readonly = (), ()
        elif name == "label":
            if value != "disable":
                raise NotImplemented(f'--security-opt "{option}": SELinux labels are not supported yet')
        else:
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return Security(
        capabilities=held,
        no_new_privileges=no_new_privileges,
        seccomp=_seccomp(profile, frozenset(held)),
        masked_paths=tuple(masked),
        readonly_paths=tuple(readonly),
        apparmor_profile=apparmor,
    )


def _seccomp(profile: str, held: frozenset[str]) -> dict[str, Any] | None:
    if profile == "unconfined":
        return None
    if profile in ("", "builtin", "default"):
        return seccomp.default_profile(held)
    if profile.lstrip().startswith("{"):  # the docker CLI sends the file's content
        return seccomp.custom_profile(profile, held)
    try:
        text = Path(profile).read_text()
    except OSError as error:
        raise InvalidArgument(f"opening seccomp profile ({profile}) failed: {error.strerror}") from error
    return seccomp.custom_profile(text, held)
