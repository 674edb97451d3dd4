"""Resource limits: Docker's checks on them, and their form in the OCI runtime spec."""

from __future__ import annotations

import os
from typing import Any

from dockp.containers.model import HostConfig
from dockp.spi.errors import InvalidArgument

_MINIMUM_MEMORY = 6 * 1024 * 1024
_UNBOUNDED = -1


def check(host: HostConfig) -> None:
    """Raises InvalidArgument, with Docker's words, for limits that make no sense."""
    memory, swap = host.memory, host.memory_swap
    if memory != 0 and memory < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if memory > 0 and swap > 0 and swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    swappiness = host.memory_swappiness
    if swappiness is not None and swappiness != -1 and not 0 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if host.memory_reservation != 0 and host.memory_reservation < _MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory > 0 and host.memory_reservation > memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    cores = os.cpu_count() or 1
    if host.nano_cpus < 0 or host.nano_cpus > cores * 1_000_000_000:
        raise InvalidArgument(f"range of CPUs is from 0.01 to {cores}.00, as there are only {cores} CPUs available")
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        other = "CPU Period" if host.cpu_period else "CPU Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {other} cannot both be set")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for what, text in (("cpus", host.cpuset_cpus), ("mems", host.cpuset_mems)):
        _check_set(what, text)
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")


def _check_set(what: str, text: str) -> None:
    if not text:
        return
    try:
        numbers: set[int] = set()
        for part in text.split(","):
            first, dash, last = part.partition("-")
            numbers.update(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        raise InvalidArgument(f"invalid value '{text}' for cpuset {what}: failed to parse") from None
    available = set(range(os.cpu_count() or 1)) if what == "cpus" else {0}
    if what == "cpus" and not numbers <= available:
        raise InvalidArgument(f"Requested CPUs are not available - requested {text}, available: 0-{len(available) - 1}")


def resources(host: HostConfig, device_rules: list[dict[str, Any]]) -> dict[str, Any]:
    """The OCI ``linux.resources`` object (runtime-spec ``config-linux.md``)."""
    memory: dict[str, Any] = {}
    if host.memory:
        memory["limit"] = host.memory
        # Docker's rule: with a limit alone, as much swap again may be used.
        memory["swap"] = host.memory_swap or 2 * host.memory
    if host.memory_swap == _UNBOUNDED:
        memory["swap"] = _UNBOUNDED
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness not in (None, -1):
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    cpu: dict[str, Any] = {}
    if host.cpu_shares:
        cpu["shares"] = host.cpu_shares
    if host.nano_cpus:
        cpu["period"] = 100_000
        cpu["quota"] = host.nano_cpus * 100_000 // 1_000_000_000
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpu_realtime_period:
        cpu["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        cpu["realtimeRuntime"] = host.cpu_realtime_runtime
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    document: dict[str, Any] = {"devices": device_rules}
    if memory:
        document["memory"] = memory
    if cpu:
        document["cpu"] = cpu
    if host.pids_limit is not None and host.pids_limit != 0:
        document["pids"] = {"limit": host.pids_limit}
    block = _block_io(host)
    if block:
        document["blockIO"] = block
    return document


def _block_io(host: HostConfig) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if host.blkio_weight:
        block["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        block["weightDevice"] = [
            {**_numbers(device.path), "weight": device.weight} for device in host.blkio_weight_device
        ]
    for name, devices in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if devices:
            block[name] = [{**_numbers(device.path), "rate": device.rate} for device in devices]
    return block


def _numbers(path: str) -> dict[str, int]:
    try:
        device = os.stat(path).st_rdev
    except OSError as error:
        raise InvalidArgument(f"stat {path}: {(error.strerror or '').lower()}") from error
    return {"major": os.major(device), "minor": os.minor(device)}
