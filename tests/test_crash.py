"""Killed at any step: the next command succeeds, and finds a whole container or none, and nothing half-made."""

from __future__ import annotations

import contextlib
import json
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
from harness import Dockp, everything, remains, shim_pid, wait_for

from dockp.containers.model import Config, CreateRequest, HostConfig, PortBinding
from dockp.spi.errors import DockpError

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
            assert step > 5, "hardly anything was seen as a step"
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
            assert found[0][1] in _STATES, where
            allowed = _OF_ANY + (_OF_A_RUNNING_ONE if found[0][1] == "running" else ())
        wrong = [line for line in everything(place) if line.partition(":")[0] not in allowed]
        # What was being started by the killed command ends by itself, but takes a moment.
        if not wrong:
            return found
        assert time.monotonic() < deadline, (where, found, wrong)
        time.sleep(0.02)
