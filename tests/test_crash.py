"""Killed at any step: the next command succeeds, and finds a whole container or none, and nothing half-made."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen
from faults import Action, Engine, command, done
from harness import Dockp, cgroups_under, everything, processes_naming, published_ports, remains, shim_pid, wait_for

from dockp.containers.model import Config, CreateRequest, HostConfig, PortBinding
from dockp.spi.errors import DockpError, NotFound

_STATES = {"created", "running", "exited", "dead"}
_MOST_STEPS = 400


@frozen(kw_only=True)
class Shape:
    """What kind of container is used: how much there is to make and to take away."""

    network: str
    port: int = 0
    volumes: bool = False

    def request(self, **host: Any) -> CreateRequest:
        return CreateRequest(
            name="victim",
            config=Config(
                image="busybox",
                cmd=("sleep", "1000"),
                stop_signal="KILL",
                volumes={"/anonymous": {}} if self.volumes else {},
            ),
            host=HostConfig(
                network_mode=self.network,
                binds=("named:/named",) if self.volumes else (),
                port_bindings={"80/tcp": (PortBinding(host_ip="", host_port=str(self.port)),)} if self.port else {},
                **host,
            ),
        )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def _shapes() -> dict[str, Shape]:
    return {"plain": Shape(network="none", volumes=True), "networked": Shape(network="bridge", port=_free_port())}


def _create(shape: Shape) -> Action:
    return lambda engine: engine.containers.create(shape.request()).id


def _start(engine: Engine) -> None:
    engine.containers.start("victim")


def _stop(engine: Engine) -> None:
    engine.containers.stop("victim")


def _remove(engine: Engine) -> None:
    engine.containers.remove("victim", force=True, volumes=True)


def _create_and_start(shape: Shape) -> Action:
    def action(engine: Engine) -> None:
        engine.containers.create(shape.request())
        engine.containers.start("victim")

    return action


def _run_attached(shape: Shape) -> Action:
    """As ``dockp run --rm``, of a command that ends by itself."""

    def action(engine: Engine) -> None:
        request = shape.request(auto_remove=True)
        config = evolve(request.config, cmd=("true",), attach_stdout=True, attach_stderr=True)
        engine.containers.create(evolve(request, config=config))
        with contextlib.closing(engine.containers.attach("victim", stdin=False, stdout=True, stderr=True)) as stream:
            engine.containers.start("victim")
            while stream.recv(4096):
                pass
        with contextlib.suppress(DockpError):
            engine.containers.wait("victim", "removed")

    return action


def _nothing(engine: Engine) -> None:
    """What is done before a container is created."""


_VERBS: dict[str, tuple[Callable[[Shape], list[Action]], Callable[[Shape], Action]]] = {
    "create": (lambda shape: [], _create),
    "start": (lambda shape: [_create(shape)], lambda shape: _start),
    "stop": (lambda shape: [_create_and_start(shape)], lambda shape: _stop),
    "remove": (lambda shape: [_create_and_start(shape), _stop], lambda shape: _remove),
    "remove-running": (lambda shape: [_create_and_start(shape)], lambda shape: _remove),
    "run": (lambda shape: [], _run_attached),
}


@pytest.fixture
def place(dockp: Dockp) -> Iterator[Dockp]:
    assert remains(dockp) == []
    yield dockp
    dockp.clear()
    dockp("volume", "rm", "-f", "named")
    assert remains(dockp) == []


@pytest.mark.parametrize("kind", ["plain", "networked"])
@pytest.mark.parametrize("verb", list(_VERBS))
def test_a_command_killed_at_any_step_leaves_a_container_or_nothing(place: Dockp, verb: str, kind: str) -> None:
    shape = _shapes()[kind]
    before, action = _VERBS[verb][0](shape), _VERBS[verb][1](shape)
    for step in range(_MOST_STEPS):
        for prepare in before:
            done(place, prepare)
        outcome = command(place, action, kill_at=step)
        if not outcome.killed_at:
            assert outcome.error == ""
            assert step >= 3, "hardly anything was seen as a step"
            done(place, _remove_all)
            return
        where = f"killed at step {step}, {outcome.killed_at}"
        found = _whole(place, where)
        if found and found[0][1] in ("created", "exited"):
            retried = command(place, _start)
            assert retried.error == "", where
        elif not found and verb != "run":
            done(place, _create(shape))
        done(place, _remove_all)
        assert (where, remains(place)) == (where, [])
    raise AssertionError(f"still not done after {_MOST_STEPS} steps")


def _list(engine: Engine) -> list[tuple[str, str]]:
    return [(str(row["Id"]), str(row["State"])) for row in engine.containers.list(all=True)]


def _remove_all(engine: Engine) -> None:
    for row in engine.containers.list(all=True):
        with contextlib.suppress(NotFound):  # the reaper of a --rm container was quicker
            engine.containers.remove(str(row["Id"]), force=True, volumes=True)


_OF_A_RUNNING_ONE = (
    "endpoint",
    "address",
    "reserved port",
    "published port",
    "link",
    "cgroup",
    "process",
    "run directory",
)
_OF_ANY = ("container", "snapshot", "volume user", "anonymous volume", "directory")


def _whole(place: Dockp, where: str) -> list[tuple[str, str]]:
    """What the next command lists: no container or one, and nothing else but what belongs to its state."""
    deadline = time.monotonic() + 5
    while True:
        found: list[tuple[str, str]] = done(place, _list)
        assert len(found) <= 1, where
        allowed: tuple[str, ...] = ()
        if found:
            assert found[0][1] in (*_STATES, "removing"), where
            allowed = _OF_ANY + (_OF_A_RUNNING_ONE if found[0][1] == "running" else ())
        wrong = [line for line in everything(place) if line.partition(":")[0] not in allowed]
        # What was being started by the killed command ends by itself, and what its shim has removed goes in its own
        # time; both take a moment.
        if not wrong and not (found and found[0][1] == "removing"):
            return found
        assert time.monotonic() < deadline, (where, found, wrong)
        time.sleep(0.02)


# Killed shims, killed containers


def _started(place: Dockp, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> tuple[str, int, int]:
    """A running container: its id, its shim's pid, its init's pid."""
    container_id = place.ok("run", "-d", "--name", "victim", *options, "busybox", *command)
    return container_id, shim_pid(place, container_id), int(place.inspect("victim")["State"]["Pid"])


def _gone(pid: int) -> bool:
    """True when there is no such process, or a zombie that its parent has still to see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def _alive_in(place: Dockp, container_id: str) -> set[int]:
    """The processes in a container's cgroups."""
    found = set()
    for group in cgroups_under(place.cgroup_parent):
        if group.endswith(container_id):
            with contextlib.suppress(FileNotFoundError):
                found |= {int(pid) for pid in Path(group, "cgroup.procs").read_text().split()}
    return {pid for pid in found if not _gone(pid)}


