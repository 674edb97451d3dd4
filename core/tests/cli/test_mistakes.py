"""Wrong command lines get Docker's complaints and Docker's exit codes; the answers are recorded."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest
from clihelpers import Outcome, recorded
from fakeengine import FakeEngine

# Rows where dockp means to do something else, and why.
OTHERWISE = {
    "-z ps": "Docker prints no usage line here",
    **dict.fromkeys(("images a b", "image ls a b", "volume create a b"), "Docker misspells the last line"),
    **dict.fromkeys(("network foo", "container foo", "image foo"), "Docker leaves COMMAND out of the usage line"),
    **dict.fromkeys(("inspect --type foo x", "inspect --type= x"), "there are fewer types"),
    "pull": "there are more ways to pull",
    "import": "URLs are not imported, and a third argument is a mistake",
}


def words(text: str) -> str:
    return text.replace("docker", "dockp").replace("Docker", "dockp")


@pytest.mark.parametrize(
    "row", [row for row in recorded("mistakes") if row["row"] not in OTHERWISE], ids=lambda row: row["row"]
)
def test_the_complaint_is_that_of_docker(
    row: dict[str, Any], dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    outcome = dockp(*shlex.split(row["row"]))
    assert (outcome.err, outcome.code) == (words(row["err"]), row["code"])
    assert engine.calls == []


@pytest.mark.parametrize("row", OTHERWISE)
def test_what_is_worded_otherwise_fails_before_the_engine_is_asked(
    row: str, dockp: Callable[..., Outcome], engine: FakeEngine
) -> None:
    outcome = dockp(*shlex.split(row))
    assert outcome.code in (1, 125)
    assert outcome.err
    assert engine.calls == []
