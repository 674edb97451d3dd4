"""The runc-compatible command, as a container manager would call it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from libcontainer_box import Box, Container

from dockp.linux import cgroups

MAIN = "import sys; from dockp_exec_libcontainer.command import main; sys.exit(main())"


class Command:
    """The command in mount and network namespaces of its own, all calls in the same."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.root = box.directory / "state"

    def start(self, *arguments: str, prefix: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        command = [
            *prefix,
            *("nsenter", "--mount", "--net", "--target", str(self.box.process.pid), "--"),
            *(sys.executable, "-c", MAIN, "--root", str(self.root), *arguments),
        ]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def __call__(self, *arguments: str, code: int = 0, **options: Any) -> str:
        process = self.start(*arguments, **options)
        out, error = process.communicate(timeout=60)
        assert process.returncode == code, (process.returncode, out, error)
        return out if code == 0 else error


@pytest.fixture
def command(box: Box) -> Iterator[Command]:
    made = Command(box)
    yield made
    if made.root.exists():
        for entry in made.root.iterdir():
            made("delete", "--force", entry.name)


@pytest.fixture
def bundle(box: Box) -> Container:
    """A bundle that says hello and stays; written, but not run by the box."""
    container = box.container()
    container.shell("echo hello; sleep 100")
    write(container)
    return container


def write(container: Container) -> None:
    (container.bundle / "config.json").write_text(json.dumps(container.spec))


def status(command: Command, id: str) -> str:
    return str(json.loads(command("state", id))["status"])


def quiet(command: Command, *arguments: str) -> None:
    """A call whose container keeps our stdout: it must not be a pipe that we wait for."""
    process = command.start(*arguments)
    assert process.wait(timeout=60) == 0, process.stderr.read() if process.stderr else ""
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


def test_create_start_kill_delete(command: Command, bundle: Container, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    process = command.start("create", "--bundle", str(bundle.bundle), "--pid-file", str(pid_file), "one")
    assert process.wait(timeout=60) == 0
    pid = int(pid_file.read_text())
    document = json.loads(command("state", "one"))
    assert (document["status"], document["pid"], document["bundle"]) == ("created", pid, str(bundle.bundle))
    command("start", "one")
    assert process.stdout is not None
    assert process.stdout.readline() == "hello\n"
    assert status(command, "one") == "running"
    assert "cannot start a container in the running state" in command("start", "one", code=1)
    assert "that is not stopped" in command("delete", "one", code=1)
    command("kill", "one", "KILL")
    deadline = time.monotonic() + 10
    while status(command, "one") != "stopped":
        assert time.monotonic() < deadline
    command("delete", "one")
    assert "container does not exist: one" in command("state", "one", code=1)
    assert not cgroups.children(command.box.cgroup_parent)
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


def test_run_gives_the_exit_status_and_cleans_up(command: Command, bundle: Container) -> None:
    bundle.shell("echo out; echo err >&2; exit 3")
    write(bundle)
    process = command.start("run", "--bundle", str(bundle.bundle), "one")
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (3, "out\n", "err\n")
    assert command("list", "-q") == ""


def test_run_of_a_missing_command_says_so(command: Command, bundle: Container) -> None:
    bundle.process["args"] = ["nonsense"]
    write(bundle)
    error = command("run", "--bundle", str(bundle.bundle), "one", code=1)
    assert error == 'dockp-runtime: exec: "nonsense": executable file not found in $PATH\n'
    assert command("list", "-q") == ""


def test_signals_are_passed_on(command: Command, bundle: Container) -> None:
    bundle.shell("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
    write(bundle)
    process = command.start("run", "--bundle", str(bundle.bundle), "one")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 9


def test_exec_pause_update_ps_list(command: Command, bundle: Container) -> None:
    quiet(command, "run", "--detach", "--bundle", str(bundle.bundle), "one")
    assert command("exec", "one", "hostname") == "box\n"
    assert (
        command(
            "exec", "--user", "1000:1000", "--cwd", "/tmp", "--env", "A=b", "one", "sh", "-c", "id -u; pwd; echo $A"
        )
        == "1000\n/tmp\nb\n"
    )
    command("exec", "one", "sh", "-c", "exit 4", code=4)
    assert "executable file not found" in command("exec", "one", "nonsense", code=1)
    command("pause", "one")
    assert status(command, "one") == "paused"
    assert "paused" in command("exec", "one", "true", code=1)
    command("resume", "one")
    command("update", "--pids-limit", "77", "one")
    pids = json.loads(command("ps", "--format", "json", "one"))
    assert len(pids) == 1
    assert [entry["id"] for entry in json.loads(command("list", "--format", "json"))] == ["one"]
    assert "one" in command("list")


def test_a_second_container_of_one_name_is_refused(command: Command, bundle: Container) -> None:
    quiet(command, "create", "--bundle", str(bundle.bundle), "one")
    assert "already exists" in command("create", "--bundle", str(bundle.bundle), "one", code=1)
    assert status(command, "one") == "created"


@pytest.mark.parametrize("id", ["../x", "a/b", "."])
def test_names_that_are_paths_are_refused(command: Command, bundle: Container, id: str) -> None:
    assert "invalid container id" in command("create", "--bundle", str(bundle.bundle), id, code=1)


def test_the_terminal_goes_to_the_console_socket(command: Command, bundle: Container, tmp_path: Path) -> None:
    bundle.process["terminal"] = True
    bundle.shell("[ -t 0 ] && echo interactive")
    write(bundle)
    assert "console socket" in command("create", "--bundle", str(bundle.bundle), "one", code=1)
    with socket.socket(socket.AF_UNIX) as listener:
        path = str(tmp_path / "console.sock")
        listener.bind(path)
        listener.listen(1)
        quiet(command, "create", "--bundle", str(bundle.bundle), "--console-socket", path, "one")
        caller, _ = listener.accept()
        with caller:
            _, (master,), *_ = socket.recv_fds(caller, 100, 1)
    command("start", "one")
    assert os.read(master, 100) == b"interactive\r\n"
    os.close(master)


def test_errors_go_to_the_log_as_json(command: Command, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command("--log", str(log), "--log-format", "json", "create", "--bundle", str(tmp_path), "one", code=1)
    entry = json.loads(log.read_text())
    assert entry["level"] == "error"
    assert "not an OCI bundle" in entry["msg"]


def test_descriptors_are_preserved_when_asked(command: Command, bundle: Container) -> None:
    bundle.shell("cat <&3")
    write(bundle)
    reader, writer = os.pipe()
    os.write(writer, b"through")
    os.close(writer)
    try:
        arguments = ("run", "--preserve-fds", "1", "--bundle", str(bundle.bundle), "one")
        out = command(*arguments, prefix=["bash", "-c", f'exec 3<&{reader} && exec "$@"', "bash"], pass_fds=(reader,))
    finally:
        os.close(reader)
    assert out == "through"


def test_spec_and_features_are_written(command: Command, bundle: Container) -> None:
    (bundle.bundle / "config.json").unlink()
    command("spec", "--bundle", str(bundle.bundle))
    spec = json.loads((bundle.bundle / "config.json").read_text())
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["hostname"]
    spec["linux"]["cgroupsPath"] = bundle.linux["cgroupsPath"]
    (bundle.bundle / "config.json").write_text(json.dumps(spec))
    assert command("run", "--bundle", str(bundle.bundle), "one") == "container\n"
    found = json.loads(command("features"))
    assert "mount" in found["linux"]["namespaces"]
    assert "rbind" in found["mountOptions"]
