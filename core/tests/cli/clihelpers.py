"""What the tests of the command line share besides fixtures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def recorded(kind: str) -> list[dict[str, Any]]:
    """What ``record.py`` wrote."""
    rows: list[dict[str, Any]] = json.loads((HERE / "recorded" / f"{kind}.json").read_text())
    return rows
