"""Limits: an OCI ``linux.resources`` object written into a cgroup, what the host refuses told as warnings.

Sources: OCI runtime-spec config-linux.md "Control groups", kernel doc admin-guide/cgroup-v1/ and cgroup-v2.rst.
"""

from __future__ import annotations

import os

from dockp.linux.cgroup_files import number, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from dockp.linux.cgroups import Cgroup

    Resources = Mapping[str, Any]


def extra_controllers(resources: Resources) -> set[str]:
    """Controllers that the resources need beyond the ones every container is in."""
    wanted = set()
    cpu = resources.get("cpu") or {}
    if cpu.get("cpus") or cpu.get("mems"):
        wanted.add("cpuset")
    if resources.get("hugepageLimits"):
        wanted.add("hugetlb")
    network = resources.get("network") or {}
    if network.get("classID"):
        wanted.add("net_cls")
    if network.get("priorities"):
        wanted.add("net_prio")
    if resources.get("rdma"):
        wanted.add("rdma")
    return wanted


class Limits:
    """One pass over an OCI ``linux.resources`` object."""

    def __init__(self, cgroup: Cgroup, resources: Resources, notes: list[str]) -> None:
        self._cgroup = cgroup
        self._resources = resources
        self._notes = notes

    def apply(self) -> None:
        self._memory(self._resources.get("memory") or {})
        self._cpu(self._resources.get("cpu") or {})
        self._pids(self._resources.get("pids") or {})
        self._block_io(self._resources.get("blockIO") or {})
        self._huge_pages(self._resources.get("hugepageLimits") or [])
        self._network(self._resources.get("network") or {})
        self._rdma(self._resources.get("rdma") or {})
        self._raw(self._resources.get("unified") or {})

    def _set(self, directory: str, name: str, value: object, what: str) -> bool:
        try:
            write(f"{directory}/{name}", str(value))
        except FileNotFoundError:
            self._notes.append(f"{what} is not set: this kernel has no {name}")
            return False
        except OSError as failure:
            self._notes.append(f"{what} is not set: writing {value} to {name}: {failure.strerror}")
            return False
        return True

    def _place(self, controller: str, wanted: object) -> tuple[str, int]:
        directory, version = self._cgroup.place(controller) if wanted else ("", 0)
        if wanted and not directory:
            self._notes.append(
                f"{controller} limits are not set: this host has no {controller} controller, or it is not mounted"
            )
        return directory, version

    def _memory(self, memory: Mapping[str, Any]) -> None:
        asked = {key: value for key, value in memory.items() if value is not None and key not in ("checkBeforeUpdate",)}
        if asked.get("disableOOMKiller") is False:
            del asked["disableOOMKiller"]
        directory, version = self._place("memory", asked)
        if not directory:
            return
        limit, swap = asked.get("limit"), asked.get("swap")
        if version == 1:
            both = [
                ("memory.limit_in_bytes", limit, "memory limit"),
                ("memory.memsw.limit_in_bytes", swap, "memory+swap limit"),
            ]
            # limit <= memory+swap must hold after every single write: raise the outer one first, lower it last.
            current = number(f"{directory}/memory.memsw.limit_in_bytes")
            if swap and limit and current is not None and (swap < 0 or limit > current):
                both.reverse()
            for name, value, what in both:
                if value:
                    self._set(directory, name, value, what)
            simple = (
                ("reservation", "memory.soft_limit_in_bytes", "memory reservation"),
                ("kernel", "memory.kmem.limit_in_bytes", "kernel memory limit"),
                ("kernelTCP", "memory.kmem.tcp.limit_in_bytes", "kernel TCP memory limit"),
                ("swappiness", "memory.swappiness", "memory swappiness"),
            )
            for key, name, what in simple:
                if key in asked and (asked[key] or key == "swappiness"):
                    self._set(directory, name, asked[key], what)
            if asked.get("disableOOMKiller"):
                self._set(directory, "memory.oom_control", 1, "oom-kill-disable")
            if asked.get("useHierarchy"):
                self._set(directory, "memory.use_hierarchy", 1, "memory.use_hierarchy")
            return
        if limit:
            self._set(directory, "memory.max", _or_max(limit), "memory limit")
        if swap:
            # The spec's number is memory plus swap, version 2's is swap alone.
            if swap < 0:
                self._set(directory, "memory.swap.max", "max", "swap limit")
            elif not limit or limit < 0:
                self._notes.append("swap limit is not set: it needs a memory limit")
            else:
                self._set(directory, "memory.swap.max", max(swap - limit, 0), "swap limit")
        if asked.get("reservation"):
            self._set(directory, "memory.low", _or_max(asked["reservation"]), "memory reservation")
        for key in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"):
            if asked.get(key):
                self._notes.append(f"memory {key} is not set: cgroup v2 has no such setting")

    def _cpu(self, cpu: Mapping[str, Any]) -> None:
        asked = {key: value for key, value in cpu.items() if value}
        sets = {key: asked.pop(key) for key in ("cpus", "mems") if key in asked}
        directory, _ = self._place("cpuset", sets)
        for name, value in sets.items() if directory else ():
            self._set(directory, f"cpuset.{name}", value, f"cpuset {name}")
        directory, version = self._place("cpu", asked)
        if not directory:
            return
        shares, quota, period = asked.get("shares"), asked.get("quota"), asked.get("period")
        if version == 1:
            if shares:
                self._set(directory, "cpu.shares", shares, "cpu shares")
            if asked.get("realtimePeriod"):
                self._set(directory, "cpu.rt_period_us", asked["realtimePeriod"], "cpu realtime period")
            if asked.get("realtimeRuntime"):
                self._set(directory, "cpu.rt_runtime_us", asked["realtimeRuntime"], "cpu realtime runtime")
            if period:
                self._set(directory, "cpu.cfs_period_us", period, "cpu period")
            if quota:
                self._set(directory, "cpu.cfs_quota_us", quota, "cpu quota")
            if asked.get("burst"):
                self._set(directory, "cpu.cfs_burst_us", asked["burst"], "cpu burst")
        else:
            if shares:
                # shares of 2..262144 to a weight of 1..10000
                self._set(directory, "cpu.weight", 1 + (shares - 2) * 9999 // 262142, "cpu shares")
            if quota or period:
                amount = quota if quota and quota > 0 else "max"
                self._set(directory, "cpu.max", f"{amount} {period or 100000}", "cpu quota")
            if asked.get("burst"):
                self._set(directory, "cpu.max.burst", asked["burst"], "cpu burst")
            for key in ("realtimePeriod", "realtimeRuntime"):
                if key in asked:
                    self._notes.append(f"cpu {key} is not set: cgroup v2 has no such setting")
        if asked.get("idle"):
            self._set(directory, "cpu.idle", asked["idle"], "cpu idle")

    def _pids(self, pids: Mapping[str, Any]) -> None:
        limit = pids.get("limit")
        directory, _ = self._place("pids", limit)
        if directory and limit:
            self._set(directory, "pids.max", _or_max(limit), "pids limit")

    def _block_io(self, io: Mapping[str, Any]) -> None:
        asked = {key: value for key, value in io.items() if value}
        directory, version = self._place("blkio", asked)
        if not directory:
            return
        for key, name, field in (
            ("throttleReadBpsDevice", "read_bps", "rbps"),
            ("throttleWriteBpsDevice", "write_bps", "wbps"),
            ("throttleReadIOPSDevice", "read_iops", "riops"),
            ("throttleWriteIOPSDevice", "write_iops", "wiops"),
        ):
            for entry in asked.get(key, ()):
                device, rate = f"{entry['major']}:{entry['minor']}", entry["rate"]
                if version == 1:
                    self._set(directory, f"blkio.throttle.{name}_device", f"{device} {rate}", key)
                else:
                    self._set(directory, "io.max", f"{device} {field}={rate or 'max'}", key)
        weight = asked.get("weight")
        if weight:
            if version == 1:
                # only one of the two schedulers that know weights is there, if any
                old = os.path.exists(f"{directory}/blkio.weight")
                self._set(directory, "blkio.weight" if old else "blkio.bfq.weight", weight, "block IO weight")
            elif os.path.exists(f"{directory}/io.bfq.weight"):
                self._set(directory, "io.bfq.weight", weight, "block IO weight")
            else:
                # a weight of 10..1000 to one of 1..10000
                self._set(directory, "io.weight", 1 + (weight - 10) * 9999 // 990, "block IO weight")
        if asked.get("leafWeight"):
            self._set(directory, "blkio.leaf_weight", asked["leafWeight"], "block IO leaf weight")
        for entry in asked.get("weightDevice", ()):
            device = f"{entry['major']}:{entry['minor']}"
            if entry.get("weight"):
                name = "blkio.bfq.weight_device" if version == 1 else "io.bfq.weight"
                if version == 1 and not os.path.exists(f"{directory}/{name}"):
                    name = "blkio.weight_device"
                self._set(directory, name, f"{device} {entry['weight']}", "block IO weight of a device")
            if entry.get("leafWeight"):
                self._set(
                    directory,
                    "blkio.leaf_weight_device",
                    f"{device} {entry['leafWeight']}",
                    "block IO leaf weight of a device",
                )

    def _huge_pages(self, limits: Sequence[Mapping[str, Any]]) -> None:
        directory, version = self._place("hugetlb", limits)
        for entry in limits if directory else ():
            name = f"hugetlb.{entry['pageSize']}.{'limit_in_bytes' if version == 1 else 'max'}"
            self._set(directory, name, entry["limit"], "huge page limit")

    def _network(self, network: Mapping[str, Any]) -> None:
        class_id, priorities = network.get("classID"), network.get("priorities")
        directory, _ = self._place("net_cls", class_id)
        if directory:
            self._set(directory, "net_cls.classid", class_id, "network class id")
        directory, _ = self._place("net_prio", priorities)
        for entry in priorities or () if directory else ():
            self._set(directory, "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}", "network priority")

    def _rdma(self, rdma: Mapping[str, Any]) -> None:
        directory, _ = self._place("rdma", rdma)
        for device, limits in rdma.items() if directory else ():
            words = [device]
            for key, name in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
                if limits.get(key) is not None:
                    words.append(f"{name}={limits[key]}")
            self._set(directory, "rdma.max", " ".join(words), "rdma limit")

    def _raw(self, files: Mapping[str, str]) -> None:
        for name, value in files.items():
            if "/" in name or name.startswith("cgroup."):
                self._notes.append(f"unified {name!r} is not set: not the name of a limit")
            elif not self._cgroup.unified:
                self._notes.append(f"unified {name} is not set: this host has no cgroup v2 tree")
            else:
                for line in value.splitlines() or [""]:
                    self._set(self._cgroup.unified, name, line, f"unified {name}")


def _or_max(limit: int) -> int | str:
    return limit if limit > 0 else "max"
