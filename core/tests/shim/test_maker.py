"""The process that makes a container for the shim and is gone when the container runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from shimlab import CGROUP, eventually

from dockp.spi.errors import FailedPrecondition
from dockp.spi.runtime import RuntimeFailure


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid):
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def cgroups(id):
    return list(Path("/sys/fs/cgroup").glob(f"*{CGROUP}/{id}"))


def maker_of(client):
    """The one child of a shim before `create`."""
    client.state()  # answered when the container is prepared
    (maker,) = children(client.state().shim_pid)
    return maker


def test_the_container_is_a_child_of_the_shim_and_its_maker_is_gone_once_it_runs(real):
    client = real.launch("c", ["sleep", "60"])
    maker = maker_of(client)
    client.create()
    client.claim()
    client.start()
    state = client.state()
    eventually(lambda: children(state.shim_pid) == [state.pid])
    assert gone(maker)
    assert cgroups("c")


def test_the_shim_shares_the_mount_namespace_that_its_maker_prepared(real):
    client = real.launch("c", ["sleep", "60"])
    maker, shim = maker_of(client), client.state().shim_pid
    assert os.readlink(f"/proc/{maker}/ns/mnt") == os.readlink(f"/proc/{shim}/ns/mnt")
    assert os.readlink(f"/proc/{shim}/ns/mnt") != os.readlink("/proc/self/ns/mnt")


def test_a_maker_that_is_killed_before_create_fails_the_create(real):
    client = real.launch("c", ["sleep", "60"])
    os.kill(maker_of(client), signal.SIGKILL)
    with pytest.raises(RuntimeFailure, match="was killed"):
        client.create()
    assert not cgroups("c")


def test_a_maker_that_is_killed_before_start_takes_the_container_along(real):
    client = real.launch("c", ["sleep", "60"])
    maker = maker_of(client)
    client.create()
    pid = client.state().pid
    os.kill(maker, signal.SIGKILL)
    with pytest.raises((RuntimeFailure, FailedPrecondition)):  # the latter when the shim has seen the end already
        client.start()
    eventually(lambda: gone(pid))
    assert not cgroups("c")


def test_a_shim_that_is_killed_before_start_takes_maker_and_container_along(real):
    client = real.launch("c", ["sleep", "60"])
    maker = maker_of(client)
    client.create()
    pid = client.state().pid
    os.kill(client.state().shim_pid, signal.SIGKILL)
    eventually(lambda: gone(maker) and gone(pid))


def test_a_restarted_container_is_made_apart_again(real):
    client = real.launch("c", "exit 3", restart={"name": "on-failure", "max": 2})
    client.create()
    client.claim()
    client.start()
    state = eventually(lambda: (state := client.state()).status == "exited" and state)
    assert (state.exit_code, state.restart_count) == (3, 2)


def test_twenty_shims_of_a_zygote_hold_little_each(real):
    real.start_zygote(["dockp.logs.json_file_writer"])
    clients = [real.run(f"c{n}", ["sleep", "60"], log=real.log(f"c{n}")) for n in range(20)]
    sizes = []
    for client in clients:
        rollup = Path(f"/proc/{client.state().shim_pid}/smaps_rollup").read_text()
        sizes.append(int(rollup.partition("Pss:")[2].split()[0]))
    assert sum(sizes) / 20 < 2_500  # kB; 1750 where the zygote found compiled modules, 2400 where it compiled them
