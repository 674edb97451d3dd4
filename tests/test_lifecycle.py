"""The life of a container: its verbs, its names, what survives and what goes."""

from __future__ import annotations

import os
import signal
import time

import pytest
from harness import Dockp, wait_for


def started(dockp: Dockp, *options: str, name: str = "box") -> str:
    return dockp.ok("run", "-d", "--name", name, "--network", "none", *options, "busybox", "sleep", "300")


def test_data_survives_stop_and_start(dockp: Dockp) -> None:
    started(dockp)
    dockp.ok("exec", "box", "sh", "-c", "echo kept > /file")
    dockp.ok("stop", "-t", "0", "box")
    dockp.ok("start", "box")
    assert dockp.ok("exec", "box", "cat", "/file") == "kept"


def test_stop_asks_first_and_kills_after_the_time(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "polite", "--network", "none", "busybox", "sh", "-c",
             "trap 'echo bye; exit 3' TERM; while :; do sleep 0.1; done")  # fmt: skip
    wait_for(lambda: dockp.state("polite") == "running", "it runs")
    time.sleep(0.3)
    dockp.ok("stop", "polite")
    assert dockp.ok("inspect", "-f", "{{.State.ExitCode}}", "polite") == "3"
    assert dockp.ok("logs", "polite") == "bye"
    started(dockp, name="stubborn")  # sleep as pid 1 does not heed SIGTERM
    before = time.monotonic()
    dockp.ok("stop", "-t", "1", "stubborn")
    assert time.monotonic() - before > 0.9
    assert dockp.ok("inspect", "-f", "{{.State.ExitCode}}", "stubborn") == "137"


def test_kill_sends_the_signal_asked_for(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "hears", "--network", "none", "busybox", "sh", "-c",
             "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done")  # fmt: skip
    wait_for(lambda: "ready" in dockp.ok("logs", "hears"), "it is ready")
    dockp.ok("kill", "-s", "USR1", "hears")
    wait_for(lambda: "usr1" in dockp.ok("logs", "hears"), "the signal arrives")
    assert "Invalid signal" in dockp("kill", "-s", "NOPE", "hears").stderr


def test_pause_freezes_and_unpause_thaws(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "ticks", "--network", "none", "busybox", "sh", "-c",
             "while :; do echo tick; sleep 0.05; done")  # fmt: skip
    wait_for(lambda: dockp.ok("logs", "ticks"), "it ticks")
    dockp.ok("pause", "ticks")
    assert dockp.state("ticks") == "paused"
    assert "(Paused)" in dockp.ok("ps")
    before = dockp.ok("logs", "ticks")
    time.sleep(0.4)
    assert dockp.ok("logs", "ticks") == before
    assert "is paused" in dockp("exec", "ticks", "true").stderr
    dockp.ok("unpause", "ticks")
    wait_for(lambda: dockp.ok("logs", "ticks") != before, "it ticks again")


def test_names_and_prefixes_find_and_conflict(dockp: Dockp) -> None:
    container = started(dockp)
    assert dockp.ok("inspect", "-f", "{{.Name}}", container[:6]) == "/box"
    done = dockp("create", "--name", "box", "busybox")
    assert 'The container name "/box" is already in use by container "' + container in done.stderr
    dockp.ok("rename", "box", "crate")
    assert dockp.state("crate") == "running"
    assert "No such container: box" in dockp("stop", "box").stderr


def test_a_running_container_is_not_removed_unless_forced(dockp: Dockp) -> None:
    started(dockp)
    done = dockp("rm", "box")
    assert done.returncode == 1
    stop_first = "container is running: stop the container before removing or force remove"
    assert (stop_first if dockp.kind != "dockerd" else "force remove") in done.stderr  # older ones say it otherwise
    dockp.ok("rm", "-f", "box")
    assert dockp("rm", "box").returncode == 1


def test_wait_gives_the_exit_code(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "soon", "--network", "none", "busybox", "sh", "-c", "sleep 0.5; exit 9")
    assert dockp.ok("wait", "soon") == "9"
    assert dockp.ok("wait", "soon") == "9"


def test_logs_tail_since_timestamps_and_follow(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "talks", "--network", "none", "busybox", "sh", "-c",
             "for i in 1 2 3; do echo line $i; done; sleep 1; echo last; echo problem >&2")  # fmt: skip
    followed = dockp("logs", "-f", "talks")
    assert followed.stdout.splitlines() == ["line 1", "line 2", "line 3", "last"]
    assert followed.stderr == "problem\n"
    assert dockp.ok("logs", "--tail", "1", "talks") in ("last", "")
    stamped = dockp.ok("logs", "-t", "talks").splitlines()[0]
    assert stamped.endswith("Z line 1")
    assert dockp.ok("logs", "--since", "1h", "talks").startswith("line 1")


def test_exec_runs_beside_with_its_own_settings(dockp: Dockp) -> None:
    started(dockp, "-e", "A=container")
    out = dockp.ok("exec", "-e", "B=exec", "-u", "user", "-w", "/tmp", "box", "sh", "-c", 'echo "$A $B $(id -u) $PWD"')
    assert out == "container exec 1000 /tmp"
    assert dockp("exec", "box", "sh", "-c", "exit 5").returncode == 5
    # Before Docker 26 every failure to start was 126.
    assert dockp("exec", "box", "nosuch").returncode in ((126, 127) if dockp.kind == "dockerd" else (127,))
    assert dockp("exec", "box", "/etc/passwd").returncode == 126
    assert dockp("exec", "-i", "box", "cat", input="through").stdout == "through"
    dockp.ok("exec", "-d", "box", "sh", "-c", "echo later > /tmp/later")
    wait_for(lambda: dockp("exec", "box", "cat", "/tmp/later").stdout == "later\n", "the detached exec has run")
    dockp.ok("stop", "-t", "0", "box")
    assert "is not running" in dockp("exec", "box", "true").stderr


