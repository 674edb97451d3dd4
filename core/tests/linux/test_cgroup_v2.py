"""Controllers of cgroup v2: what is written, and that the kernel does it. ``make test-vm`` runs this where v1 rules."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockp.linux import cgroups, namespaces
from dockp.linux.cgroups import Cgroup

LAYOUT = cgroups.detect()
NEEDED = {"cpu", "io", "memory", "pids"}
MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    not LAYOUT.unified_controllers >= NEEDED, reason="cgroup v2 has no controllers here (make test-vm has a guest)"
)


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    assert os.geteuid() == 0, "these tests make cgroups: run them as root"
    parent = f"/dockp-test-{os.getpid()}"
    made = Cgroup(f"{parent}/deep/one", LAYOUT)
    yield made
    made.remove()
    Cgroup(parent, LAYOUT).remove()
    assert not Cgroup(parent).exists()


def inside(cgroup: Cgroup, work: Callable[[], int]) -> int:
    """Run ``work`` in a process that is born in the group; its exit status, or minus the signal that killed it."""
    place = cgroup.open_unified()
    assert place is not None
    pid, pidfd = namespaces.clone(0, place)
    if pid == 0:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    os.close(place)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def text(cgroup: Cgroup, name: str) -> str:
    return Path(cgroup.unified, name).read_text().strip()


def read_from_disk(file: Path) -> int:
    """Read it past the page cache; 0 when all came."""
    size = file.stat().st_size
    fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
    return int(os.readv(fd, [mmap.mmap(-1, size)]) != size)


def test_controllers_are_passed_on_level_by_level(cgroup: Cgroup) -> None:
    cgroup.create({})
    place = LAYOUT.unified
    for part in cgroup.path.split("/")[1:]:
        assert set(Path(place, "cgroup.subtree_control").read_text().split()) >= NEEDED
        place = f"{place}/{part}"
    assert set(text(cgroup, "cgroup.controllers").split()) >= NEEDED
    # The group itself passes nothing on, or it could hold no process.
    assert text(cgroup, "cgroup.subtree_control") == ""
    assert all(cgroup.place(name) == (cgroup.unified, 2) for name in ("cpu", "blkio", "memory", "pids"))


def test_limits_are_spelled_as_version_2_does(cgroup: Cgroup) -> None:
    cgroup.create({})
    resources = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 1024, "quota": 25000, "period": 50000},
        "pids": {"limit": 20},
        "unified": {"memory.high": "48M"},
    }
    assert cgroup.apply(resources) == []
    found = {name: text(cgroup, name) for name in ("memory.max", "memory.low", "memory.high", "pids.max", "cpu.max")}
    assert found == {
        "memory.max": str(64 * MIB),
        "memory.low": str(32 * MIB),
        "memory.high": str(48 * MIB),
        "pids.max": "20",
        "cpu.max": "25000 50000",
    }
    assert text(cgroup, "memory.swap.max") == str(32 * MIB)
    assert text(cgroup, "cpu.weight") == "39"
    limits = cgroup.stats()
    assert (limits["memory_limit"], limits["pids_limit"]) == (64 * MIB, 20)


def test_limits_are_lifted_again(cgroup: Cgroup) -> None:
    cgroup.create({})
    assert cgroup.apply({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}, "pids": {"limit": 9}}) == []
    assert text(cgroup, "memory.swap.max") == "0"
    assert cgroup.apply({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}) == []
    assert [text(cgroup, f"{name}.max") for name in ("memory", "memory.swap", "pids")] == ["max"] * 3
    assert text(cgroup, "cpu.max") == "max 100000"
    assert not {"memory_limit", "pids_limit"} & set(cgroup.stats())


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": {"swappiness": 10}}, "memory swappiness is not set: cgroup v2 has no such setting"),
        ({"memory": {"disableOOMKiller": True}}, "memory disableOOMKiller is not set"),
        ({"cpu": {"realtimeRuntime": 1000}}, "cpu realtimeRuntime is not set"),
        ({"memory": {"swap": MIB}}, "it needs a memory limit"),
        ({"blockIO": {"throttleReadBpsDevice": [{"major": 251, "minor": 77, "rate": 1}]}}, "ReadBpsDevice is not set"),
    ],
)
def test_what_version_2_cannot_do_is_a_warning(cgroup: Cgroup, resources: dict[str, object], words: str) -> None:
    cgroup.create({})
    (note,) = cgroup.apply(resources)
    assert words in note


def test_too_much_memory_ends_in_a_counted_kill(cgroup: Cgroup) -> None:
    cgroup.create({})
    assert cgroup.apply({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}) == []
    assert cgroup.oom_kills() == 0
    assert inside(cgroup, lambda: len(bytearray(64 * MIB)) and 0) == -9
    assert cgroup.oom_kills() == 1
    found = cgroup.stats()
    assert found["oom_kills"] == 1
    assert 0 < found["memory_max"] <= 16 * MIB
    assert "anon" in found["memory_stat"]


def test_too_many_processes_cannot_be(cgroup: Cgroup) -> None:
    cgroup.create({})
    assert cgroup.apply({"pids": {"limit": 3}}) == []

    def fork_until_refused() -> int:
        for made in range(10):
            try:
                pid = os.fork()
            except BlockingIOError:
                return made
            if pid == 0:
                time.sleep(60)
                os._exit(0)
        return 98

    assert inside(cgroup, fork_until_refused) == 2
    cgroup.kill()


def test_too_much_cpu_time_is_throttled_and_counted(cgroup: Cgroup) -> None:
    cgroup.create({})
    assert cgroup.apply({"cpu": {"quota": 10000, "period": 100000}}) == []

    def spin() -> int:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass
        return 0

    assert inside(cgroup, spin) == 0
    found = cgroup.stats()
    assert found["throttled_periods"] >= 3
    assert found["throttled_ns"] > 0
    assert found["cpu_ns"] < 500_000_000


def test_reading_a_disk_is_slowed_down_and_counted(cgroup: Cgroup, tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    major, minor = os.major(device), os.minor(device)
    if not Path(f"/sys/dev/block/{major}:{minor}/queue").exists():
        pytest.skip("the temporary directory is not right on a whole disk")
    file = tmp_path / "file"
    file.write_bytes(b"x" * 2 * MIB)
    os.sync()
    cgroup.create({})
    rate = [{"major": major, "minor": minor, "rate": MIB}]
    assert cgroup.apply({"blockIO": {"throttleReadBpsDevice": rate}}) == []
    assert f"{major}:{minor} rbps={MIB}" in text(cgroup, "io.max")
    start = time.monotonic()
    assert inside(cgroup, lambda: read_from_disk(file)) == 0
    assert time.monotonic() - start > 1
    read = [entry for entry in cgroup.stats()["io"] if (entry["major"], entry["op"]) == (major, "read")]
    assert read[0]["bytes"] >= 2 * MIB


def test_a_frozen_group_uses_no_time(cgroup: Cgroup) -> None:
    cgroup.create({})
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "while :; do :; done"], {})
    try:
        cgroup.join(pid)
        cgroup.freeze()
        before = cgroup.stats()["cpu_ns"]
        time.sleep(0.2)
        assert cgroup.stats()["cpu_ns"] == before
        # Unlike on version 1 a frozen process can be killed.
        cgroup.kill()
    finally:
        os.kill(pid, 9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
