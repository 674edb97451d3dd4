"""Hosts in a bad state: one clear line, the right exit code, nothing half-made; and all is well once it is mended."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Dockp, everything, image_tar, remains, remove_cgroups, wait_for

_HELP = "\n\nRun 'dockp run --help' for more information"


def _complaint(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that a command failed with."""
    said = done.stderr.rstrip("\n").removesuffix(_HELP)
    assert (done.returncode, said.count("\n")) == (code, 0), done.stderr
    assert said.startswith(("Error: ", "dockp: ")), said
    assert "Traceback" not in said
    assert "internal error" not in said
    return said


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", arguments[-1]], check=True)


@contextmanager
def _own(base: Path, *globals_: str) -> Iterator[Dockp]:
    """An engine on ``base``; what it made is gone afterwards."""
    dockp = Dockp(base, *globals_, name="dockp-hosts")
    try:
        yield dockp
        dockp.clear()
        assert remains(dockp) == []
    finally:
        dockp.clear()
        remove_cgroups(dockp.cgroup_parent)


def _remount(where: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(where)], check=True)


def _fill(where: Path) -> Path:
    """Take every byte that is left there."""
    filler = where / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            while True:
                try:
                    if file.write(bytes(size)) < size:
                        break
                except OSError:
                    break
    return filler


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Dockp]:
    """An engine whose data lies on a file system of 24 MB."""
    data = tmp_path / "data"
    data.mkdir()
    with _mounted("-t", "tmpfs", "-o", "size=24m,mode=0710", "tmpfs", str(data)), _own(tmp_path) as dockp:
        yield dockp


def _import(dockp: Dockp) -> subprocess.CompletedProcess[str]:
    return dockp("image", "import", str(image_tar("busybox")), "busybox")


def test_an_image_that_does_not_fit_is_one_line_and_leaves_no_trace(small: Dockp) -> None:
    small.ok("images")
    _remount(small.data_root, "size=2m")
    said = _complaint(_import(small), 1)
    assert "no space left" in said.lower() or "full" in said
    _remount(small.data_root, "size=24m")
    assert small.ok("images", "-q") == ""
    small.add_image("busybox", image_tar("busybox"))
    assert small.ok("run", "--rm", "busybox", "echo", "fits") == "fits"


def test_no_container_can_be_made_on_a_full_disk_and_all_work_again_when_there_is_space(small: Dockp) -> None:
    small.add_image("busybox", image_tar("busybox"))
    small.ok("run", "--rm", "busybox", "true")
    filler = _fill(small.data_root)
    for network in ("none", "bridge"):
        said = _complaint(small("run", "--network", network, "busybox", "true"), 125)
        assert "no space left" in said.lower() or "full" in said
    said = _complaint(small("create", "busybox", "true"), 1)
    assert "no space left" in said.lower() or "full" in said
    filler.unlink()
    assert small.ok("ps", "-aq") == ""
    assert remains(small) == []
    assert small.ok("run", "--rm", "busybox", "echo", "space") == "space"


def test_a_running_container_survives_a_full_disk_and_ends_with_its_own_exit_code(small: Dockp) -> None:
    small.add_image("busybox", image_tar("busybox"))
    script = "sleep 1; seq 1 20000; exit 5"
    container_id = small.ok("run", "-d", "--name", "talker", "busybox", "sh", "-c", script)
    filler = _fill(small.data_root)
    record = small.exec_root / "containers" / container_id / "state.json"
    wait_for(lambda: '"exited"' in record.read_text(), "the container ends though nobody can write")
    filler.unlink()
    assert small.inspect("talker")["State"]["ExitCode"] == 5
    lines = small.ok("logs", "talker").splitlines()
    assert lines == [str(number) for number in range(1, len(lines) + 1)], "what fitted is in the log, in order"
    small.ok("rm", "talker")
    assert remains(small) == []


def test_a_root_that_became_read_only_is_one_line(small: Dockp) -> None:
    small.add_image("busybox", image_tar("busybox"))
    _remount(small.data_root, "ro")
    try:
        assert "read-only" in _complaint(small("run", "busybox", "true"), 125).lower()
        assert "read-only" in _complaint(_import(small), 1).lower()
    finally:
        _remount(small.data_root, "rw")
    assert small.ok("run", "--rm", "busybox", "echo", "again") == "again"


@pytest.mark.parametrize("option", ["--data-root", "--exec-root"])
def test_roots_that_cannot_be_made_are_one_line_that_names_them(tmp_path: Path, option: str) -> None:
    base = tmp_path / "read-only"
    base.mkdir()
    dockp = Dockp(tmp_path, option, str(base / "root"))
    with _mounted("-t", "tmpfs", "-o", "ro", "tmpfs", str(base)):
        for arguments, code in ((("ps",), 1), (("run", "busybox", "true"), 125)):
            said = _complaint(dockp(*arguments), code)
            assert str(base / "root") in said
            assert "read-only" in said.lower()


def test_a_root_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dockp = Dockp(tmp_path, "--data-root", str(tmp_path / "file"))
    assert str(tmp_path / "file") in _complaint(dockp("ps"), 1)


