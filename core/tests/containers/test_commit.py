"""What of a container's configuration an image gets, and which changes are the runtime's."""

from __future__ import annotations

from typing import Any

import pytest

from dockp.archive.changes import Change
from dockp.containers.changes import _hidden
from dockp.containers.commit import laid_over

BASE: dict[str, Any] = {
    "User": "me",
    "Env": ["A=1", "B=2"],
    "Cmd": ["run"],
    "Entrypoint": ["start"],
    "Labels": {"x": "1", "y": "2"},
    "ExposedPorts": {"80/tcp": {}},
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"User": "me", "Cmd": ["run"], "Entrypoint": ["start"], "Env": ["A=1", "B=2"]}),
        ({"User": "you", "Env": ["B=3"]}, {"User": "you", "Env": ["B=3", "A=1"]}),
        ({"Labels": {"y": "3"}}, {"Labels": {"x": "1", "y": "3"}}),
        ({"ExposedPorts": {"81/tcp": {}}}, {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}}}),
        ({"Cmd": ["other"]}, {"Cmd": ["other"], "Entrypoint": ["start"]}),
        ({"Entrypoint": ["other"]}, {"Entrypoint": ["other"], "Cmd": None}),
        ({"Entrypoint": []}, {"Entrypoint": [], "Cmd": ["run"]}),
    ],
)
def test_a_given_configuration_is_laid_over_the_container_s(given: dict[str, Any], expected: dict[str, Any]) -> None:
    result = laid_over(given, BASE)
    assert {key: result.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ("A /dev,A /proc,A /sys", ""),
        ("C /etc,A /etc/hosts,A /etc/resolv.conf", ""),
        ("C /etc,A /etc/hosts,A /etc/new", "C /etc,A /etc/new"),
        ("C /etc,C /etc/hosts", "C /etc,C /etc/hosts"),
        ("C /etc,D /etc/hosts", "C /etc,D /etc/hosts"),
        ("A /dev,A /dev/console,A /dev/sda", "A /dev,A /dev/sda"),
        ("A /data", "A /data"),
    ],
)
def test_what_the_runtime_made_is_not_the_container_s_change(lines: str, shown: str) -> None:
    found = [Change(*line.split()) for line in lines.split(",")]
    hidden = _hidden(found)
    assert [f"{change.kind} {change.path}" for change in found if change.path not in hidden] == (
        shown.split(",") if shown else []
    )
