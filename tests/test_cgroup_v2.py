"""``dockp`` on a host with cgroup v2 alone, as most have it now. ``make test-vm`` runs this where version 1 rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Dockp, wait_for

from dockp.linux import cgroups

LAYOUT = cgroups.detect()

pytestmark = pytest.mark.skipif(
    bool(LAYOUT.v1) or not LAYOUT.unified_controllers >= {"cpu", "io", "memory", "pids"},
    reason="cgroup v2 has no controllers here (make test-vm has a guest)",
)


def test_info_says_which_version_it_is(dockp: Dockp) -> None:
    assert dockp.ok("info", "-f", "{{.CgroupVersion}}") == "2"
    known = json.loads(dockp.ok("info", "-f", "json"))
    assert (known["MemoryLimit"], known["PidsLimit"], known["CPUShares"]) == (True, True, True)


def test_limits_reach_the_cgroup(dockp: Dockp) -> None:
    container = dockp.ok(
        "run", "-d", "--network", "none", "--pids-limit", "20", "--cpus", "0.5", "-c", "512", "-m", "32m",
        "--memory-swap", "48m", "--memory-reservation", "16m", "busybox", "sleep", "60",
    )  # fmt: skip
    group = Path(LAYOUT.unified, dockp.cgroup_parent, container)
    names = ("pids.max", "cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "memory.low")
    found = [(group / name).read_text().strip() for name in names]
    assert found == ["20", "50000 100000", "20", str(32 << 20), str(16 << 20), str(16 << 20)]
    # Inside it looks like the root of a tree, and cannot be changed.
    script = "cat /proc/self/cgroup /sys/fs/cgroup/pids.max; echo 30 > /sys/fs/cgroup/pids.max"
    done = dockp("exec", container, "sh", "-c", script)
    assert done.stdout.split() == ["0::/", "20"]
    assert "Read-only" in done.stderr


def test_a_container_out_of_memory_is_killed_and_says_so(dockp: Dockp) -> None:
    done = dockp("run", "--name", "greedy", "--network", "none", "-m", "16m", "--memory-swap", "16m", "busybox",
                 "tail", "-c", "64m", "/dev/zero")  # fmt: skip
    assert done.returncode == 137
    assert dockp.ok("inspect", "-f", "{{.State.OOMKilled}}", "greedy") == "true"


def test_the_pids_limit_holds(dockp: Dockp) -> None:
    done = dockp("run", "--rm", "--network", "none", "--pids-limit", "6", "busybox", "sh", "-c",
                 "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done")  # fmt: skip
    assert "can't fork" in done.stderr


def test_cpu_time_is_limited(dockp: Dockp) -> None:
    out = dockp.ok("run", "--rm", "--network", "none", "--cpus", "0.2", "busybox", "sh", "-c",
                   "timeout 1 sh -c 'while :; do :; done'; grep nr_throttled /sys/fs/cgroup/cpu.stat")  # fmt: skip
    assert int(out.split()[1]) >= 3


def test_pause_freezes_and_kill_reaches_what_is_frozen(dockp: Dockp) -> None:
    container = dockp.ok("run", "-d", "--name", "still", "--network", "none", "busybox", "sh", "-c",
                         "while :; do echo tick; sleep 0.1; done")  # fmt: skip
    wait_for(lambda: dockp.ok("logs", "still"), "it ticks")
    dockp.ok("pause", "still")
    assert dockp.state("still") == "paused"
    group = Path(LAYOUT.unified, dockp.cgroup_parent, container)
    assert "frozen 1" in (group / "cgroup.events").read_text()
    dockp.ok("unpause", "still")
    assert "frozen 0" in (group / "cgroup.events").read_text()
    dockp.ok("pause", "still")
    dockp.ok("rm", "-f", "still")
    assert not group.exists()


def test_devices_are_denied_by_a_program(dockp: Dockp) -> None:
    script = "mknod /tmp/disk b 7 0 && head -c 1 /tmp/disk; head -c 1 /dev/zero | wc -c"
    done = dockp("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert "Operation not permitted" in done.stderr
    assert done.stdout.strip() == "1"
