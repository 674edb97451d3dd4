"""Over the same documents dockp prints what Docker prints, to the byte; Docker's output is recorded."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from typing import Any

import clidocuments
import pytest
from clihelpers import Outcome, recorded
from fakeengine import from_api

# Rows where dockp means to do something else, and why.
OTHERWISE: dict[str, str] = {}


def same(text: str) -> Any:
    """Lines of JSON by what they say: Docker goes through maps in any order."""
    try:
        return [json.loads(line) for line in text.splitlines()]
    except ValueError:
        return text


@pytest.mark.parametrize(
    "row", [row for row in recorded("output") if row["row"] not in OTHERWISE], ids=lambda row: row["row"]
)
def test_the_output_is_that_of_docker(
    row: dict[str, Any], dockp: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time_ns", lambda: clidocuments.NOW * 10**9)
    outcome = dockp(*shlex.split(row["row"]), on=from_api(clidocuments.ANSWERS[row["set"]]))
    assert same(outcome.out) == same(row["out"])
    assert outcome.code == row["code"]
    assert bool(outcome.err) == bool(row["err"])