def test_who_is_not_root_is_told_so_in_one_line(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from dockp.cli.app import run\n"
        "import dockp.cli.tree, dockp.engine.local\n"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    place = Dockp(tmp_path)
    for arguments, code in ((["ps"], 1), (["run", "busybox", "true"], 125)):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            env=place.environment,
            timeout=60,
            check=False,
        )
        assert "needs root" in _complaint(done, code)
    assert not place.data_root.exists()


def test_an_unknown_storage_driver_is_one_line_that_names_those_there_are(tmp_path: Path) -> None:
    with _own(tmp_path) as known:
        known.add_image("busybox", image_tar("busybox"))
        unknown = Dockp(tmp_path, "--storage-driver", "nosuch", name="dockp-hosts")
        for done, code in ((unknown("run", "busybox", "true"), 125), (_import(unknown), 1)):
            said = _complaint(done, code)
            assert "nosuch" in said
            assert "overlay2" in said


def test_a_damaged_database_is_one_line_that_names_the_file(small: Dockp) -> None:
    small.ok("ps")
    file = small.data_root / "state.db"
    whole = file.read_bytes()
    for damaged in (b"this is no database" * 300, whole[:100] + bytes(len(whole) - 100)):
        file.write_bytes(damaged)
        for arguments, code in ((("ps", "-a"), 1), (("run", "busybox", "true"), 125)):
            assert str(file) in _complaint(small(*arguments), code)
    file.write_bytes(whole)
    assert small.ok("ps", "-aq") == ""


def test_a_root_of_a_newer_version_is_left_alone_with_one_line(small: Dockp) -> None:
    small.ok("ps")
    connection = sqlite3.connect(small.data_root / "state.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    assert "newer" in _complaint(small("ps"), 1)
    assert "newer" in _complaint(small("run", "busybox", "true"), 125)
    connection = sqlite3.connect(small.data_root / "state.db")
    connection.execute("PRAGMA user_version=1")
    connection.close()


def test_where_overlay_cannot_work_vfs_is_chosen_and_info_says_why(tmp_path: Path) -> None:
    """The upper directory of an overlay cannot lie on an overlay."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    merged = tmp_path / "merged"
    with _mounted("-t", "overlay", "-o", options, "overlay", str(merged)), _own(merged) as dockp:
        dockp.add_image("busybox", image_tar("busybox"))
        assert dockp.ok("run", "--rm", "busybox", "echo", "works") == "works"
        assert dockp.ok("info", "-f", "{{.Driver}}") == "vfs"
        plugins = json.loads(dockp.ok("info", "-f", "{{json .DockpPlugins}}"))
        overlay = next(plugin for plugin in plugins if plugin["Name"] == "overlay2")
        assert not overlay["Supported"]
        assert "overlay" in overlay["Reason"]


class _WithoutCgroups(Dockp):
    """Commands that see no cgroup file system."""

    @property
    def command(self) -> list[str]:
        script = 'umount -l -R /sys/fs/cgroup && exec "$@"'
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *super().command]


def test_containers_run_without_cgroups_and_say_which_limits_they_do_not_have(tmp_path: Path) -> None:
    dockp = _WithoutCgroups(tmp_path, name="dockp-hosts")
    dockp.add_image("busybox", image_tar("busybox"))
    try:
        plain = dockp("run", "--rm", "busybox", "echo", "works")
        assert (plain.returncode, plain.stdout) == (0, "works\n")
        assert plain.stderr.startswith("WARNING: device rules are not enforced")
        assert plain.stderr.count("\n") == 1
        # A host's disk must not be within reach for that: no device nodes are made, by nobody in there.
        assert "CAP_MKNOD is withheld" in plain.stderr
        made = dockp("run", "--rm", "busybox", "mknod", "/disk", "b", "254", "0")
        assert (made.returncode, "Operation not permitted" in made.stderr) == (1, True)
        limited = dockp("run", "--rm", "-m", "64m", "busybox", "echo", "works")
        assert (limited.returncode, limited.stdout) == (0, "works\n")
        assert "WARNING: memory limits are not set" in limited.stderr
        dockp.ok("run", "-d", "--name", "stays", "--stop-signal", "KILL", "busybox", "sleep", "1000")
        assert dockp("exec", "--privileged", "stays", "mknod", "/disk", "b", "254", "0").returncode == 1
        assert dockp.ok("exec", "stays", "echo", "inside") == "inside"
        dockp.ok("stop", "stays")
        assert dockp.inspect("stays")["State"]["ExitCode"] == 137
    finally:
        dockp.clear()
    assert everything(dockp) == []


def test_a_full_run_root_is_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with _mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(run)), _own(tmp_path) as dockp:
        dockp.add_image("busybox", image_tar("busybox"))
        dockp.ok("run", "--rm", "busybox", "true")
        filler = _fill(run)
        said = _complaint(dockp("run", "--rm", "busybox", "true"), 125)
        assert "no space left" in said.lower()
        filler.unlink()
        assert dockp.ok("run", "--rm", "busybox", "echo", "space") == "space"


def test_what_the_engine_makes_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with _own(tmp_path) as dockp:
            dockp.add_image("busybox", image_tar("busybox"))
            script = "stat -c %a / /etc/hosts /etc/hostname /tmp; umask"
            said = dockp.ok("run", "--rm", "-u", "1000", "busybox", "sh", "-c", script)
    finally:
        os.umask(before)
    assert said.split()[:3] == ["755", "644", "644"]
    assert said.split()[-1] == "0022"
