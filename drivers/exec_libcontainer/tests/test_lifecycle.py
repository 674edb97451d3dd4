"""The verbs of a runtime: create, start, exec, signal, pause, update, stats, remove, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from libcontainer_box import Box, Container

from dockp.linux import cgroups
from dockp.spi.runtime import RuntimeFailure
from dockp_exec_libcontainer import spec as specs

HERE = Path(__file__).parent
CONTROLLERS = cgroups.detect().controllers()


def needs(controller: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(controller not in CONTROLLERS, reason=f"no {controller} cgroup controller is mounted")


def sleeping(container: Container) -> Container:
    container.process["args"] = ["sleep", "100"]
    container.create()
    container.start()
    return container


def eventually(condition: Any, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# -- created, started, gone --


def test_nothing_of_the_command_runs_before_start(container: Container) -> None:
    container.shell("echo ran")
    container.create()
    time.sleep(0.1)
    assert container.stdout.read_text() == ""
    container.start()
    assert container.wait() == 0
    assert container.stdout.read_text() == "ran\n"


def test_starting_twice_is_refused(container: Container) -> None:
    sleeping(container)
    with pytest.raises(RuntimeFailure, match="not created, or was started already"):
        container.start()


def test_a_created_container_can_be_removed_without_start(container: Container) -> None:
    container.create()
    container.ask("signal", number=9)
    assert container.wait() == -9
    container.ask("remove")
    assert container.box.ask("children") is False


def test_remove_is_idempotent(container: Container) -> None:
    container.run()
    container.ask("remove")
    container.ask("remove")


def test_a_failed_create_leaves_nothing(container: Container) -> None:
    before = container.box.ask("read")
    container.mount("/scratch", "tmpfs", "tmpfs", "nonsense")
    with pytest.raises(RuntimeFailure):
        container.create()
    assert container.box.ask("children") is False
    assert container.box.ask("read") == before
    assert not cgroups.children(container.box.cgroup_parent)


def test_the_shim_keeps_no_descriptors_of_a_container_that_ended(box: Box) -> None:
    before = box.ask("read")
    container = box.container()
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    sleeping(container)
    container.exec("true")
    container.ask("signal", number=9)
    container.wait()
    container.ask("remove")
    assert box.ask("read") == before


def test_init_dies_with_its_shim(box: Box) -> None:
    container = sleeping(box.container())
    out = container.bundle / "out"
    other = container.start_exec(out, "sleep", "100")
    box.process.kill()
    box.process.wait()
    assert eventually(lambda: not os.path.exists(f"/proc/{container.pid}"))
    assert eventually(lambda: not os.path.exists(f"/proc/{other}"))
    cgroups.Cgroup(f"{box.cgroup_parent}/{container.id}").remove()


def test_the_bundle_that_runc_writes_runs_unmodified(container: Container) -> None:
    spec = json.loads((HERE / "specs" / "runc-spec.json").read_text())
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["sh", "-c", "hostname; id -u; pwd"]
    spec["linux"]["cgroupsPath"] = container.linux["cgroupsPath"]
    container.spec = spec
    assert container.run() == 0, container.stderr.read_text()
    assert container.stdout.read_text() == "runc\n0\n/\n"


@pytest.mark.parametrize("name", ["minimal", "minimal-for-start", "spec-example", "linux-rdma"])
def test_the_specifications_own_examples_are_read(name: str) -> None:
    document = json.loads((HERE / "specs" / f"{name}.json").read_text())
    unsupported = document.get("linux") or {}
    for key in ("intelRdt", "netDevices", "memoryPolicy"):
        unsupported.pop(key, None)
    (unsupported.get("seccomp") or {}).pop("listenerPath", None)
    if name == "spec-example":
        document["ociVersion"] = "1.2.0"  # the file says 0.5.0-dev
        specs.check(document)
        return
    # Valid documents, but without a mount namespace there is no container to make.
    with pytest.raises(RuntimeFailure, match=r"linux part|mount namespace"):
        specs.check(document)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ociVersion": "2.0"}, "ociVersion"),
        ({"root": {}}, "root.path"),
        ({"linux": None}, "linux part"),
        ({"mounts": {}}, "mounts"),
        ({"process": {"args": [], "cwd": "/"}}, "process.args"),
        ({"process": {"args": ["a\0b"], "cwd": "/"}}, "cannot be an argument"),
        ({"process": {"args": ["a"], "cwd": "here"}}, "process.cwd"),
        ({"linux": {"namespaces": [{"type": "mount"}], "intelRdt": {"closID": "x"}}}, "Intel RDT"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "moon"}]}}, "moon"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "mount"}]}}, "twice"),
        ({"hostname": "x", "linux": {"namespaces": [{"type": "mount"}]}}, "hostname"),
    ],
)
def test_a_spec_this_runtime_cannot_serve_is_refused_in_one_line(
    container: Container, change: dict[str, Any], words: str
) -> None:
    container.spec.update(change)
    with pytest.raises(RuntimeFailure, match=re.escape(words)) as caught:
        specs.check(container.spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ociVersion": "1.0.2"'])
def test_a_broken_config_is_told_in_one_line(container: Container, text: str) -> None:
    (container.bundle / "config.json").write_text(text)
    with pytest.raises(RuntimeFailure) as caught:
        specs.read(str(container.bundle))
    assert "\n" not in str(caught.value)


def test_a_bundle_without_config_is_told_so(container: Container) -> None:
    with pytest.raises(RuntimeFailure, match="not an OCI bundle"):
        specs.read(str(container.bundle))


# -- the command --

FAILURES = [
    (["foo"], 'exec: "foo": executable file not found in $PATH', "not-found"),
    (["/x"], 'exec: "/x": stat /x: no such file or directory', "not-found"),
    (["/etc/passwd"], 'exec: "/etc/passwd": permission denied', "not-executable"),
    (["/etc"], 'exec: "/etc": is a directory', "not-executable"),
    (["/tmp/garbage"], "exec /tmp/garbage: exec format error", "not-executable"),
    (["/tmp/script"], "exec /tmp/script: no such file or directory", "not-found"),
]


def with_bad_files(container: Container) -> None:
    for name, text in (("garbage", "\0garbage"), ("script", "#!/no/such/interpreter\n")):
        path = container.rootfs / "tmp" / name
        path.write_text(text)
        path.chmod(0o755)


@pytest.mark.parametrize(("args", "message", "kind"), FAILURES)
def test_a_command_that_cannot_run_is_told_with_dockers_words(
    container: Container, args: list[str], message: str, kind: str
) -> None:
    with_bad_files(container)
    container.process["args"] = args
    with pytest.raises(RuntimeFailure) as caught:
        container.run()
    assert (str(caught.value), caught.value.kind) == (message, kind)


@pytest.mark.parametrize(("args", "message", "kind"), FAILURES)
def test_so_is_one_of_exec(container: Container, args: list[str], message: str, kind: str) -> None:
    with_bad_files(container)
    sleeping(container)
    with pytest.raises(RuntimeFailure) as caught:
        container.exec(*args)
    assert (str(caught.value), caught.value.kind) == (message, kind)
    assert container.ask("processes") == [container.pid]


def test_the_path_searched_is_the_containers(container: Container) -> None:
    place = container.rootfs / "opt"
    place.mkdir()
    (place / "tool").symlink_to("/bin/busybox")
    (place / "tool").unlink()
    (place / "tool").write_text("#!/bin/sh\necho found\n")
    (place / "tool").chmod(0o755)
    container.process["args"] = ["tool"]
    container.process["env"] = ["PATH=/nowhere:/opt"]
    assert container.run() == 0
    assert container.stdout.read_text() == "found\n"


def test_without_a_path_nothing_is_found(container: Container) -> None:
    container.process["env"] = []
    with pytest.raises(RuntimeFailure, match="not found in"):
        container.run()


# -- exec --


def test_exec_runs_in_every_namespace_of_the_container(container: Container) -> None:
    if os.path.exists("/proc/self/ns/time"):
        container.linux["namespaces"].append({"type": "time"})
    sleeping(container)
    pid = container.start_exec(container.bundle / "out", "sleep", "100")
    names = container.box.ask("namespaces", pid=container.pid)
    assert container.box.ask("namespaces", pid=pid) == names
    assert pid in container.ask("processes")
    assert container.box.ask("namespaces", pid="self")["pid_for_children"] != names["pid"]


def test_exec_returns_the_exit_code(container: Container) -> None:
    sleeping(container)
    assert container.exec("sh", "-c", "exit 9") == (9, "")


def test_exec_has_its_own_user_environment_and_directory(container: Container) -> None:
    sleeping(container)
    code, out = container.exec(
        *("sh", "-c", "id -u; pwd; echo $A; grep CapEff /proc/self/status"),
        user={"uid": 1000, "gid": 1000},
        cwd="/tmp",
        env=["A=b", "PATH=/bin"],
    )
    assert code == 0
    assert out == "1000\n/tmp\nb\nCapEff:\t0000000000000000\n"


def test_exec_is_in_the_containers_cgroups(container: Container) -> None:
    sleeping(container)
    out = container.exec("cat", "/proc/self/cgroup")[1]
    assert out == container.exec("cat", "/proc/1/cgroup")[1]
    assert "/\n" in out


@pytest.mark.skipif(
    "memory" not in cgroups.detect().unified_controllers, reason="cgroup v2 has no controllers here (see make test-vm)"
)
def test_exec_joins_init_where_the_container_divided_its_cgroup(container: Container) -> None:
    """What systemd in a container does. Processes are then kept out of the container's own directory."""
    container.spec["mounts"] = [
        {**entry, "options": ["rw"]} if entry["type"] == "cgroup" else entry for entry in container.spec["mounts"]
    ]
    container.shell(
        "cd /sys/fs/cgroup && mkdir init.scope && echo 1 > init.scope/cgroup.procs &&"
        " echo +memory +pids > cgroup.subtree_control && echo divided; exec sleep 100"
    )
    container.create()
    container.start()
    assert eventually(lambda: container.stdout.read_text()), container.stderr.read_text()
    assert container.exec("cat", "/proc/self/cgroup") == (0, "0::/init.scope\n")
    container.ask("pause")
    container.ask("resume")
    container.ask("signal", number=9)
    container.wait()
    container.ask("remove")
    assert not cgroups.children(container.box.cgroup_parent)


