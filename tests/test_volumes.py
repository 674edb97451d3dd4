"""Volumes in containers: options, parts, what comes from images, and what is left when something is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from harness import Dockp, image_tar, shim_pid, wait_for


def sh(dockp: Dockp, script: str, *flags: str) -> str:
    return dockp.ok("run", "--rm", "--network", "none", *flags, "busybox", "sh", "-c", script)


def host_mounts() -> set[str]:
    return {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}


@pytest.mark.own
def test_a_volume_can_be_a_file_system_that_the_host_does_not_see(dockp: Dockp) -> None:
    dockp.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=7", "scratch")
    before = host_mounts()
    name = dockp.ok("run", "-d", "--network", "none", "-v", "scratch:/data", "busybox", "sleep", "60")
    assert dockp.ok("exec", name, "stat", "-f", "-c", "%T", "/data") in ("tmpfs", "UNKNOWN (0x1021994)", "1021994")
    assert "tmpfs /data tmpfs rw,relatime,size=1024k,uid=7" in dockp.ok("exec", name, "cat", "/proc/mounts")
    assert host_mounts() == before
    (mount,) = dockp.inspect(name)["Mounts"]
    assert mount["Source"] == str(dockp.data_root / "volumes" / "scratch" / "_data")
    assert os.listdir(mount["Source"]) == []
    dockp.ok("restart", "-t", "0", name)
    assert "tmpfs /data tmpfs" in dockp.ok("exec", name, "cat", "/proc/mounts")
    dockp.ok("rm", "-f", name)
    dockp.ok("volume", "rm", "scratch")


def test_a_volume_can_be_a_directory_elsewhere(dockp: Dockp, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    options = ("-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind")
    dockp.ok("volume", "create", *options, "elsewhere")
    assert sh(dockp, "cat /data/file; echo back > /data/answer", "-v", "elsewhere:/data") == "from the host"
    assert (tmp_path / "answer").read_text() == "back\n"
    assert sh(dockp, "echo x > /data/y || true", "-v", "elsewhere:/data:ro") == ""
    dockp.ok("volume", "rm", "elsewhere")
    assert (tmp_path / "file").exists(), "what the volume only showed stays"


@pytest.mark.own
def test_a_volume_that_cannot_be_mounted_stops_the_start_with_one_line(dockp: Dockp) -> None:
    dockp.ok("volume", "create", "-o", "type=none", "-o", "device=/not/there", "-o", "o=bind", "broken")
    done = dockp("run", "--rm", "--network", "none", "-v", "broken:/data", "busybox", "true")
    assert done.returncode == 125
    assert "failed to mount local volume: mount /not/there:" in done.stderr
    assert "no such file or directory" in done.stderr
    dockp.ok("volume", "rm", "broken")


@pytest.mark.own
def test_a_part_of_a_volume_is_mounted_and_no_link_leads_out(dockp: Dockp) -> None:
    sh(dockp, "mkdir -p /v/a/b; echo deep > /v/a/b/file; ln -s /etc /v/out; ln -s a/b /v/in", "-v", "parts:/v")

    def part(path: str, script: str) -> str:
        return sh(dockp, script, "--mount", f"type=volume,src=parts,dst=/m,volume-subpath={path}")

    assert part("a/b", "cat /m/file; echo more > /m/new") == "deep"
    assert part("a/b/new", "cat /m") == "more"
    assert part("in", "cat /m/file") == "deep"
    for path, complaint in (("out", "cannot access path"), ("no", "no such file or directory")):
        done = dockp(
            "run", "--rm", "--network", "none", "--mount", f"type=volume,src=parts,dst=/m,volume-subpath={path}",
            "busybox", "true",
        )  # fmt: skip
        assert done.returncode == 125
        assert complaint in done.stderr
    for path in ("../x", "/etc", "a/../.."):
        done = dockp("create", "--mount", f"type=volume,src=parts,dst=/m,volume-subpath={path}", "busybox", "true")
        assert "subpath must be a relative path within the volume" in done.stderr
    dockp.ok("volume", "rm", "parts")


def test_a_new_volume_gets_the_owners_modes_and_links_of_the_image(dockp: Dockp, tmp_path: Path) -> None:
    path = tmp_path / "root.tar"
    place = tmp_path / "root" / "srv"
    place.mkdir(parents=True)
    subprocess.run(["tar", "-xf", image_tar("busybox"), "-C", tmp_path / "root"], check=True)
    (place / "deep").mkdir()
    (place / "deep" / "file").write_text("x")
    os.link(place / "deep" / "file", place / "same")
    os.symlink("deep/file", place / "link")
    os.chown(place / "deep", 1000, 1001)
    os.chmod(place / "deep", 0o2750)
    os.chmod(place, 0o1777)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(tmp_path / "root", ".")
    dockp.add_image("with-srv", path)
    flags = ("run", "--rm", "--network", "none")
    dockp.ok(*flags, "-v", "full:/srv", "with-srv", "true")
    data = Path(json.loads(dockp.ok("volume", "inspect", "full"))[0]["Mountpoint"])
    assert os.stat(data).st_mode & 0o7777 == 0o1777
    info = os.stat(data / "deep")
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (1000, 1001, 0o2750)
    assert os.readlink(data / "link") == "deep/file"
    assert os.stat(data / "same").st_ino == os.stat(data / "deep" / "file").st_ino
    dockp.ok(*flags, "-v", "empty:/srv:nocopy", "with-srv", "true")
    assert os.listdir(Path(json.loads(dockp.ok("volume", "inspect", "empty"))[0]["Mountpoint"])) == []
    # Only what is empty is filled.
    sh(dockp, "echo mine > /v/own", "-v", "mine:/v")
    assert dockp.ok(*flags, "-v", "mine:/srv", "with-srv", "ls", "/srv") == "own"
    dockp.ok("volume", "rm", "full", "empty", "mine")
    dockp.ok("rmi", "with-srv")


def test_volumes_from_others_can_be_read_only_and_are_held(dockp: Dockp) -> None:
    dockp.ok("create", "--name", "keeper", "-v", "/data", "-v", "shared:/shared", "busybox", "true")
    sh(dockp, "echo one > /data/file; echo two > /shared/file", "--volumes-from", "keeper")
    assert sh(dockp, "cat /data/file; echo x > /shared/file || echo no", "--volumes-from", "keeper:ro") == "one\nno"
    dockp.ok("create", "--name", "heir", "--volumes-from", "keeper", "busybox", "cat", "/data/file")
    dockp.ok("rm", "-v", "keeper")
    assert dockp.ok("start", "-a", "heir") == "one", "held by the other"
    held = dockp("volume", "rm", "shared")
    assert "remove shared: volume is in use - [" in held.stderr
    dockp.ok("rm", "-v", "heir")
    assert dockp.ok("volume", "ls", "-q") == "shared", "named ones stay"
    dockp.ok("volume", "rm", "shared")


@pytest.mark.own
def test_prune_asks_and_says_what_it_freed(dockp: Dockp) -> None:
    dockp.ok("run", "--network", "none", "--name", "user", "-v", "/data", "busybox", "dd", "if=/dev/zero", "of=/data/x",
             "bs=1000", "count=3")  # fmt: skip
    dockp.ok("volume", "create", "named")
    assert dockp.ok("volume", "prune", "-f") == "Total reclaimed space: 0B"
    anonymous = dockp.ok("volume", "ls", "-qf", "dangling=false")
    dockp.ok("rm", "user")
    question = (
        "WARNING! This will remove anonymous local volumes not used by at least one container.\n"
        "Are you sure you want to continue? [y/N] "
    )
    assert dockp("volume", "prune", input="n\n").stdout == question
    assert dockp("volume", "prune", input="").stdout == question
    done = dockp("volume", "prune", input="y\n")
    assert done.stdout == f"{question}Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 3kB\n"
    assert dockp.ok("volume", "prune", "-af") == "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B"


@pytest.mark.embedded
@pytest.mark.parametrize("delay", [0.06, 0.1, 0.14])
def test_a_killed_create_holds_no_volume(dockp: Dockp, delay: float) -> None:
    dockp.ok("volume", "create", "wanted")
    process = dockp.popen("create", "--name", "victim", "-v", "wanted:/w", "-v", "/anonymous", "busybox", "true")
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    dockp("rm", "-v", "victim")  # if it was faster
    assert dockp.ok("volume", "ls", "-q") == "wanted"
    dockp.ok("volume", "rm", "wanted")


@pytest.mark.own
def test_volumes_of_a_container_whose_shim_was_killed_are_free_again(dockp: Dockp) -> None:
    dockp.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "scratch")
    name = dockp.ok("run", "-d", "--rm", "--network", "none", "-v", "scratch:/s", "-v", "/a", "busybox", "sleep", "60")
    os.kill(shim_pid(dockp, name), signal.SIGKILL)
    wait_for(lambda: dockp.ok("ps", "-aq") == "", "the container is settled")
    assert dockp.ok("volume", "ls", "-q") == "scratch"
    dockp.ok("volume", "rm", "scratch")


@pytest.mark.own
def test_files_of_volumes_are_copied_while_their_container_does_not_run(dockp: Dockp, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "file").write_text("deep")
    dockp.ok("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "elsewhere")
    sh(dockp, "mkdir /v/part; echo own > /v/part/file", "-v", "own:/v")
    dockp.ok("create", "--name", "still", "-v", "elsewhere:/all", "--mount",
             "type=volume,src=own,dst=/own,volume-subpath=part", "busybox", "true")  # fmt: skip
    dockp.ok("cp", "still:/all/part/file", str(tmp_path / "one"))
    dockp.ok("cp", "still:/own/file", str(tmp_path / "two"))
    assert ((tmp_path / "one").read_text(), (tmp_path / "two").read_text()) == ("deep", "own\n")
    dockp.ok("rm", "still")
    dockp.ok("volume", "rm", "elsewhere", "own")
