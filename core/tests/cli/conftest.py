"""Fixtures of the command line's tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from clicases import ENVIRONMENT, FILES  # noqa: E402
from clihelpers import Outcome  # noqa: E402
from fakeengine import FakeEngine  # noqa: E402

from dockp.cli.app import run  # noqa: E402


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def dockp(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line against the fake engine, in this process."""

    def invoke(*arguments: str, on: FakeEngine | None = None) -> Outcome:
        capfd.readouterr()
        code = run(arguments, lambda flags: on or engine)  # type: ignore[arg-type,return-value]
        sys.stdout.flush()
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return invoke


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory and the environment that the recorded command lines ran in."""
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/root")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert "NOT_SET_ANYWHERE" not in os.environ
    return tmp_path
