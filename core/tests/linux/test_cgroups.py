"""One cgroup in every arrangement of hierarchies that this kernel can show: version 1, version 2, both."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dockp.linux import cgroups, devices
from dockp.linux.cgroups import Cgroup, Layout

WAYS = ("v1", "v2", "hybrid")


def layout(way: str) -> Layout:
    found = cgroups.detect()
    v1 = {name: point for name, point in found.v1.items() if not name.startswith("name=")}
    if way != "v2" and not v1:
        pytest.skip("no cgroup v1 controller is mounted")
    if way != "v1" and not found.unified:
        pytest.skip("no cgroup v2 tree is mounted")
    return Layout(
        {} if way == "v2" else v1,
        "" if way == "v1" else found.unified,
        frozenset() if way == "v1" else found.unified_controllers,
    )


@pytest.fixture(params=WAYS)
def cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    assert os.geteuid() == 0, "these tests make cgroups: run them as root"
    parent = f"/dockp-test-{os.getpid()}-{request.param}"
    made = Cgroup(f"{parent}/one", layout(request.param))
    yield made
    made.remove()
    Cgroup(parent, made.layout).remove()
    assert not Cgroup(parent).exists()


@pytest.fixture
def sleeper() -> Iterator[int]:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    yield pid
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return  # the test saw to it


def test_what_is_detected_is_mounted() -> None:
    found = cgroups.detect()
    assert found.v1 or found.unified
    for point in {*found.v1.values(), found.unified} - {""}:
        assert os.path.exists(f"{point}/cgroup.procs")


def test_processes_join_and_are_listed(cgroup: Cgroup, sleeper: int) -> None:
    cgroup.create({})
    cgroup.join(sleeper)
    assert cgroup.pids() == [sleeper]
    for directory in {*cgroup.directories.values(), cgroup.unified} - {""}:
        with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
            assert file.read().split() == [str(sleeper)]


def test_a_process_joins_itself(cgroup: Cgroup) -> None:
    cgroup.create({})
    tasks = cgroup.open_tasks()
    place = cgroup.open_unified()
    pid = os.fork()
    if pid == 0:
        try:
            cgroups.join_self(tasks)
            os.execv("/bin/sleep", ["sleep", "60"])
        finally:  # never back into pytest
            os._exit(1)
    for fd in tasks:
        os.close(fd)
    if place is not None:
        os.close(place)
    try:
        if cgroup.directories:
            directory = next(iter(cgroup.directories.values()))
            while True:
                with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                    if file.read().split() == [str(pid)]:
                        break
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_freeze_stops_and_thaw_continues(cgroup: Cgroup, sleeper: int) -> None:
    cgroup.create({})
    cgroup.join(sleeper)
    assert not cgroup.frozen()
    cgroup.freeze()
    assert cgroup.frozen()
    cgroup.thaw()
    assert not cgroup.frozen()


def test_kill_reaches_every_process_below_too(cgroup: Cgroup) -> None:
    cgroup.create({})
    # On version 2 a group that passes controllers on may have no processes of its own.
    places = [Cgroup(f"{cgroup.path}/{name}", cgroup.layout) for name in ("below", "beside")]
    pids = []
    for place in places:
        place.create({})
        pids.append(os.posix_spawn("/bin/sleep", ["sleep", "60"], {}))
        place.join(pids[-1])
    assert cgroup.pids() == sorted(pids)
    cgroup.kill()
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [-9] * 2


def test_remove_kills_even_frozen_processes(cgroup: Cgroup, sleeper: int) -> None:
    cgroup.create({})
    cgroup.join(sleeper)
    cgroup.freeze()
    cgroup.remove()
    assert not Cgroup(cgroup.path, cgroup.layout).exists()
    assert os.waitstatus_to_exitcode(os.waitpid(sleeper, 0)[1]) == -9
    cgroup.remove()


def test_one_in_use_is_not_made_again(cgroup: Cgroup, sleeper: int) -> None:
    cgroup.create({})
    cgroup.join(sleeper)
    with pytest.raises(FileExistsError):
        Cgroup(cgroup.path, cgroup.layout).create({})


def test_devices_are_limited_by_either_version(cgroup: Cgroup) -> None:
    cgroup.create({})
    rules = [{"allow": False}, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]
    assert cgroup.limit_devices(rules) == []
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            cgroup.join(os.getpid())
            for path in ("/dev/null", "/dev/zero"):
                try:
                    os.close(os.open(path, os.O_RDONLY))
                    os.write(writer, b"yes ")
                except PermissionError:
                    os.write(writer, b"no ")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        assert answers.read() == "yes no "


def test_a_long_list_of_devices_is_enforced(cgroup: Cgroup) -> None:
    """Docker's default list was too long for the buffer of the verifier's log once, and so not in force."""
    cgroup.create({})
    rules = [{"allow": False}]
    rules += [{"allow": True, "type": "c", "major": 1, "minor": minor, "access": "rw"} for minor in range(200, 400)]
    assert cgroup.limit_devices(rules) == []


def test_a_program_the_kernel_refuses_is_one_line(cgroup: Cgroup) -> None:
    with pytest.raises(OSError, match=r"device program") as caught:
        devices.attach(-1, b"\x95" + bytes(7))  # exit, with nothing to return
    assert "R0 !read_ok" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stats_never_fail_and_are_whole_numbers(cgroup: Cgroup, sleeper: int) -> None:
    cgroup.create({})
    cgroup.join(sleeper)
    found = cgroup.stats()
    assert found["pids"] == 1
    assert all(isinstance(value, (int, list, dict)) for value in found.values())


def test_a_limit_without_its_controller_is_a_warning(cgroup: Cgroup) -> None:
    cgroup.create({})
    notes = cgroup.apply({"network": {"classID": 5}, "unified": {"cgroup.procs": "1", "no.such": "1"}})
    assert len(notes) == 3
    assert all("is not set" in note or "are not set" in note for note in notes)


def test_children_are_found_in_any_hierarchy(cgroup: Cgroup) -> None:
    cgroup.create({})
    parent = cgroup.path.rpartition("/")[0]
    assert cgroups.children(parent) == {"one"}
    assert cgroups.children("/dockp-test-none") == set()