def test_top_shows_its_processes_only(dockp: Dockp) -> None:
    started(dockp)
    lines = dockp.ok("top", "box").splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("sleep 300")
    assert "PID" in dockp.ok("top", "box", "-o", "pid,args").splitlines()[0]


def test_ps_filters_and_formats(dockp: Dockp) -> None:
    started(dockp, "-l", "role=web", name="one")
    dockp.ok("create", "--name", "two", "busybox")
    assert dockp.ok("ps", "--format", "{{.Names}}") == "one"
    assert dockp.ok("ps", "-a", "--format", "{{.Names}}: {{.State}}").splitlines() == ["two: created", "one: running"]
    assert dockp.ok("ps", "-a", "-f", "label=role=web", "--format", "{{.Names}}") == "one"
    assert dockp.ok("ps", "-a", "-f", "status=created", "--format", "{{.Names}}") == "two"
    assert dockp.ok("ps", "-a", "-f", "name=tw", "-q") == dockp.ok("ps", "-lq")
    assert dockp.ok("ps", "-aq", "-f", "ancestor=busybox").count("\n") == 1
    assert "invalid filter" in dockp("ps", "-f", "nosuch=1").stderr.lower()


def test_a_failed_start_leaves_the_container_and_says_why(dockp: Dockp) -> None:
    dockp.ok("create", "--name", "broken", "--network", "none", "busybox", "nosuch")
    done = dockp("start", "broken")
    assert done.returncode == 1
    assert "executable file not found" in done.stderr
    document = dockp.inspect("broken")
    assert document["State"]["ExitCode"] == 127
    assert "executable file not found" in document["State"]["Error"]
    assert dockp("start", "broken").returncode == 1


@pytest.mark.own
def test_rm_of_one_that_dies_alone_happens_without_any_command(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "0.3")
    directory = dockp.exec_root / "containers"
    wait_for(lambda: not any(directory.iterdir()), "its run folder goes")
    assert (
        "No such container" in dockp("inspect", "brief").stderr or "No such object" in dockp("inspect", "brief").stderr
    )


def test_restart_policy_is_kept_with_no_engine_running(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "again", "--network", "none", "--restart", "on-failure:2", "busybox",
             "sh", "-c", "echo run; exit 1")  # fmt: skip
    wait_for(lambda: dockp.state("again") == "exited", "it gives up")
    assert dockp.ok("logs", "again").count("run") == 3
    assert dockp.inspect("again")["RestartCount"] == 2


def test_health_is_checked_by_the_shim(dockp: Dockp) -> None:
    dockp.ok("run", "-d", "--name", "patient", "--network", "none", "--health-cmd", "test -e /ok",
             "--health-interval", "200ms", "--health-retries", "2", "busybox", "sleep", "60")  # fmt: skip
    wait_for(lambda: "(unhealthy)" in dockp.ok("ps"), "it becomes unhealthy")
    dockp.ok("exec", "patient", "touch", "/ok")
    wait_for(lambda: "(healthy)" in dockp.ok("ps"), "it becomes healthy")
    assert dockp.ok("inspect", "-f", "{{.State.Health.Status}}", "patient") == "healthy"


def test_the_container_outlives_its_command_and_logs_go_on(dockp: Dockp) -> None:
    process = dockp.popen("run", "--name", "survivor", "--network", "none", "busybox", "sh", "-c",
                          "for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done; exit 11",
                          stdout=-1, stderr=-1)  # fmt: skip
    wait_for(lambda: dockp("inspect", "survivor").returncode == 0 and dockp.state("survivor") == "running", "it runs")
    process.kill()
    process.communicate(timeout=10)
    assert dockp.ok("wait", "survivor") == "11"
    assert dockp.ok("logs", "survivor").split() == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.own
def test_a_killed_shim_takes_its_container_and_is_cleaned_up_after(dockp: Dockp) -> None:
    started(dockp)
    pid = dockp.inspect("box")["State"]["Pid"]
    shim = int(dockp.ok("inspect", "-f", "{{.State.Pid}}", "box")) and _parent(pid)
    os.kill(shim, signal.SIGKILL)
    wait_for(lambda: dockp.state("box") == "exited", "the next command sees it")
    assert dockp.ok("inspect", "-f", "{{.State.ExitCode}}", "box") == "137"
    dockp.ok("start", "box")


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.own
@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_drivers_work_side_by_side(dockp: Dockp, driver: str) -> None:
    dockp.ok("run", "-d", "--name", "box", "--network", "none", "--storage-driver", driver, "busybox", "sleep", "60")
    assert dockp.ok("inspect", "-f", "{{.Driver}}", "box") == driver
    dockp.ok("exec", "box", "sh", "-c", "rm /bin/ls && echo x > /new")
    dockp.ok("stop", "-t", "0", "box")
    dockp.ok("start", "box")
    assert dockp("exec", "box", "cat", "/new").stdout == "x\n"
    assert dockp("exec", "box", "ls").returncode == 127
    assert (
        dockp("run", "--rm", "--network", "none", "--storage-driver", driver, "busybox", "ls", "/bin/ls").returncode
        == 0
    )


def test_images_are_listed_tagged_and_protected(dockp: Dockp) -> None:
    dockp.ok("tag", "busybox", "other:1")
    assert "other" in dockp.ok("images")
    dockp.ok("create", "--name", "user", "busybox")
    dockp.ok("rmi", "other:1")
    done = dockp("rmi", "busybox")
    assert done.returncode == 1
    assert "is using its referenced image" in done.stderr
    assert dockp.ok("image", "inspect", "-f", "{{.Os}}", "busybox") == "linux"
