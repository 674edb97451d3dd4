"""System calls have one home: nothing outside `dockp.linux` may import ctypes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted(
    path
    for source in [ROOT / "core" / "src", *sorted((ROOT / "drivers").glob("*/src"))]
    for path in source.rglob("*.py")
    if ROOT / "core" / "src" / "dockp" / "linux" not in path.parents
)


def imported_modules(text: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_there_is_source_to_look_at() -> None:
    assert len(SOURCES) > 10


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_outside_dockp_linux_imports_ctypes(path: Path) -> None:
    assert not imported_modules(path.read_text()) & {"ctypes", "_ctypes", "cffi"}
