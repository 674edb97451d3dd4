"""stats, cp, diff, commit, export and update, as whole commands and through the library."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Dockp, image_tar, wait_for

import dockp as library
from dockp.spi.errors import Forbidden, InvalidArgument, NotFound

pytestmark = pytest.mark.own


@pytest.fixture
def engine(dockp: Dockp) -> Iterator[Any]:
    """The engine of the shared roots, in this process."""
    settings = {"data_root": dockp.data_root, "exec_root": dockp.exec_root, "cgroup_parent": dockp.cgroup_parent}
    with library.Engine(**{name: str(value) for name, value in settings.items()}) as engine:
        yield engine


@pytest.fixture
def running(dockp: Dockp) -> str:
    """A container with a volume, a tmpfs and a bind."""
    (dockp.base / "bound").mkdir(exist_ok=True)
    dockp.ok(
        *("run", "-d", "--name", "web", "--network", "none", "-v", "/vol", "--tmpfs", "/tmpf"),
        *("-v", f"{dockp.base}/bound:/bound", "busybox", "sleep", "1000"),
    )
    return "web"


def archive(**files: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    out.seek(0)
    return out


def content(stream: Any) -> dict[str, bytes]:
    found = {}
    with stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for entry in tar:
            file = tar.extractfile(entry) if entry.isreg() else None
            found[entry.name] = file.read() if file else b""
    return found


# cp


def test_what_goes_in_comes_out_from_every_kind_of_mount(dockp: Dockp, engine: Any, running: str) -> None:
    for directory in ("/tmp", "/vol", "/tmpf", "/bound"):
        engine.containers.archive_put("web", directory, archive(file=directory.encode()))
        assert dockp.ok("exec", "web", "cat", f"{directory}/file") == directory
        stream, found = engine.containers.archive_get("web", f"{directory}/file")
        assert content(stream) == {"file": directory.encode()}
        assert (found["name"], found["size"]) == ("file", len(directory))
    assert (dockp.base / "bound" / "file").read_bytes() == b"/bound"


def test_a_stopped_container_has_its_volumes_too(dockp: Dockp, engine: Any) -> None:
    dockp.ok("create", "--name", "idle", "--network", "none", "-v", "data:/data", "busybox", "cat", "/data/file")
    assert content(engine.containers.archive_get("idle", "/data")[0]) == {"data": b""}
    engine.containers.archive_put("idle", "/data", archive(file=b"in the volume"))
    engine.containers.archive_put("idle", "/", archive(other=b"in the root"))
    assert content(engine.containers.archive_get("idle", "/data/.")[0]) == {".": b"", "./file": b"in the volume"}
    assert dockp.ok("start", "-a", "idle") == "in the volume"
    assert dockp.ok("diff", "idle") == "A /data\nA /other"
    dockp.ok("rm", "idle")
    dockp.ok("volume", "rm", "data")


def test_files_of_a_container_that_is_about_to_start(dockp: Dockp, engine: Any) -> None:
    """Its shim has them mounted already."""
    id = dockp.ok("create", "--network", "none", "busybox", "cat", "/file")
    with contextlib.closing(engine.containers.attach(id, stdin=False, stdout=True, stderr=True)) as output:
        engine.containers.archive_put(id, "/", archive(file=b"in time"))
        engine.containers.start(id)
        assert output.recv(100) == b"\x01" + bytes(6) + b"\x07in time"
        engine.containers.wait(id)


def test_files_of_a_container_between_two_runs(dockp: Dockp, engine: Any) -> None:
    script = "cat /file /data/file 2>/dev/null && exec sleep 1000; exit 1"
    dockp.ok(
        *("run", "-d", "--name", "again", "--restart", "always", "--network", "none", "-v", "/data"),
        *("busybox", "sh", "-c", script),
    )
    time.sleep(1)
    engine.containers.archive_put("again", "/data", archive(file=b"volume\n"))
    engine.containers.archive_put("again", "/", archive(file=b"root\n"))
    assert content(engine.containers.archive_get("again", "/file")[0]) == {"file": b"root\n"}
    wait_for(lambda: dockp.ok("logs", "again").endswith("root\nvolume"), "both files", 20)


def test_what_is_read_only_stays_so(dockp: Dockp, engine: Any) -> None:
    dockp.ok(
        *("create", "--name", "sealed", "--network", "none", "--read-only", "-v", "kept:/rw", "-v", "kept:/ro:ro"),
        *("busybox", "sleep", "1000"),
    )
    for start in (False, True):
        if start:
            dockp.ok("start", "sealed")
        with pytest.raises(Forbidden, match="container rootfs is marked read-only"):
            engine.containers.archive_put("sealed", "/tmp", archive(file=b""))
        with pytest.raises(Forbidden, match="mounted volume is marked read-only"):
            engine.containers.archive_put("sealed", "/ro", archive(file=b""))
        engine.containers.archive_put("sealed", "/rw", archive(file=b""))
    dockp.ok("rm", "-f", "sealed")
    dockp.ok("volume", "rm", "kept")


def test_links_are_told_and_stay_inside(dockp: Dockp, engine: Any, running: str) -> None:
    script = "cd /tmp && ln -s /etc abs && ln -s ../../../../etc/passwd up && ln -s nowhere gone && mkdir d"
    dockp.ok("exec", "web", "sh", "-c", script)
    look = engine.containers.archive_stat
    assert look("web", "/tmp/abs")["linkTarget"] == "/etc"
    assert look("web", "/tmp/up")["linkTarget"] == "/etc/passwd"
    assert look("web", "/tmp/gone")["linkTarget"] == "/tmp/nowhere"
    assert look("web", "/tmp/abs")["mode"] & 1 << 27
    assert look("web", "/tmp/abs/")["mode"] & 1 << 31
    inside = content(engine.containers.archive_get("web", "/tmp/abs/passwd")[0])["passwd"]
    assert inside == dockp.ok("exec", "web", "cat", "/etc/passwd").encode() + b"\n"
    assert inside != Path("/etc/passwd").read_bytes()
    for path in ("/tmp/gone/", "/nope", "/etc/passwd/x"):
        with pytest.raises(NotFound, match="Could not find the file"):
            look("web", path)
    with pytest.raises(InvalidArgument, match="not a directory"):
        engine.containers.archive_put("web", "/etc/passwd", archive(file=b""))


def test_attributes_survive_both_ways(dockp: Dockp, engine: Any, running: str) -> None:
    dockp.ok(
        *("exec", "web", "sh", "-c"),
        "cd /tmp && mkdir d; echo x > d/f; chown 12:34 d d/f; chmod 1750 d; chmod 4711 d/f; ln d/f d/g; mknod d/p p",
    )
    stream, _ = engine.containers.archive_get("web", "/tmp/d")
    with stream:
        data = stream.read()
    engine.containers.archive_put("web", "/vol", io.BytesIO(data))
    listing = "cd {} && stat -c '%A %u:%g %h %n' d d/*"
    assert dockp.ok("exec", "web", "sh", "-c", listing.format("/vol")) == dockp.ok(
        "exec", "web", "sh", "-c", listing.format("/tmp")
    )


def test_user_of_the_container_owns_what_is_copied_in_archive_mode(dockp: Dockp, tmp_path: Path) -> None:
    dockp.ok("run", "-d", "--name", "low", "--network", "none", "-u", "33:44", "busybox", "sleep", "1000")
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 5, 6)
    dockp.ok("cp", f"{tmp_path}/f", "low:/plain")
    dockp.ok("cp", "-a", f"{tmp_path}/f", "low:/archive")
    assert dockp.ok("exec", "low", "stat", "-c", "%u:%g", "/plain", "/archive") == "5:6\n33:44"


COPIES_IN = [
    ("f", "/tmp", "/tmp/f"),
    ("f", "/tmp/", "/tmp/f"),
    ("f", "/tmp/.", "/tmp/f"),
    ("f", "/tmp/g", "/tmp/g"),
    ("d", "/tmp", "/tmp/d/in"),
    ("d", "/tmp/new", "/tmp/new/in"),
    ("d", "/tmp/new/", "/tmp/new/in"),
    ("d/.", "/tmp", "/tmp/in"),
    ("d/.", "/tmp/new", "/tmp/new/in"),
    ("link/", "/tmp", "/tmp/link/in"),
]


@pytest.mark.parametrize(("source", "target", "made"), COPIES_IN)
def test_where_a_copy_goes_in_the_container(
    dockp: Dockp, running: str, tmp_path: Path, source: str, target: str, made: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "in").write_text("text")
    (tmp_path / "f").write_text("text")
    (tmp_path / "link").symlink_to("d")
    dockp.ok("cp", f"{tmp_path}/{source}", f"web:{target}")
    assert dockp.ok("exec", "web", "cat", made) == "text"


@pytest.mark.parametrize(("source", "target", "made"), COPIES_IN[:-1])
def test_where_a_copy_goes_on_the_host(
    dockp: Dockp, running: str, tmp_path: Path, source: str, target: str, made: str
) -> None:
    (tmp_path / "tmp").mkdir()
    dockp.ok("exec", "web", "sh", "-c", "mkdir -p /s/d && echo text > /s/d/in && echo text > /s/f && chown 9 /s/f")
    dockp.ok("cp", f"web:/s/{source}", f"{tmp_path}{target}")
    assert (tmp_path / made[1:]).read_text() == "text\n"
    assert (tmp_path / made[1:]).stat().st_uid == os.geteuid()


MISTAKES = [
    (("f", "web:/no/such/g"), "Error: Could not find the file /no/such in container web"),
    (("f", "web:/nosuch/"), "no such directory"),
    (("d", "web:/etc/passwd"), "cannot copy directory"),
    (("web:/nope", "x"), "Error: Could not find the file /nope in container web"),
    (("nope:/x", "x"), "Error: No such container: nope"),
    (("web:/etc/passwd", "no/x"), 'invalid output path: directory "{}/no" does not exist'),
    (("web:/etc", "f"), "cannot copy directory"),
    (("web:/etc/passwd", "x/"), "no such directory"),
    (("web:/a", "web:/b"), "copying between containers is not supported"),
    (("f", "d"), "must specify at least one container source"),
    (("nope", "web:/"), "lstat {}/nope: no such file or directory"),
    (("-", "web:/etc/passwd"), 'destination "web:/etc/passwd" must be a directory'),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_mistakes_are_told_in_one_line(
    dockp: Dockp, running: str, tmp_path: Path, words: tuple[str, str], message: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    here = [f"{tmp_path}/{word}" if ":" not in word and word != "-" else word for word in words]
    if words == ("f", "d"):
        here = list(words)
    done = dockp("cp", *here)
    assert (done.returncode, done.stderr) == (1, message.format(tmp_path) + "\n")


def test_success_is_told_when_asked_for(dockp: Dockp, running: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    done = dockp("cp", "--quiet=false", f"{tmp_path}/f", "web:/tmp")
    assert (done.stdout, done.stderr) == ("", "Successfully copied 2.05kB to web:/tmp\n")
    done = dockp("cp", "--quiet=false", "web:/tmp/f", f"{tmp_path}/g")
    assert (done.stdout, done.stderr) == ("", f"Successfully copied 2.05kB to {tmp_path}/g\n")


def test_a_hostile_archive_leads_nowhere(dockp: Dockp, engine: Any, running: str, tmp_path: Path) -> None:
    for names in (("../../etc/owned",), ("/etc/../../owned",)):
        with pytest.raises(InvalidArgument, match="leads out"):
            engine.containers.archive_put("web", "/tmp", archive(**dict.fromkeys(names, b"x")))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("way/owned"))
    out.seek(0)
    engine.containers.archive_put("web", "/tmp", out)
    assert not (tmp_path / "owned").exists()


def test_a_container_that_swaps_a_directory_for_a_link_gains_nothing(dockp: Dockp, engine: Any, tmp_path: Path) -> None:
    secret, victim = tmp_path / "secret", tmp_path / "victim"
    secret.mkdir()
    victim.mkdir()
    (secret / "file").write_text("of the host")
    script = (
        f"mkdir -p /a{secret} /a{victim}; echo inside > /a{secret}/file; cp -r /a /b; mkdir -p {tmp_path};"
        f"ln -s / /link; while :; do mv -T /a /x; mv -T /link /a; mv -T /a /link; mv -T /x /a; done"
    )
    dockp.ok("run", "-d", "--name", "swap", "--network", "none", "busybox", "sh", "-c", script)
    end = time.monotonic() + 4
    seen: set[bytes] = set()
    while time.monotonic() < end:
        with contextlib.suppress(NotFound, InvalidArgument):
            engine.containers.archive_put("swap", f"/a{victim}", archive(owned=b"x"))
        with contextlib.suppress(NotFound, InvalidArgument):
            stream, _ = engine.containers.archive_get("swap", f"/a{tmp_path}")
            seen |= set(content(stream).values())
        engine.containers.changes("swap")
    assert b"inside\n" in seen
    assert seen <= {b"", b"x", b"inside\n"}
    assert list(victim.iterdir()) == []


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_neither_descriptors_nor_processes_stay(dockp: Dockp, engine: Any, running: str) -> None:
    dockp.ok("create", "--name", "idle", "--network", "none", "-v", "/v", "busybox")
    engine.containers.archive_stat("idle", "/")
    before = descriptors()
    for name in ("web", "idle"):
        for _ in range(3):
            stream, _ = engine.containers.archive_get(name, "/")
            stream.read(1000)
            stream.close()
            engine.containers.export(name).close()
            engine.containers.changes(name)
            with pytest.raises(NotFound):
                engine.containers.archive_get(name, "/nope")
            with pytest.raises(InvalidArgument):
                engine.containers.archive_put(name, "/tmp", io.BytesIO(b"no archive" * 100))
    assert descriptors() == before


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_killed_cp_leaves_nothing(dockp: Dockp, state: str) -> None:
    """The fixture looks at what is left."""
    script = "dd if=/dev/zero of=/big bs=1M count=30 2>/dev/null; sleep 1000"
    dockp.ok("run", "-d", "--name", "big", "--network", "none", "-v", "/v", "busybox", "sh", "-c", script)
    time.sleep(0.5)
    if state == "stopped":
        dockp.ok("stop", "-t", "0", "big")
    for delay in (0.03, 0.08, 0.12, 0.2):
        out = dockp.popen("cp", "big:/big", "-", stdout=subprocess.PIPE)
        time.sleep(delay)
        out.send_signal(signal.SIGKILL)
        out.communicate()
        into = dockp.popen("cp", "-", "big:/v", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        into.send_signal(signal.SIGKILL)
        into.communicate()
    dockp.ok("rm", "-f", "-v", "big")


# diff, export, commit


@pytest.fixture(params=["overlay2", "vfs"])
def driven(request: pytest.FixtureRequest, fresh: Dockp) -> Dockp:
    """An engine on empty roots with one storage driver, and the busybox image."""
    fresh.settings["DOCKP_STORAGE_DRIVER"] = request.param
    fresh.add_image("busybox", image_tar("busybox"))
    return fresh


def test_diff_export_and_commit_agree(driven: Dockp, tmp_path: Path) -> None:
    script = (
        "echo new > /etc/new; rm /bin/ash; rm -r /etc/network 2>/dev/null; mkdir -p /etc/network; echo x > /etc/group;"
        "echo v > /vol/v; ln /etc/new /etc/same; echo done; sleep 1000"
    )
    driven.ok("run", "-d", "--name", "web", "--network", "none", "-v", "/vol", "busybox", "sh", "-c", script)
    wait_for(lambda: driven.ok("logs", "web") == "done", "what is changed")
    for running in (True, False):
        if not running:
            driven.ok("stop", "-t", "0", "web")
        lines = driven.ok("diff", "web").splitlines()
        assert {"C /bin", "D /bin/ash", "C /etc", "A /etc/new", "A /etc/same", "C /etc/group", "A /vol"} <= set(lines)
        assert not {line for line in lines if line.split()[1] in ("/dev", "/proc", "/sys", "/etc/hosts", "/vol/v")}
        driven.ok("export", "-o", str(tmp_path / "all.tar"), "web")
        with tarfile.open(tmp_path / "all.tar") as tar:
            names = set(tar.getnames())
            assert tar.getmember("etc/same").islnk()
        assert {"etc/new", "bin/sh", "vol"} <= names
        assert not {"bin/ash", "vol/v"} & names
        image = driven.ok(
            "commit", "-m", "said", "-a", "me", "-c", "ENV A=b", "-c", "CMD cat /etc/same", "web", "out:1"
        )
        assert image.startswith("sha256:")
        assert driven.ok("run", "--rm", "--network", "none", "out:1") == "new"
        assert driven("run", "--rm", "--network", "none", "out:1", "ls", "/bin/ash").returncode == 1
        assert driven.ok("run", "--rm", "--network", "none", "out:1", "sh", "-c", "echo $A; ls /vol") == "b"
        found = json.loads(driven.ok("image", "inspect", "out:1"))[0]
        assert (found["Author"], found["Comment"], len(found["RootFS"]["Layers"])) == ("me", "said", 2)
        assert found["Parent"] == json.loads(driven.ok("image", "inspect", "busybox"))[0]["Id"]
        assert driven.state("web") == ("running" if running else "exited")
    driven.ok("rm", "-v", "web")
    driven.ok("rmi", "out:1")


def test_commit_of_an_unchanged_container_adds_no_layer(dockp: Dockp) -> None:
    dockp.ok("create", "--name", "same", "--network", "none", "busybox")
    image = dockp.ok("commit", "same")
    found = json.loads(dockp.ok("image", "inspect", image))[0]
    assert len(found["RootFS"]["Layers"]) == 1
    assert dockp("commit", "-c", "FROM x", "same").stderr == "Error: from is not a valid change command\n"
    assert dockp("commit", "same", "Not:Good:1").returncode == 1
    dockp.ok("rm", "same")
    dockp.ok("rmi", image)


# stats, update


def test_stats_of_a_busy_container(dockp: Dockp, engine: Any) -> None:
    dockp.ok("run", "-d", "--name", "busy", "busybox", "sh", "-c", "while :; do :; done")
    sample = next(engine.containers.stats("busy", stream=False))
    assert sample["cpu_stats"]["cpu_usage"]["total_usage"] > sample["precpu_stats"]["cpu_usage"]["total_usage"]
    assert sample["cpu_stats"]["system_cpu_usage"] > sample["precpu_stats"]["system_cpu_usage"]
    assert sample["name"] == "/busy"
    assert sample["pids_stats"]["current"] == 1
    assert 0 < sample["memory_stats"]["usage"] <= sample["memory_stats"]["limit"]
    assert sample["networks"]["eth0"]["rx_bytes"] >= 0
    line = json.loads(dockp.ok("stats", "--no-stream", "--format", "json", "busy"))
    assert float(line["CPUPerc"].rstrip("%")) > 5
    assert line["PIDs"] == "1"
    dockp.ok("stop", "-t", "0", "busy")
    assert next(engine.containers.stats("busy", stream=False))["read"] == "0001-01-01T00:00:00Z"
    assert dockp.ok("stats", "--no-stream", "-a", "--format", "{{.Name}} {{.CPUPerc}}") == "busy 0.00%"
    assert dockp("stats", "--no-stream", "nope").stderr == "Error: No such container: nope\n"


def test_a_stream_of_stats_ends_with_the_container(dockp: Dockp, engine: Any, running: str) -> None:
    samples = engine.containers.stats("web")
    first, second = next(samples), next(samples)
    assert second["preread"] == first["read"]
    dockp.ok("rm", "-f", "-v", "web")
    assert list(samples) == []


def test_update_changes_what_runs_and_what_is_recorded(dockp: Dockp, engine: Any, running: str) -> None:
    limits = ("--memory", "64m", "--memory-swap", "128m", "--pids-limit", "33", "--cpus", "0.5")
    assert dockp.ok("update", *limits, "--restart", "on-failure:2", "web") == "web"
    host = dockp.inspect("web")["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (64 << 20, 33, 500_000_000)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    sample = next(engine.containers.stats("web", stream=False, one_shot=True))
    assert (sample["memory_stats"]["limit"], sample["pids_stats"]["limit"]) == (64 << 20, 33)
    dockp.ok("stop", "-t", "0", "web")
    dockp.ok("update", "-c", "700", "web")
    dockp.ok("start", "web")
    host = dockp.inspect("web")["HostConfig"]
    assert (host["CpuShares"], host["Memory"]) == (700, 64 << 20)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--memory", "1m"), "Minimum memory limit allowed is 6MB"),
        (
            ("--memory", "64m"),
            "Cannot update container {}: Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time",
        ),
        (("--restart", "never"), "invalid restart policy: unknown policy 'never'; use one of "),
        (
            ("--restart", "always"),
            "Cannot update container {}: Restart policy cannot be updated because AutoRemove is enabled for the "
            "container",
        ),
    ],
)
def test_what_update_refuses(dockp: Dockp, words: tuple[str, ...], message: str) -> None:
    id = dockp.ok("run", "-d", "--rm", "--name", "once", "--network", "none", "busybox", "sleep", "1000")
    done = dockp("update", *words, "once")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {message.format(id)}")


def test_what_keeps_a_container_with_rm_from_starting_leaves_nothing_of_it(dockp: Dockp) -> None:
    for arguments in (("busybox", "nothere"), ("-u", "nouser", "busybox", "true"), ("--sysctl", "net.no=1", "busybox")):
        assert dockp("run", "-d", "--rm", *arguments).returncode > 124
    assert dockp.ok("ps", "-aq") == ""


def test_a_tmpfs_on_a_new_directory_is_open_to_everybody(dockp: Dockp) -> None:
    assert (
        dockp.ok("run", "--rm", "--tmpfs", "/new", "--tmpfs", "/root", "busybox", "stat", "-c", "%a", "/new", "/root")
        == "1777\n755"
    )


def test_a_container_can_tell_that_it_is_one_and_that_is_no_change(dockp: Dockp) -> None:
    dockp.ok("run", "--name", "marked", "busybox", "test", "-f", "/.dockerenv")
    assert dockp.ok("diff", "marked") == ""
    assert dockp.ok("inspect", "-s", "-f", "{{.SizeRw}}", "marked") == "0"


def test_exec_makes_no_directories_and_knows_only_users_that_there_are(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "host", "busybox", "sleep", "100")
    assert dockp("exec", "-w", "/nothere", "host", "pwd").returncode in (126, 127)
    assert dockp("exec", "host", "ls", "-d", "/nothere").returncode == 1
    assert dockp("exec", "-u", "nouser", "host", "true").returncode == 126