def test_exec_in_a_container_that_ended_is_refused(container: Container) -> None:
    container.run()
    with pytest.raises(RuntimeFailure, match="not running"):
        container.exec("true")


def test_many_execs_at_once_all_work(container: Container) -> None:
    sleeping(container)
    pids = [container.start_exec(container.bundle / f"out{n}", "sh", "-c", f"echo {n}; exit {n}") for n in range(20)]
    assert [container.wait(pid) for pid in pids] == list(range(20))
    assert [(container.bundle / f"out{n}").read_text() for n in range(20)] == [f"{n}\n" for n in range(20)]


def test_a_process_being_set_up_for_exec_cannot_be_looked_into(container: Container) -> None:
    """CVE-2016-9962, and the host's interpreter behind /proc/<pid>/exe (CVE-2019-5736)."""
    container.process["args"] = [
        *("sh", "-c"),
        "while :; do for p in /proc/[0-9]*; do"
        " case $p in /proc/1|/proc/self|/proc/thread-self) ;; *)"
        " x=$(readlink $p/exe) && case $x in *busybox) ;; *) echo $x;; esac;; esac; done; done 2>/dev/null",
    ]
    container.process["capabilities"] = {name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted")}
    container.create()
    container.start()
    for _ in range(25):
        container.exec("true")
    assert container.stdout.read_text() == ""


def test_the_hosts_interpreter_cannot_be_overwritten(tmp_path: Path) -> None:
    """CVE-2019-5736: what a container executes as #!/proc/self/exe is not writable."""
    script = (
        "import os, sys\n"
        "from dockp.linux.selfexe import _sealed_copy, sealed_executable\n"
        "make = _sealed_copy if sys.argv[1] == 'copy' else sealed_executable\n"
        "fd = make(sys.argv[2])\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.execve(fd, [sys.argv[2], '-c', 'import time; time.sleep(60)'], {})\n"
        "os.close(fd)\n"
        "while os.readlink(f'/proc/{pid}/exe') == os.readlink('/proc/self/exe'):\n"
        "    pass\n"
        "held = os.open(f'/proc/{pid}/exe', os.O_PATH)\n"
        "os.kill(pid, 9); os.waitpid(pid, 0)\n"
        "try:\n"
        "    os.write(os.open(f'/proc/self/fd/{held}', os.O_WRONLY), b'x')\n"
        "except OSError as failure:\n"
        "    print(failure.strerror)\n"
    )
    # A copy stands for the host's program, so that a failing test destroys nothing.
    program = tmp_path / "interpreter"
    program.write_bytes(Path(os.path.realpath(sys.executable)).read_bytes())
    program.chmod(0o755)
    for way, words in (("mount", "Read-only file system"), ("copy", "Operation not permitted")):
        result = subprocess.run(
            ["unshare", "-m", "--propagation", "private", sys.executable, "-c", script, way, str(program)],
            input="\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert result.stdout.splitlines()[-1] == words


# -- terminals --


def test_a_terminal_is_the_controlling_one(container: Container) -> None:
    container.process["terminal"] = True
    container.process["args"] = ["sh"]
    container.create()
    container.start()
    said = container.box.ask("type", pid=container.pid, text="tty; stat -c %t:%T /dev/console; echo < /dev/tty && ps\n")
    assert "not a tty" not in said
    assert re.search(r"88:[0-9a-f]+", said)
    container.box.ask("type", pid=container.pid, text="exit 4\n")
    assert container.wait() == 4


def test_control_c_reaches_the_foreground_process(container: Container) -> None:
    container.process["terminal"] = True
    container.process["args"] = ["sh"]
    container.create()
    container.start()
    container.box.ask("type", pid=container.pid, text="sleep 100\n")
    said = container.box.ask("type", pid=container.pid, text="\x03echo status $?\n")
    assert "status 130" in said


def test_exec_with_a_terminal(container: Container) -> None:
    sleeping(container)
    pid = container.start_exec(container.bundle / "unused", "sh", terminal=True)
    assert "here" in container.box.ask("type", pid=pid, text="[ -t 0 ] && echo he''re\n")
    container.box.ask("type", pid=pid, text="exit\n")
    assert container.wait(pid) == 0


# -- signals, pause --


def test_signal_all_reaches_every_process(container: Container) -> None:
    container.without("pid")
    sleeping(container)
    pids = [container.start_exec(container.bundle / f"out{n}", "sleep", "100") for n in range(3)]
    container.ask("signal", number=15, all=True)
    assert [container.wait(pid) for pid in (container.pid, *pids)] == [-15] * 4


def test_remove_kills_what_is_left(container: Container) -> None:
    container.without("pid")
    container.shell("setsid sleep 1000 & echo $!")
    container.run()
    (left,) = container.ask("processes")
    container.ask("remove")
    assert eventually(lambda: not os.path.exists(f"/proc/{left}"))


def test_pause_stops_and_resume_continues(container: Container) -> None:
    container.shell("while :; do echo tick; sleep 0.02; done")
    container.create()
    container.start()
    assert eventually(lambda: container.stdout.read_text())
    container.ask("pause")
    size = container.stdout.stat().st_size
    time.sleep(0.2)
    assert container.stdout.stat().st_size == size
    with pytest.raises(RuntimeFailure, match="paused"):
        container.exec("true")
    container.ask("resume")
    assert eventually(lambda: container.stdout.stat().st_size > size)


def test_a_paused_container_can_be_killed_and_removed(container: Container) -> None:
    sleeping(container)
    container.ask("pause")
    container.ask("signal", number=9)
    state = Path(f"/proc/{container.pid}/stat")
    if not eventually(lambda: state.read_text().split()[2] == "Z", 1):
        container.ask("resume")  # on cgroup v1 a frozen process dies when it is thawed
    assert container.wait() == -9
    container.ask("remove")


# -- limits --


@needs("memory")
def test_a_process_over_the_memory_limit_is_killed_and_told(container: Container) -> None:
    container.linux["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    container.process["args"] = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
    assert container.run() == -9
    assert container.ask("oom_killed") is True
    container.ask("remove")
    assert container.ask("oom_killed") is True


@needs("memory")
def test_one_killed_by_hand_is_not_out_of_memory(container: Container) -> None:
    sleeping(container)
    container.ask("signal", number=9)
    container.wait()
    assert container.ask("oom_killed") is False


@needs("pids")
def test_the_pids_limit_holds(container: Container) -> None:
    container.linux["resources"]["pids"] = {"limit": 5}
    container.shell("for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; wait")
    container.create()
    container.start()
    assert eventually(lambda: "fork" in container.stderr.read_text())
    assert len(container.ask("processes")) <= 5


@needs("cpu")
def test_limits_are_changed_while_it_runs(container: Container) -> None:
    sleeping(container)
    notes = container.ask("update", resources={"cpu": {"quota": 20000, "period": 100000}, "pids": {"limit": 33}})
    assert notes == []
    container.exec("timeout", "0.5", "sh", "-c", "while :; do :; done")
    found = container.ask("stats")
    assert found["throttled_periods"] > 0
    assert found["pids_limit"] == 33


def test_limits_the_host_has_no_controller_for_are_warnings(container: Container) -> None:
    missing = [
        (controller, resources)
        for controller, resources in (
            ("net_cls", {"network": {"classID": 1}}),
            ("rdma", {"rdma": {"mlx5_1": {"hcaHandles": 3}}}),
            ("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 21}]}),
        )
        if controller not in CONTROLLERS
    ]
    for controller, resources in missing:
        container.linux["resources"].update(resources)
        del controller
    assert container.run() == 0
    for controller, _ in missing:
        assert any(controller in warning for warning in container.warnings()), controller


@needs("blkio")
def test_a_limit_the_kernel_refuses_is_a_warning_with_the_reason(container: Container) -> None:
    container.linux["resources"]["blockIO"] = {"throttleReadBpsDevice": [{"major": 251, "minor": 77, "rate": 1}]}
    assert container.run() == 0
    assert any("throttleReadBpsDevice is not set" in warning for warning in container.warnings())


def test_an_empty_cgroup_left_by_a_crash_is_taken_over_without_its_limits(container: Container) -> None:
    old = cgroups.Cgroup(container.linux["cgroupsPath"])
    resources = {"pids": {"limit": 3}}
    old.create(resources)
    old.apply(resources)
    container.output("true")
    assert "pids_limit" not in container.ask("stats")


def test_a_cgroup_with_processes_in_it_is_not_taken_over(box: Box) -> None:
    first, second = sleeping(box.container()), box.container()
    second.linux["cgroupsPath"] = first.linux["cgroupsPath"]
    with pytest.raises(RuntimeFailure, match="in use by other processes"):
        second.create()
    assert first.ask("processes") == [first.pid]


def test_stats_count_what_the_container_used(container: Container) -> None:
    container.shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 100; true")
    container.create()
    container.start()
    assert eventually(lambda: "done" in container.stdout.read_text())
    assert eventually(lambda: container.ask("stats")["pids"] == 2)
    found = container.ask("stats")
    if "cpuacct" in CONTROLLERS:
        assert found["cpu_ns"] > 1_000_000
        assert len(found["cpu_per_cpu_ns"]) == os.cpu_count()
    if "memory" in CONTROLLERS:
        assert found["memory"] > 0
        assert found["memory_max"] >= found["memory"]
        assert "memory_limit" not in found
        assert found["oom_kills"] == 0
        assert found["memory_stat"]
    assert all(isinstance(value, (int, list, dict)) for value in found.values())


def test_the_containers_cgroups_are_shown_read_only(container: Container) -> None:
    container.shell("for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do mkdir $d/x && echo $d; done 2>&1; ls /sys/fs/cgroup")
    container.run()
    out = container.stdout.read_text()
    assert "Read-only" in out
    assert not cgroups.children(f"{container.linux['cgroupsPath']}")
    if "memory" in CONTROLLERS:
        assert "memory" in out


# -- hooks --


def hook(container: Container, moment: str, script: str, **more: Any) -> None:
    entry = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"LOG={container.bundle}/log"], **more}
    container.spec.setdefault("hooks", {}).setdefault(moment, []).append(entry)


def test_hooks_run_in_order_with_the_state_on_stdin(container: Container) -> None:
    for moment in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
        hook(container, moment, f'echo "{moment} $(cat)" >> $LOG')
    (container.rootfs / "log").touch()
    hook(container, "startContainer", 'echo "startContainer $(cat)" > /log')
    container.process["args"] = ["sh", "-c", "cat /log; sleep 100"]
    container.create()
    container.start()
    container.ask("signal", number=9)
    container.wait()
    container.ask("remove")
    lines = (container.bundle / "log").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ]
    document = json.loads(lines[0].split(" ", 1)[1])
    assert (document["id"], document["pid"], document["status"]) == (container.id, container.pid, "creating")
    assert document["bundle"] == str(container.bundle)
    assert json.loads(lines[4].split(" ", 1)[1])["status"] == "stopped"
    assert (container.rootfs / "log").read_text().startswith("startContainer {")


@pytest.mark.parametrize("moment", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_stops_the_creation(container: Container, moment: str) -> None:
    hook(container, moment, "echo why not >&2; exit 3")
    with pytest.raises(RuntimeFailure, match=f"{moment} hook /bin/sh failed with status 3: why not"):
        container.create()
    assert container.box.ask("children") is False


def test_a_failing_start_hook_fails_the_start(container: Container) -> None:
    hook(container, "startContainer", "exit 1")
    container.create()
    with pytest.raises(RuntimeFailure, match="startContainer hook"):
        container.start()
    assert container.wait() == 1


def test_a_failing_poststart_hook_is_a_warning(container: Container) -> None:
    hook(container, "poststart", "exit 1")
    assert container.run() == 0
    assert any("poststart hook" in warning for warning in container.warnings())


def test_a_hook_that_takes_too_long_is_killed(container: Container) -> None:
    hook(container, "createRuntime", "exec sleep 100", timeout=1)
    with pytest.raises(RuntimeFailure, match="did not end within 1 s"):
        container.create()


# -- the size of it --


def test_the_runtime_imports_little(tmp_path: Path) -> None:
    """The shim has it in memory for as long as the container runs."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "def size():\n"
        "    with open('/proc/self/smaps_rollup') as f:\n"
        "        return sum(int(line.split()[1]) for line in f if line.startswith('Private_'))\n"
        "import ctypes, os, _socket\n"
        "before = size()\n"
        "import dockp_exec_libcontainer.runtime\n"
        "print(size() - before)\n"
        "print(*sorted(name for name in sys.modules if '.' not in name))\n"
    )
    from dockp_exec_libcontainer.probe import sys_path

    command = [sys.executable, "-I", "-S", "-c", script, *sys_path()]
    subprocess.run(command, capture_output=True, check=True)  # in a fresh checkout this one compiles
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    size, modules = result.stdout.splitlines()
    assert int(size) < 1200
    heavy = {"attr", "attrs", "asyncio", "enum", "functools", "json", "pathlib", "re", "subprocess", "typing", "pluggy"}
    assert not heavy & set(modules.split())
