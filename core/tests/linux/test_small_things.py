"""JSON without the json package, capabilities, locks, descriptors, inotify, processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockp.linux import capabilities, cgroups, devices, fds, inotify, jsonlite, locks, namespaces

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_json_is_what_the_json_package_says(value: object) -> None:
    assert json.loads(jsonlite.dumps(value)) == value
    assert jsonlite.loads(json.dumps(value, indent=2)) == value
    assert jsonlite.dumps(value, sort_keys=True) == json.dumps(value, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", '{"a":1} x', "nope", '{"a" 1}', '"\n"', b"\xff"])
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsonlite.loads(text)


def test_what_json_cannot_say_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        jsonlite.dumps({"a": object()})


def test_capability_names_and_numbers_are_the_kernels() -> None:
    assert capabilities.NUMBERS["CAP_CHOWN"] == 0
    assert capabilities.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert capabilities.NUMBERS["CAP_SYS_RESOURCE"] == 24
    assert capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40
    assert capabilities.mask(["CAP_CHOWN", "cap_kill", "CAP_NONE"]) == (0b100001, ["CAP_NONE"])
    assert capabilities.names(0b100001) == ["CAP_CHOWN", "CAP_KILL"]


def test_the_sets_read_are_those_in_proc() -> None:
    lines = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    effective, permitted, inheritable = capabilities.get()
    assert [effective, permitted, inheritable] == [int(lines[f"Cap{name}"], 16) for name in ("Eff", "Prm", "Inh")]
    assert capabilities.bounding() == int(lines["CapBnd"], 16)


def test_locks_at_different_offsets_are_different_locks(tmp_path: Path) -> None:
    table = locks.RangeLocks(tmp_path / "locks")
    assert not table.is_held(1)
    with table.hold(1), table.hold(2):
        assert table.is_held(1)
        assert table.is_held(2)
        assert not table.is_held(3)
        with pytest.raises(BlockingIOError):
            table.hold(1, wait=False)
    assert not table.is_held(1)


def test_shared_locks_share(tmp_path: Path) -> None:
    table = locks.RangeLocks(tmp_path / "locks")
    with table.hold(7, exclusive=False), table.hold(7, exclusive=False, wait=False), pytest.raises(BlockingIOError):
        table.hold(7, wait=False)


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    table = locks.RangeLocks(tmp_path / "locks")
    seen = []

    def work() -> None:
        with table.hold(0):
            seen.append("in")
            time.sleep(0.01)
            seen.append("out")

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["in", "out"] * 5


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    table = locks.RangeLocks(tmp_path / "locks")
    script = (
        "import sys, time; from dockp.linux.locks import RangeLocks;"
        "held = RangeLocks(sys.argv[1]).hold(3); print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, table.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert table.is_held(3)
        holder.kill()
        holder.wait()
    assert not table.is_held(3)


def test_descriptors_cross_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("over there")
    one, two = socket.socketpair()
    with one, two:
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        assert fds.send_fds(one, b"x", [fd, fd, fd]) == 1
        os.close(fd)
        data, got, _flags, _address = socket.recv_fds(two, 10, 3)
        assert data == b"x"
        assert len(got) == 3
        assert os.read(got[0], 100) == b"over there"
        for one_fd in got:
            os.close(one_fd)


def test_inotify_tells_of_new_files(tmp_path: Path) -> None:
    watcher = inotify.Inotify()
    try:
        watch = watcher.add(str(tmp_path), inotify.IN_CREATE)
        assert watcher.read() == []
        (tmp_path / "new").touch()
        assert watcher.read() == [(watch, inotify.IN_CREATE, "new")]
        watcher.remove(watch)
    finally:
        watcher.close()


def test_a_pidfd_tells_whether_the_process_is_there() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    fd = namespaces.pidfd_open(pid)
    try:
        assert namespaces.pidfd_signal(fd, 9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
        assert not namespaces.pidfd_signal(fd, 9)
    finally:
        os.close(fd)


RULES = [
    {"allow": True, "type": "a", "access": "rwm"},
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "access": "r"},
    {"allow": True, "type": "b", "major": 8, "minor": -1},
]


def test_device_rules_become_lines_of_version_1() -> None:
    assert devices.v1_lines(RULES) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rwm"),
        ("devices.allow", "c 5:* r"),
        ("devices.allow", "b 8:* rwm"),
    ]
    assert devices.v1_lines([{"allow": True, "access": "rwm"}]) == []
    assert devices.v1_lines([]) == [("devices.deny", "a")]


def decide(code: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run a device program: just the instructions that `devices.program` writes."""
    import struct

    registers = [0] * 11
    context = [access << 16 | kind, major, minor]
    at = 0
    while True:
        opcode, both, offset, value = struct.unpack_from("=BBhi", code, at * 8)
        target, source = both & 15, both >> 4
        at += 1
        if opcode == 0x61:
            registers[target] = context[offset // 4]
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0x54:
            registers[target] &= value & 0xFFFFFFFF
        elif opcode == 0x74:
            registers[target] >>= value
        elif opcode == 0x55:
            at += offset if registers[target] != value else 0
        elif opcode == 0x15:
            at += offset if registers[target] == value else 0
        elif opcode == 0xB7:
            registers[target] = value
        else:
            assert opcode == 0x95
            return registers[0]


BLOCK, CHARACTER = 1, 2
MAKE, READ, WRITE = 1, 2, 4


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "allowed"),
    [
        (CHARACTER, READ | WRITE, 1, 3, 1),
        (CHARACTER, READ, 1, 4, 0),
        (BLOCK, READ, 1, 3, 0),
        (CHARACTER, READ, 5, 99, 1),
        (CHARACTER, READ | WRITE, 5, 99, 0),
        (CHARACTER, MAKE, 5, 1, 0),
        (BLOCK, MAKE | READ | WRITE, 8, 17, 1),
        (BLOCK, READ, 9, 0, 0),
    ],
)
def test_device_rules_become_a_program_that_decides_the_same(
    kind: int, access: int, major: int, minor: int, allowed: int
) -> None:
    assert decide(devices.program(RULES), kind, access, major, minor) == allowed


def test_a_deny_rule_after_an_allow_rule_wins_for_any_of_its_accesses() -> None:
    code = devices.program([{"allow": True}, {"allow": False, "type": "c", "major": 1, "minor": 1, "access": "w"}])
    assert decide(code, CHARACTER, READ, 1, 1) == 1
    assert decide(code, CHARACTER, READ | WRITE, 1, 1) == 0
    assert decide(code, CHARACTER, WRITE, 1, 3) == 1


@pytest.mark.parametrize(
    ("given_path", "path"),
    [
        ("", "/dockp/id"),
        ("/a/b", "/a/b"),
        ("a//b/", "/a/b"),
        ("system.slice:docker:x", "/system.slice/docker-x.scope"),
        (":docker:x", "/system.slice/docker-x.scope"),
    ],
)
def test_cgroup_paths_are_normalised(given_path: str, path: str) -> None:
    assert cgroups.resolve_path(given_path, "id") == path


@pytest.mark.parametrize("bad", ["/", "/a/../b", ".."])
def test_cgroup_paths_outside_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="cgroup"):
        cgroups.resolve_path(bad, "id")
