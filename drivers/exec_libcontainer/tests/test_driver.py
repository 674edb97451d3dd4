"""The engine's half: probe, the seccomp cache, what is found and cleaned after a shim died."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from libcontainer_box import Box

from dockp.spi.errors import InvalidArgument
from dockp_exec_libcontainer import plugin
from dockp_exec_libcontainer.driver import LibcontainerDriver
from dockp_exec_libcontainer.seccomp import compile_profile

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [
        {"names": ["read", "write", "exit_group", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
        },
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
    ],
}


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie that waits for its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_plugin_names_one_driver() -> None:
    assert plugin.DOCKP_SPI == 1
    (driver,) = plugin.dockp_exec_drivers()
    assert driver is LibcontainerDriver
    assert driver.runtime == "dockp_exec_libcontainer.runtime:Runtime"


def test_the_probe_finds_what_the_tests_here_use(box: Box) -> None:
    found = LibcontainerDriver.probe({})
    assert found.supported, found.reason
    assert found.features & {"cgroup-v1", "cgroup-v2"}
    assert {"seccomp", "freezer", "pids"} <= found.features
    assert found.details["Cgroup Version"]


def test_an_unknown_option_is_refused_with_its_name() -> None:
    with pytest.raises(InvalidArgument, match="flavour"):
        LibcontainerDriver({"flavour": "sweet"})
    with pytest.raises(InvalidArgument, match="not an absolute path"):
        LibcontainerDriver.probe({"cache": "here"})


def test_prepare_fills_the_cache_once(tmp_path: Path) -> None:
    driver = LibcontainerDriver({"cache": str(tmp_path / "cache")})
    assert driver.runtime_options() == {"cache": str(tmp_path / "cache")}
    driver.prepare({"linux": {"seccomp": PROFILE}})
    (entry,) = (tmp_path / "cache").iterdir()
    before = entry.stat().st_mtime_ns
    driver.prepare({"linux": {"seccomp": PROFILE}})
    assert [(one, one.stat().st_mtime_ns) for one in (tmp_path / "cache").iterdir()] == [(entry, before)]
    assert entry.stat().st_mode & 0o777 == 0o600


def test_prepare_without_a_profile_does_nothing(tmp_path: Path) -> None:
    LibcontainerDriver({"cache": str(tmp_path / "cache")}).prepare({"linux": {}})
    assert not (tmp_path / "cache").exists()


def test_a_profile_that_cannot_be_compiled_is_an_invalid_argument(tmp_path: Path) -> None:
    driver = LibcontainerDriver({"cache": str(tmp_path)})
    with pytest.raises(InvalidArgument, match="SCMP_ACT_SING"):
        driver.prepare({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_SING"}}})


def test_a_filter_is_whole_instructions() -> None:
    code = compile_profile(PROFILE)
    assert len(code) > 8
    assert len(code) % 8 == 0


def test_newer_system_calls_than_the_profile_knows_do_not_exist(box: Box) -> None:
    """A C library that probes for a call falls back on ENOSYS alone."""
    container = box.container()
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "syscalls": [{"names": ["openat2"], "action": "SCMP_ACT_ALLOW"}],
    }
    code = compile_profile(container.linux["seccomp"])
    assert os.strerror(38) == "Function not implemented"
    assert (0x00050000 | 38).to_bytes(4, "little") in code


def test_what_a_dead_shim_left_is_found_and_cleaned(box: Box) -> None:
    container = box.container()
    container.process["args"] = ["sleep", "100"]
    # Nothing ties it to the shim's life but the kernel's signal: with the host's pid namespace a child survives.
    container.without("pid")
    container.shell("setsid sleep 1000 & sleep 100; true")
    container.create()
    container.start()
    while len(container.ask("processes")) < 3:
        pass
    pids = container.ask("processes")
    driver = LibcontainerDriver({})
    assert driver.inventory(box.cgroup_parent) == {container.id}
    box.process.send_signal(signal.SIGKILL)
    box.process.wait()
    assert driver.inventory(box.cgroup_parent) == {container.id}
    driver.clean(container.id, box.cgroup_parent)
    assert driver.inventory(box.cgroup_parent) == frozenset()
    assert not [pid for pid in pids if alive(pid)]
    driver.clean(container.id, box.cgroup_parent)


def test_cleaning_what_never_was_is_success() -> None:
    LibcontainerDriver({}).clean("never", "/dockp-test-nowhere")
    assert LibcontainerDriver({}).inventory("/dockp-test-nowhere") == frozenset()
