"""Every driver folder is known to the tools that are told about each by name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from dockp.plugins.discover import FIRST_PARTY

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
DRIVERS = sorted(path.parent for path in ROOT.glob("drivers/*/pyproject.toml"))


@pytest.mark.parametrize("folder", DRIVERS, ids=lambda path: path.name)
def test_a_driver_folder_is_complete_and_known_everywhere(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    package = f"dockp_{folder.name}"
    assert project["name"] == package.replace("_", "-")
    assert project["name"] in FIRST_PARTY
    assert project["entry-points"]["dockp"] == {folder.name: f"{package}.plugin"}
    assert (folder / "README.md").is_file()
    assert (folder / "src" / package / "py.typed").is_file()
    linter = SETTINGS["tool"]["importlinter"]
    assert package in linter["root_packages"]
    lists = [
        contract.get("modules", contract.get("source_modules", ()))
        for contract in linter["contracts"]
        if "driver" in contract["name"] or "ctypes" in contract["name"]
    ]
    assert len(lists) == 3
    assert all(package in names for names in lists)
    assert f"drivers/{folder.name}/src" in SETTINGS["tool"]["mypy"]["mypy_path"]


def test_the_lock_covers_every_requirement_and_names_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked = {line.partition("==")[0] for line in text.splitlines() if re.match(r"[a-z0-9]", line)}
    stated: set[str] = set(SETTINGS["dependency-groups"]["dev"])
    for path in (
        ROOT / "pyproject.toml",
        ROOT / "core/pyproject.toml",
        *(folder / "pyproject.toml" for folder in DRIVERS),
    ):
        project = tomllib.loads(path.read_text())["project"]
        stated.update(project["dependencies"])
        for extra in project.get("optional-dependencies", {}).values():
            stated.update(extra)
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in stated}
    missing = {name for name in names if not name.startswith("dockp") and name not in locked}
    assert missing == set()
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
