"""``--device`` and ``--device-cgroup-rule``, in the form of the OCI runtime spec."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Any

from dockp.containers.model import HostConfig
from dockp.spi.errors import InvalidArgument

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")

# What every container may use; making any node is allowed, opening only these. Docker's list.
_DEFAULT_RULES: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
    ),
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
]


def plan(host: HostConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(``linux.devices``, ``linux.resources.devices``). Raises InvalidArgument with Docker's words."""
    if host.privileged:
        return list(_host_devices()), [{"allow": True, "access": "rwm"}]
    nodes: list[dict[str, Any]] = []
    rules = list(_DEFAULT_RULES)
    for mapping in host.devices:
        access = mapping.cgroup_permissions or "rwm"
        target = mapping.path_in_container or mapping.path_on_host
        found = list(_nodes(mapping.path_on_host, target))
        if not found:
            raise InvalidArgument(
                f'error gathering device information while adding custom device "{mapping.path_on_host}": '
                "not a device node"
            )
        for node in found:
            nodes.append(node)
            rules.append({**_rule(node), "access": access})
    for text in host.device_cgroup_rules:
        match = _RULE.fullmatch(text)
        if match is None:
            raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
        rule: dict[str, Any] = {"allow": True, "type": match[1], "access": match[4]}
        for name, number in (("major", match[2]), ("minor", match[3])):
            if number != "*":
                rule[name] = int(number)
        rules.append(rule)
    return nodes, rules


def _rule(node: dict[str, Any]) -> dict[str, Any]:
    return {"allow": True, "type": node["type"], "major": node["major"], "minor": node["minor"]}


def _nodes(source: str, target: str) -> Iterator[dict[str, Any]]:
    """The device at ``source``, or every device in that directory."""
    try:
        status = os.stat(source)
    except OSError as error:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{source}": '
            f"{(error.strerror or '').lower()}"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        for entry in sorted(os.listdir(source)):
            yield from _nodes(f"{source}/{entry}", f"{target}/{entry}")
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        yield {
            "path": target,
            "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
            "major": os.major(status.st_rdev),
            "minor": os.minor(status.st_rdev),
            "fileMode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
        }


def _host_devices() -> Iterator[dict[str, Any]]:
    """All devices of the host's /dev, for a privileged container; terminals and shared memory are its own."""
    for directory, names, files in os.walk("/dev"):
        if directory == "/dev":
            names[:] = [name for name in names if name not in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts")]
        for name in sorted(files):
            path = f"{directory}/{name}"
            if path in ("/dev/console", "/dev/ptmx") or os.path.islink(path):
                continue
            try:
                yield from _nodes(path, path)
            except InvalidArgument:
                continue  # it went away while we looked
