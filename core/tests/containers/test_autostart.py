"""Which containers a daemon starts when it starts: Docker's rules, and the order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dockp.containers.autostart import due, waves
from dockp.containers.model import Config, CreateRequest, HostConfig, RestartPolicy
from dockp.containers.record import Container, Task
from dockp.containers.states import State

_times = itertools.count(1)


def container(
    name: str, policy: str = "no", *, most: int = 0, network: str = "", active: bool = False, **task: Any
) -> Container:
    host = HostConfig(restart_policy=RestartPolicy(name=policy, maximum_retry_count=most), network_mode=network)
    return Container(
        id=f"id-{name}",
        name=name,
        created=next(_times),
        image="",
        storage_driver="",
        exec_driver="",
        request=CreateRequest(config=Config(image="x"), host=host, name=name),
        active=active,
        task=Task(**{"state": State.EXITED, "started_at": 1, "finished_at": 2, **task}),
    )


@pytest.mark.parametrize(
    ("policy", "task", "expected"),
    [
        ("no", {"exit_code": 1}, False),
        ("always", {}, True),
        ("always", {"stopped": True}, True),
        ("always", {"started_at": 0, "finished_at": 0}, False),
        ("unless-stopped", {}, True),
        ("unless-stopped", {"exit_code": 255}, True),
        ("unless-stopped", {"stopped": True}, False),
        ("on-failure", {"exit_code": 0}, False),
        ("on-failure", {"exit_code": 1}, True),
        ("on-failure", {"exit_code": 137, "stopped": True}, False),
        ("on-failure", {"exit_code": 1, "restart_count": 3}, True),
    ],
)
def test_who_is_due(policy: str, task: dict[str, Any], expected: bool) -> None:
    assert due(container("x", policy, **task)) is expected


def test_a_bounded_policy_that_gave_up_stays_so() -> None:
    assert due(container("x", "on-failure", most=3, exit_code=1, restart_count=2))
    assert not due(container("x", "on-failure", most=3, exit_code=1, restart_count=3))


def test_what_runs_is_not_due() -> None:
    assert not due(container("x", "always", active=True))


def test_who_joins_another_comes_after_it() -> None:
    sidecar = container("sidecar", "always", network="container:app")
    second = container("second", "always", network="container:id-sidecar")
    app = container("app", "always")
    alone = container("alone", "always", network="container:elsewhere")
    assert waves([second, sidecar, alone, app]) == [[app, alone], [sidecar], [second]]


def test_a_ring_is_still_started_so_that_each_fails_with_its_reason() -> None:
    one, two = container("one", network="container:two"), container("two", network="container:one")
    assert waves([one, two]) == [[one, two]]
