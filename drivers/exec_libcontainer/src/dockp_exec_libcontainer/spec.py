"""Reading an OCI runtime spec: what is in it that this runtime must know, and refuse, before it starts anything.

Source: OCI runtime-spec 1.2 config.md and config-linux.md.
"""

from __future__ import annotations

import os

from dockp.linux import namespaces
from dockp.linux.jsonlite import loads
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IPC_SYSCTLS = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    }
)
_UNSUPPORTED = {
    "intelRdt": "Intel RDT (linux.intelRdt)",
    "netDevices": "moving network devices (linux.netDevices)",
    "memoryPolicy": "NUMA memory policies (linux.memoryPolicy)",
}


def read(bundle: str) -> dict[str, Any]:
    """The ``config.json`` of a bundle, checked. Raises RuntimeFailure."""
    path = os.path.join(bundle, "config.json")
    try:
        with open(path, "rb") as file:
            spec = loads(file.read())
    except FileNotFoundError:
        raise RuntimeFailure(f"{path} does not exist: not an OCI bundle") from None
    except (OSError, ValueError) as failure:
        raise RuntimeFailure(f"cannot read {path}: {failure}") from failure
    check(spec)
    return spec  # type: ignore[no-any-return]


def check(spec: Any) -> None:
    """Raises RuntimeFailure for a spec that is malformed, or asks for what this runtime cannot do."""
    if not isinstance(spec, dict):
        raise RuntimeFailure("config.json is not a JSON object")
    version = spec.get("ociVersion")
    if not isinstance(version, str) or version.partition(".")[0] != "1":
        raise RuntimeFailure(f"ociVersion {version!r} is not supported: this runtime speaks 1.x")
    for key, kind in (("root", dict), ("process", dict), ("mounts", list), ("hooks", dict), ("linux", dict)):
        if spec.get(key) is not None and not isinstance(spec[key], kind):
            raise RuntimeFailure(f"{key} of config.json is not {'an object' if kind is dict else 'a list'}")
    if not (spec.get("root") or {}).get("path"):
        raise RuntimeFailure("root.path is missing in config.json")
    if not spec.get("linux"):
        raise RuntimeFailure("config.json has no linux part: this runtime makes Linux containers only")
    linux = spec["linux"]
    for key, words in _UNSUPPORTED.items():
        if linux.get(key):
            raise RuntimeFailure(f"{words} is not supported by this runtime")
    if (linux.get("seccomp") or {}).get("listenerPath"):
        raise RuntimeFailure("seccomp user notification (listenerPath) is not supported by this runtime")
    if spec.get("process"):
        check_process(spec["process"])
    _check_namespaces(spec, linux)


def check_process(process: Any) -> None:
    """Raises RuntimeFailure for a malformed process object."""
    if not isinstance(process, dict) or not process.get("args"):
        raise RuntimeFailure("process.args must not be empty")
    if not str(process.get("cwd") or "").startswith("/"):
        raise RuntimeFailure(f"process.cwd {process.get('cwd')!r} is not an absolute path")
    if process.get("execCPUAffinity"):
        raise RuntimeFailure("CPU affinity of exec (process.execCPUAffinity) is not supported by this runtime")
    for text in [*process["args"], *(process.get("env") or [])]:
        if not isinstance(text, str) or "\0" in text:
            raise RuntimeFailure(f"{text!r} cannot be an argument or an environment variable")


def _check_namespaces(spec: dict[str, Any], linux: dict[str, Any]) -> None:
    kinds = set()
    for entry in linux.get("namespaces") or []:
        kind = entry.get("type")
        if kind not in namespaces.KINDS:
            raise RuntimeFailure(f"unknown namespace type {kind!r}")
        if kind in kinds:
            raise RuntimeFailure(f"namespace {kind} is given twice")
        kinds.add(kind)
    if "mount" not in kinds:
        raise RuntimeFailure("a container needs a mount namespace of its own")
    if spec.get("hostname") and "uts" not in kinds:
        raise RuntimeFailure("hostname cannot be set without a uts namespace")
    if spec.get("domainname") and "uts" not in kinds:
        raise RuntimeFailure("domainname cannot be set without a uts namespace")
    if linux.get("timeOffsets") and "time" not in kinds:
        raise RuntimeFailure("timeOffsets cannot be set without a time namespace")


def check_sysctls(sysctls: dict[str, str], separate: set[str]) -> None:
    """Refuse sysctls that would change the host. Args: separate: namespace types that are not the host's."""
    for key in sysctls:
        name = key.replace("/", ".")
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            needed = "ipc"
        elif name.startswith("net."):
            needed = "network"
        elif name == "kernel.domainname":
            needed = "uts"
        elif name == "kernel.hostname":
            raise RuntimeFailure("sysctl kernel.hostname is not allowed: use the hostname option")
        else:
            raise RuntimeFailure(f"sysctl {key!r} is not in a separate kernel namespace")
        if needed not in separate:
            raise RuntimeFailure(f"sysctl {key!r} is not allowed in the host's {needed} namespace")


def id_map(entries: list[dict[str, int]] | None) -> list[tuple[int, int, int]]:
    """``uidMappings`` as (inside, outside, count) each."""
    return [(entry["containerID"], entry["hostID"], entry["size"]) for entry in entries or []]
