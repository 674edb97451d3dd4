"""What a container uses: the documents of ``GET /containers/{id}/stats``, from the counters of its shim.

Names and units are Docker's: nanoseconds, bytes. What the host does not count is absent or null, as in Docker.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dockp.containers import settling
from dockp.interface import Document
from dockp.spi.errors import DockpError, NotFound
from dockp.spi.runtime import RuntimeFailure
from dockp.timestamps import rfc3339_nano

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.record import Container

_INTERVAL = 1.0
_NEVER = "0001-01-01T00:00:00Z"
_ENDLESS = 2**64 - 1
_TICKS = os.sysconf("SC_CLK_TCK")
_BLOCK_TABLES = (
    *("io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive"),
    *("io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive"),
)
_NETWORK_COLUMNS = (
    *((0, "rx_bytes"), (1, "rx_packets"), (2, "rx_errors"), (3, "rx_dropped")),
    *((8, "tx_bytes"), (9, "tx_packets"), (10, "tx_errors"), (11, "tx_dropped")),
)


def stats(context: Context, container: Container, *, stream: bool, one_shot: bool) -> Iterator[Document]:
    """See `dockp.interface.Containers.stats`."""
    sample = _sample(context, container)
    if not stream:
        if sample["read"] != _NEVER and not one_shot:
            time.sleep(_INTERVAL)
            with contextlib.suppress(NotFound):
                sample = following(sample, _sample(context, _now(context, container)))
        yield sample
        return
    while True:
        yield sample
        time.sleep(_INTERVAL)
        try:
            container = _now(context, container)
        except NotFound:
            return
        sample = following(sample, _sample(context, container))


def _now(context: Context, container: Container) -> Container:
    current = context.table.peek(container.id)
    if current is None or not current.visible:
        raise NotFound(f"No such container: {container.id}")
    return settling.refresh(context, current)


def following(before: Document, sample: Document) -> Document:
    """``sample`` with what the one before it counted, for rates."""
    return {**sample, "preread": before["read"], "precpu_stats": before["cpu_stats"]}


def _sample(context: Context, container: Container) -> Document:
    """One document, of zeros when the container does not run."""
    raw = _counters(context, container)
    running = raw is not None
    return {
        "id": container.id,
        "name": f"/{container.name}",
        "read": rfc3339_nano(time.time_ns()) if running else _NEVER,
        "preread": _NEVER,
        "num_procs": 0,
        "pids_stats": _pids(raw) if raw else {},
        "cpu_stats": _cpu(raw, _host_cpu()) if raw else _cpu({}, {}),
        "precpu_stats": _cpu({}, {}),
        "memory_stats": _memory(raw) if raw else {},
        "blkio_stats": _block(raw or {}),
        "storage_stats": {},
        **({"networks": networks} if (networks := _networks(container) if running else {}) else {}),
    }


def _counters(context: Context, container: Container) -> Mapping[str, Any] | None:
    if not container.active or not container.task.pid:
        return None
    try:
        with contextlib.closing(context.supervisor.connect(container.id)) as shim:
            return shim.stats()
    except (DockpError, RuntimeFailure):
        return None  # it has just ended


def _pids(raw: Mapping[str, Any]) -> Document:
    return {"current": raw.get("pids", 0), "limit": raw.get("pids_limit", _ENDLESS)}


def _cpu(raw: Mapping[str, Any], host: Mapping[str, int]) -> Document:
    usage = {
        "total_usage": raw.get("cpu_ns", 0),
        "usage_in_kernelmode": raw.get("cpu_system_ns", 0),
        "usage_in_usermode": raw.get("cpu_user_ns", 0),
    }
    if raw.get("cpu_per_cpu_ns"):
        usage["percpu_usage"] = raw["cpu_per_cpu_ns"]
    throttling = {
        "periods": raw.get("periods", 0),
        "throttled_periods": raw.get("throttled_periods", 0),
        "throttled_time": raw.get("throttled_ns", 0),
    }
    return {"cpu_usage": usage, **host, "throttling_data": throttling}


def _host_cpu() -> dict[str, int]:
    """All time the host's processors have spent, idle or not. Source: proc_stat(5)."""
    with open("/proc/stat", "rb") as file:
        first, *others = file.read().splitlines()
    ticks = sum(int(word) for word in first.split()[1:8])
    return {
        "system_cpu_usage": ticks * 1_000_000_000 // _TICKS,
        "online_cpus": sum(line.startswith(b"cpu") for line in others),
    }


def _memory(raw: Mapping[str, Any]) -> Document:
    if "memory" not in raw:
        return {}
    counters = raw.get("memory_stat") or {}
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = {"usage": raw["memory"], "stats": counters, "limit": min(raw.get("memory_limit", total), total)}
    if "total_inactive_file" in counters and "memory_max" in raw:  # cgroup version 1
        found["max_usage"] = raw["memory_max"]
    return found


def _block(raw: Mapping[str, Any]) -> Document:
    rows = raw.get("io")
    found: Document = dict.fromkeys(_BLOCK_TABLES)
    if rows is not None:
        for table, key in (("io_service_bytes_recursive", "bytes"), ("io_serviced_recursive", "ios")):
            found[table] = [
                {"major": row["major"], "minor": row["minor"], "op": row["op"], "value": row[key]} for row in rows
            ]
    return found


def _networks(container: Container) -> Document:
    """Bytes and packets of each interface in the container's own network namespace. Source: proc_pid_net(5), dev."""
    if container.request.host.network_mode in ("host", "none"):
        return {}
    try:
        with open(f"/proc/{container.task.pid}/net/dev") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, text = line.partition(":")
        columns = text.split()
        if name.strip() != "lo":
            found[name.strip()] = {key: int(columns[column]) for column, key in _NETWORK_COLUMNS}
    return found