def _left_of_a_dead_one(place: Dockp) -> list[str]:
    return [line for line in everything(place) if line.partition(":")[0] not in _OF_ANY]


def test_a_container_whose_shim_was_killed_is_exited_with_137_and_holds_nothing(place: Dockp) -> None:
    port = _free_port()
    container_id, shim, init = _started(place, "-p", f"{port}:80")
    os.kill(shim, signal.SIGKILL)
    assert "Exited (137)" in place.ok("ps", "-a", "--format", "{{.Status}}")
    wait_for(lambda: _gone(init), "the container's process ended with its shim")
    wait_for(lambda: _left_of_a_dead_one(place) == [], f"nothing is left: {_left_of_a_dead_one(place)}")
    state = place.inspect("victim")["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("exited", 137, False)
    place.ok("run", "-d", "-p", f"{port}:80", "busybox", "sleep", "1000")
    assert container_id in place.ok("ps", "-aq", "--no-trunc")


def test_the_cgroups_of_a_killed_shim_are_found_by_a_command_that_is_configured_otherwise(place: Dockp) -> None:
    _, shim, _ = _started(place)
    other = Dockp(place.base, name="dockp-other")
    os.kill(shim, signal.SIGKILL)
    assert "Exited (137)" in other.ok("ps", "-a", "--format", "{{.Status}}")
    assert cgroups_under(place.cgroup_parent) == set()


def test_a_container_can_be_started_again_after_its_shim_was_killed(place: Dockp) -> None:
    _, shim, _ = _started(place)
    place.ok("exec", "victim", "touch", "/kept")
    os.kill(shim, signal.SIGKILL)
    place.ok("start", "victim")
    assert place.ok("exec", "victim", "ls", "/kept") == "/kept"


def test_a_shim_that_is_killed_while_it_makes_the_container_is_one_clear_error(place: Dockp) -> None:
    place.ok("create", "--name", "victim", "--network", "bridge", "busybox", "sleep", "1000")

    def start(engine: Engine) -> None:
        from dockp.supervisor.client import ShimClient

        original = ShimClient.create

        def create(self: ShimClient, *arguments: Any, **named: Any) -> Any:
            # Not earlier: until it listens, its launcher may be forking it, and a look at /proc may miss both.
            wait_for((place.exec_root / "containers" / self.id / "shim.sock").exists, "the shim runs")
            while pids := processes_naming(self.id):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            return original(self, *arguments, **named)

        ShimClient.create = create  # type: ignore[method-assign]
        engine.containers.start("victim")

    outcome = command(place, start)
    assert "the shim of container" in outcome.error
    assert "\n" not in outcome.error
    assert place.state("victim") == "created"
    wait_for(lambda: _left_of_a_dead_one(place) == [], f"nothing is left: {_left_of_a_dead_one(place)}")
    place.ok("start", "victim")
    assert place.state("victim") == "running"


def test_the_processes_of_an_exec_end_with_a_killed_shim(place: Dockp) -> None:
    container_id, shim, _ = _started(place)
    client = place.popen("exec", "victim", "sleep", "2000")
    try:
        wait_for(lambda: len(_alive_in(place, container_id)) == 2, "the exec runs")
        inside = _alive_in(place, container_id)
        os.kill(shim, signal.SIGKILL)
        assert client.wait(10) != 0
    finally:
        client.kill()
        client.wait()
    assert "Exited (137)" in place.ok("ps", "-a", "--format", "{{.Status}}")
    wait_for(lambda: all(map(_gone, inside)), "every process ended")
    wait_for(lambda: _left_of_a_dead_one(place) == [], f"nothing is left: {_left_of_a_dead_one(place)}")


def test_a_container_whose_process_is_killed_from_the_host_is_exited_with_137(place: Dockp) -> None:
    _, shim, init = _started(place)
    os.kill(init, signal.SIGKILL)
    assert place.ok("wait", "victim") == "137"
    assert place.state("victim") == "exited"
    wait_for(lambda: _gone(shim), "the shim ended after its container")


def test_everything_killed_at_once_leaves_an_exited_container(place: Dockp) -> None:
    client = place.popen("run", "--name", "victim", "-p", f"{_free_port()}:80", "busybox", "sleep", "1000")
    try:
        wait_for(lambda: place("inspect", "victim").returncode == 0 and place.state("victim") == "running", "it runs")
        container_id = str(place.inspect("victim")["Id"])
        for pid in (client.pid, shim_pid(place, container_id), *_alive_in(place, container_id)):
            os.kill(pid, signal.SIGKILL)
    finally:
        client.kill()
        client.wait()
    assert "Exited (137)" in place.ok("ps", "-a", "--format", "{{.Status}}")
    wait_for(lambda: _left_of_a_dead_one(place) == [], f"nothing is left: {_left_of_a_dead_one(place)}")


def test_a_shim_that_is_killed_under_rm_takes_the_container_with_it(place: Dockp) -> None:
    _, shim, _ = _started(place, "--rm", "-v", "/anonymous")
    os.kill(shim, signal.SIGKILL)
    assert place.ok("ps", "-aq") == ""
    assert remains(place) == []


# Nobody but the shim


_TALKS = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit 7"


def test_a_container_outlives_the_command_that_started_it(place: Dockp) -> None:
    client = place.popen("run", "--name", "victim", "busybox", "sh", "-c", _TALKS)
    try:
        wait_for(lambda: "line 3" in place("logs", "victim").stdout, "it runs")
    finally:
        client.kill()
        client.wait()
    said = len(place.ok("logs", "victim").splitlines())
    wait_for(lambda: len(place.ok("logs", "victim").splitlines()) > said + 3, "the log goes on")
    place.ok("exec", "victim", "touch", "/stop")
    assert place.ok("wait", "victim") == "7"
    assert place.inspect("victim")["State"]["ExitCode"] == 7
    numbers = [int(line.split()[1]) for line in place.ok("logs", "victim").splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_container_that_ends_unseen_has_its_exact_exit_code_and_whole_log(place: Dockp) -> None:
    script = "sleep 0.3; seq 1 20000; exit 42"
    container_id, shim, _ = _started(place, command=("sh", "-c", script))
    wait_for(lambda: _gone(shim), "the shim ended after its container")
    assert place.inspect(container_id)["State"]["ExitCode"] == 42
    assert place.ok("logs", "victim").splitlines() == [str(number) for number in range(1, 20001)]


def test_a_detached_rm_container_is_removed_though_no_command_runs(place: Dockp) -> None:
    port = _free_port()
    place.ok("run", "-d", "--rm", "-v", "/anonymous", "-p", f"{port}:80", "busybox", "sleep", "0.5")
    # Looked at from outside: any command would clean up itself.
    wait_for(lambda: everything(place) == [], f"the container went by itself: {everything(place)}")


def test_the_port_of_a_container_that_ended_is_free_though_no_command_runs(place: Dockp) -> None:
    port = _free_port()
    place.ok("run", "-d", "--name", "victim", "-p", f"{port}:80", "busybox", "sleep", "0.5")
    wait_for(lambda: published_ports() == set(), "the published port is gone")
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", port))
