"""Counters of a cgroup, as `dockp.spi.runtime.Runtime.stats` describes them."""

from __future__ import annotations

from dockp.linux.cgroup_files import number, pairs, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dockp.linux.cgroups import Cgroup

_UNLIMITED = 1 << 62  # version 1 says "no limit" with a number near 2**63, rounded to pages


def collect(cgroup: Cgroup) -> dict[str, Any]:
    """All counters that this host keeps; a limit that is not set has no key."""
    found: dict[str, Any] = {}
    _cpu(cgroup, found)
    _memory(cgroup, found)
    directory, _ = cgroup.place("pids")
    if directory:
        _put(found, "pids", number(f"{directory}/pids.current"))
        _put(found, "pids_limit", number(f"{directory}/pids.max"))
    else:
        found["pids"] = len(cgroup.pids())
    _io(cgroup, found)
    return found


def _cpu(cgroup: Cgroup, found: dict[str, Any]) -> None:
    directory, version = cgroup.place("cpuacct")
    if version == 1:
        _put(found, "cpu_ns", number(f"{directory}/cpuacct.usage"))
        _put(found, "cpu_user_ns", number(f"{directory}/cpuacct.usage_user"))
        _put(found, "cpu_system_ns", number(f"{directory}/cpuacct.usage_sys"))
        each = read(f"{directory}/cpuacct.usage_percpu").split()
        if each:
            found["cpu_per_cpu_ns"] = [int(text) for text in each]
    elif cgroup.unified and not cgroup.directories:
        # cpu.stat's usage lines are there even without the cpu controller
        usage = pairs(f"{cgroup.unified}/cpu.stat")
        for key, name in (
            ("cpu_ns", "usage_usec"),
            ("cpu_user_ns", "user_usec"),
            ("cpu_system_ns", "system_usec"),
        ):
            if name in usage:
                found[key] = usage[name] * 1000
    directory, version = cgroup.place("cpu")
    if directory:
        usage = pairs(f"{directory}/cpu.stat")
        _put(found, "periods", usage.get("nr_periods"))
        _put(found, "throttled_periods", usage.get("nr_throttled"))
        if version == 1:
            _put(found, "throttled_ns", usage.get("throttled_time"))
        elif "throttled_usec" in usage:
            found["throttled_ns"] = usage["throttled_usec"] * 1000


def _memory(cgroup: Cgroup, found: dict[str, Any]) -> None:
    directory, version = cgroup.place("memory")
    if not directory:
        return
    names = (
        ("memory.usage_in_bytes", "memory.limit_in_bytes", "memory.max_usage_in_bytes")
        if version == 1
        else ("memory.current", "memory.max", "memory.peak")
    )
    for key, name in zip(("memory", "memory_limit", "memory_max"), names, strict=True):
        value = number(f"{directory}/{name}")
        if value is not None and value < _UNLIMITED:
            found[key] = value
    found["memory_stat"] = pairs(f"{directory}/memory.stat")
    found["oom_kills"] = cgroup.oom_kills()


def _io(cgroup: Cgroup, found: dict[str, Any]) -> None:
    directory, version = cgroup.place("blkio")
    if not directory:
        return
    table: dict[tuple[int, int, str], list[int]] = {}

    def add(device: str, op: str, column: int, value: int) -> None:
        major, _, minor = device.partition(":")
        table.setdefault((int(major), int(minor), op), [0, 0])[column] += value

    if version == 1:
        for column, name in enumerate(("io_service_bytes", "io_serviced")):
            text = read(f"{directory}/blkio.throttle.{name}_recursive")
            for line in (text or read(f"{directory}/blkio.throttle.{name}")).splitlines():
                words = line.split()
                if len(words) == 3 and words[1] != "Total":
                    add(words[0], words[1].lower(), column, int(words[2]))
    else:
        meaning = {
            "rbytes": ("read", 0),
            "wbytes": ("write", 0),
            "dbytes": ("discard", 0),
            "rios": ("read", 1),
            "wios": ("write", 1),
            "dios": ("discard", 1),
        }
        for line in read(f"{directory}/io.stat").splitlines():
            device, *pairs = line.split()
            for pair in pairs:
                key, _, value = pair.partition("=")
                if key in meaning:
                    add(device, *meaning[key], int(value))
    found["io"] = [
        {"major": major, "minor": minor, "op": op, "bytes": amount, "ios": count}
        for (major, minor, op), (amount, count) in sorted(table.items())
    ]


def _put(found: dict[str, Any], key: str, value: int | None) -> None:
    if value is not None:
        found[key] = value
