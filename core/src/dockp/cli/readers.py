"""Readers of single flag values of ``run`` and ``create``: text in, value out, ValueError with Docker's wording.

What each accepts follows the reference of ``docker run``; the forms are those of Docker's command line 28.
"""

from __future__ import annotations

import os
from typing import Any

from dockp.cli.flags import go_int, quote

_BLANKS = " \t"
_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_ULIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"),
        *("rss", "rtprio", "rttime", "sigpending", "stack"),
    )
)
_RATE = "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"


def env(text: str) -> str:
    """``NAME=value``; a bare ``NAME`` takes its value from this process, or stays bare (to unset it)."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if equals or name not in os.environ:
        return text
    return f"{name}={os.environ[name]}"


def label(text: str) -> str:
    key = text.partition("=")[0].lstrip(_BLANKS)
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    if any(char in key for char in _BLANKS):
        raise ValueError(f"label '{key}' contains whitespaces")
    return text


def pair(text: str) -> tuple[str, str]:
    """``key=value`` for a map; the value may be missing."""
    key, _, value = text.partition("=")
    return key, value


def sysctl(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not (key in _SYSCTLS or key.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return key, value


def attach(text: str) -> str:
    stream = text.lower()
    if stream not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return stream


def ip_address(text: str) -> str:
    """An address in its canonical form."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def flag_ip(text: str) -> str:
    """The value of ``--ip`` and ``--ip6``."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"failed to parse IP: {quote(text)}") from None


def dns_search(text: str) -> str:
    import re

    domain = text.strip(" ")
    if domain == ".":
        return domain
    part = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
    found = re.match(rf"^({part}(?:\.{part})*)\.?\s*$", domain)
    if not found or not re.search("[a-zA-Z]", domain) or len(found[1]) >= 255:
        raise ValueError(f"{domain} is not a valid domain")
    return found[1]


def extra_host(text: str) -> str:
    """``host:ip`` or ``host=ip``; the address may stand in brackets, or be ``host-gateway``."""
    name, found, address = text.partition("=") if "=" in text else text.partition(":")
    if not found or not name or ":" in name:
        raise ValueError(f"bad format for add-host: {quote(text)}")
    if address != "host-gateway":
        if len(address) > 2 and address[0] == "[" and address[-1] == "]":
            address = address[1:-1]
        try:
            ip_address(address)
        except ValueError:
            raise ValueError(f"invalid IP address in add-host: {quote(address)}") from None
    return f"{name}:{address}"


def link(text: str) -> str:
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def device_rule(text: str) -> str:
    import re

    if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", text):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def ulimit(text: str) -> tuple[str, tuple[int, int]]:
    """``name=soft[:hard]`` as (name, (soft, hard)); -1 is unlimited."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    hard = go_int(parts[-1], base=10)
    soft = go_int(parts[0], base=10)
    if hard != -1:
        if soft == -1:
            raise ValueError(
                f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
            )
        if soft > hard:
            raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return name, (soft, hard)


def _device_value(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not path:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def device_weight(text: str) -> tuple[str, int]:
    path, value = _device_value(text)
    if not value.isdecimal() or not (int(value) == 0 or 10 <= int(value) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return path, int(value)


def device_bytes(text: str) -> tuple[str, int]:
    from dockp.spi.errors import InvalidArgument
    from dockp.units import parse_size

    path, value = _device_value(text)
    try:
        rate = parse_size(value)
    except (ValueError, InvalidArgument):
        rate = -1
    if rate < 0:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. {_RATE}"
        )
    return path, rate


def device_operations(text: str) -> tuple[str, int]:
    path, value = _device_value(text)
    if not value.isdecimal() or int(value) >= 1 << 64:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return path, int(value)


def cpus(text: str) -> int:
    """A decimal or a fraction of CPUs, in billionths of a CPU."""
    from fractions import Fraction

    try:
        if text != text.strip():
            raise ValueError
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    nano = value * 10**9
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    return int(nano)


def csv_fields(text: str) -> list[str]:
    """The fields of one line of comma-separated values (RFC 4180), with Go's wording for mistakes."""
    fields: list[str] = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            value = ""
            start = at
            at += 1
            while True:
                end = text.find('"', at)
                if end < 0:
                    column = len(text) + 1
                    raise ValueError(f'parse error on line 1, column {column}: extraneous or missing " in quoted-field')
                value += text[at:end]
                at = end + 1
                if text[at : at + 1] != '"':
                    break
                value += '"'
                at += 1
            if at < len(text) and text[at] != ",":
                raise ValueError(f'parse error on line 1, column {at}: extraneous or missing " in quoted-field')
            assert at > start
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            value = text[at:end]
            if '"' in value:
                column = at + value.index('"') + 1
                raise ValueError(f'parse error on line 1, column {column}: bare " in non-quoted-field')
            at = end
        fields.append(value)
        if at >= len(text):
            return fields
        at += 1


def network(text: str) -> dict[str, Any]:
    """A network's name, or ``name=…,alias=…,ip=…``, as the settings of one endpoint."""
    import re

    wanted: dict[str, Any] = {
        "target": text,
        "aliases": [],
        "ip": "",
        "ip6": "",
        "mac": "",
        "link_local": [],
        "driver_opts": {},
        "priority": 0,
    }
    if not re.search(r"\w+=\w+(,\w+=\w+)*", text):
        return wanted
    wanted["target"] = ""
    single = {"name": "target", "ip": "ip", "ip6": "ip6", "mac-address": "mac"}
    for item in csv_fields(text):
        key, equals, value = item.lower().partition("=")
        if not equals or not key:
            raise ValueError(f"invalid field {item}")
        key, value = key.strip(), value.strip()
        if key in single:
            wanted[single[key]] = value
        elif key == "alias":
            wanted["aliases"].append(value)
        elif key == "link-local-ip":
            wanted["link_local"].append(value)
        elif key == "driver-opt":
            name, found, setting = value.partition("=")
            if not found or not name:
                raise ValueError("invalid key value pair format in driver options")
            wanted["driver_opts"][name.strip()] = setting.strip()
        elif key == "gw-priority":
            try:
                wanted["priority"] = go_int(value, base=10)
            except ValueError:
                raise ValueError(f"invalid gw-priority ({value}): invalid syntax") from None
        else:
            raise ValueError(f"invalid field key {key}")
    if not wanted["target"]:
        raise ValueError("network name/id is not specified")
    return wanted


def gpus(text: str) -> dict[str, Any]:
    """One device request, as Docker's JSON."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": None, "Options": {}}
    seen: set[str] = set()
    for item in csv_fields(text):
        key, equals, value = item.partition("=")
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if not equals:
            seen.add("count")
            request["Count"] = _count(key)
        elif key == "driver":
            request["Driver"] = value
        elif key == "count":
            request["Count"] = _count(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = dict(pair(option) for option in csv_fields(value))
        else:
            raise ValueError(f"unexpected key '{key}' in '{item}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    request["Capabilities"] = request["Capabilities"] or [["gpu"]]
    return request


def _count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return go_int(text, base=10)
    except ValueError as error:
        reason = str(error).rpartition(": ")[2]
        raise ValueError(f'invalid count ({text}): value must be either "all" or an integer: {reason}') from None
