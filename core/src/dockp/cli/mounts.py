"""The value of ``--mount`` and of ``-v``."""

from __future__ import annotations

import os
from typing import Any

from dockp.cli.flags import read_bool
from dockp.cli.readers import csv_fields, pair
from dockp.containers.model import BindOptions, MountPoint, TmpfsOptions, VolumeDriverConfig, VolumeOptions

_BARE = {"readonly": "readonly", "ro": "readonly", "volume-nocopy": "nocopy", "bind-nonrecursive": "non_recursive"}
_RECURSIVE = {
    "enabled": "",
    "disabled": "non_recursive",
    "writable": "read_only_non_recursive",
    "readonly": "read_only_force_recursive",
}
_SOURCE = ("source", "src")
_TARGET = ("target", "dst", "destination")


def absolute(path: str) -> str:
    """Paths that begin with a dot are relative to the working directory; everything else stays as it is."""
    return os.path.abspath(path) if path.startswith(".") else path


def mount(text: str) -> MountPoint:
    """One ``--mount``: comma-separated ``key=value``. Raises ValueError in Docker's words."""
    top: dict[str, Any] = {"type": "volume"}
    bind: dict[str, Any] = {}
    volume: dict[str, Any] = {}
    labels: dict[str, str] = {}
    driver: dict[str, str] = {}
    tmpfs: dict[str, Any] = {}
    for item in csv_fields(text):
        key, equals, value = item.partition("=")
        key = key.lower()
        if not equals and key not in _BARE:
            raise ValueError(f"invalid field '{item}' must be a key=value pair")
        if key in _BARE:
            answer = _boolean(key, value) if equals else True
            part = top if key in ("readonly", "ro") else volume if key == "volume-nocopy" else bind
            part[{"readonly": "read_only", "nocopy": "no_copy"}.get(_BARE[key], _BARE[key])] = answer
        elif key == "type":
            top["type"] = value.lower()
        elif key in _SOURCE:
            top["source"] = absolute(value)
        elif key in _TARGET:
            top["target"] = value
        elif key == "consistency":
            top["consistency"] = value.lower()
        elif key == "bind-propagation":
            bind["propagation"] = value.lower()
        elif key == "bind-recursive":
            if value not in _RECURSIVE:
                raise ValueError(
                    f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
                )
            if _RECURSIVE[value]:
                bind[_RECURSIVE[value]] = True
        elif key == "volume-subpath":
            volume["subpath"] = value
        elif key == "volume-label":
            volume["labels"] = labels
            _put(labels, value)
        elif key == "volume-driver":
            volume["name"] = value
        elif key == "volume-opt":
            volume["options"] = driver
            _put(driver, value)
        elif key == "tmpfs-size":
            tmpfs["size_bytes"] = _size(key, value)
        elif key == "tmpfs-mode":
            tmpfs["mode"] = _mode(key, value)
        elif key == "image-subpath":
            raise ValueError("mounts of type 'image' are not supported")
        else:
            raise ValueError(f"unexpected key '{key}' in '{item}'")
    return _checked(top, bind, volume, tmpfs)


def _checked(top: dict[str, Any], bind: dict[str, Any], volume: dict[str, Any], tmpfs: dict[str, Any]) -> MountPoint:
    if not top["type"]:
        raise ValueError("type is required")
    if not top.get("target"):
        raise ValueError("target is required")
    for options, kind in ((volume, "volume"), (bind, "bind"), (tmpfs, "tmpfs")):
        if options and top["type"] != kind:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{top['type']}'")
    if bind.get("read_only_non_recursive") and not top.get("read_only"):
        raise ValueError("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
    if bind.get("read_only_force_recursive"):
        if not top.get("read_only"):
            raise ValueError("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if bind.get("propagation") != "rprivate":
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
            )
    if volume:
        config = VolumeDriverConfig(name=volume.pop("name", ""), options=volume.pop("options", {}))
        top["volume_options"] = VolumeOptions(driver_config=config, **volume)
    if bind:
        top["bind_options"] = BindOptions(**bind)
    if tmpfs:
        top["tmpfs_options"] = TmpfsOptions(**tmpfs)
    return MountPoint(**top)


def _put(target: dict[str, str], text: str) -> None:
    key, value = pair(text)
    if key:
        target[key] = value


def _boolean(key: str, value: str) -> bool:
    try:
        return read_bool(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _size(key: str, value: str) -> int:
    from dockp.spi.errors import InvalidArgument
    from dockp.units import parse_size

    try:
        return parse_size(value)
    except (ValueError, InvalidArgument):
        raise ValueError(f"invalid value for {key}: {value}") from None


def _mode(key: str, value: str) -> int:
    if not value or value.strip("01234567") or int(value, 8) >= 1 << 32:
        raise ValueError(f"invalid value for {key}: {value}")
    return int(value, 8)


def volume_bind(text: str) -> str:
    """One ``-v``: the entry for ``HostConfig.Binds``, or "" when it only names a path for an anonymous volume.

    ``[SOURCE:]TARGET[:OPTIONS]``; a source that begins with ``.``, ``/`` or ``~`` is a path, anything else is the name
    of a volume. Raises ValueError.
    """
    if not text:
        raise ValueError("invalid empty volume spec")
    if len(text) < 3:
        return ""
    parts = text.split(":")
    if "" in parts:
        raise ValueError(f"invalid spec: {text}: empty section between colons")
    if len(parts) > 3:
        raise ValueError(f"invalid spec: {text}: too many colons")
    if len(parts) == 1:
        return ""
    return ":".join((absolute(parts[0]), *parts[1:])) if parts[0][0] in "./~" else text
