"""What the documentation points at is there: links, headings, paths of the repository, modules and their names."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    {
        *ROOT.glob("*.md"),
        *ROOT.glob("core/*.md"),
        *ROOT.glob("drivers/*/*.md"),
        *ROOT.glob("docs/**/*.md"),
    }
)
SOURCES = [ROOT / "core" / "src", *ROOT.glob("drivers/*/src")]
PLACES = {entry.name for entry in ROOT.iterdir() if entry.is_dir() and not entry.name.startswith(".")} | {".ci"}
PLACES -= {"dist", "build"}

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:\.ci|[a-z]+)/[\w./*-]+")
DOTTED = re.compile(r"(dockp(?:_\w+)?(?:\.\w+)+)(?:\(\))?")
LOGGERS = {"dockp.hooks"}
"""Dotted names that are no modules."""
LATER = {"dockp.api", "dockp.build", "dockp.swarm", "dockp.aio"}
"""Packages that a page may name before they are there."""


def _prose(page: Path) -> str:
    """The page without its fenced blocks, which are examples."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)


def _anchors(page: Path) -> set[str]:
    """Headings as GitHub names them: lower case, punctuation gone, hyphens for spaces."""
    headings = re.findall(r"^#+ +(.*?) *$", _prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _wrong_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in _anchors(place):
            yield f"{target}: no such heading"


def _wrong_paths(page: Path) -> Iterator[str]:
    for text in CODE.findall(_prose(page)):
        if not PATH.fullmatch(text) or text.split("/")[0] not in PLACES:
            continue
        # A driver's own page may name its own folders.
        if not any(list(place.glob(text.rstrip("/"))) for place in (ROOT, page.parent)):
            yield f"{text}: no such file"


@cache
def _names(module: Path) -> set[str]:
    """What a module defines at its top level, and in its classes as ``Class.name``."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found.update(prefix + (alias.asname or alias.name) for alias in node.names)
            elif isinstance(node, ast.If):  # what only type checkers import
                collect(node.body, prefix)

    collect(ast.parse(module.read_text()).body, "")
    return found


def _is_there(dotted: str) -> bool:
    parts = dotted.split(".")
    for source in SOURCES:
        for length in range(len(parts), 0, -1):
            base = source.joinpath(*parts[:length])
            module = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
            if module.exists():
                rest = ".".join(parts[length:])
                return not rest or rest in _names(module)
    return False


def _wrong_names(page: Path) -> Iterator[str]:
    for text in CODE.findall(_prose(page)):
        match = DOTTED.fullmatch(text)
        if match is None or match[1] in LOGGERS | LATER or match[1].endswith((".py", ".md")):
            continue
        if not _is_there(match[1]):
            yield f"{text}: no such module or name"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_everything_a_page_points_at_is_there(page: Path) -> None:
    assert [*_wrong_links(page), *_wrong_paths(page), *_wrong_names(page)] == []


def test_every_package_of_the_core_is_on_the_map() -> None:
    named = set(re.findall(r"`dockp\.(\w+)`", (ROOT / "docs" / "architecture.md").read_text()))
    package = ROOT / "core" / "src" / "dockp"
    there = {entry.stem for entry in package.glob("*.py")} | {
        entry.parent.name for entry in package.glob("*/__init__.py")
    }
    assert sorted(name for name in there - {"__init__"} if name not in named) == []


def test_every_driver_is_on_the_map_and_in_the_index() -> None:
    architecture, index = ((ROOT / "docs" / name).read_text() for name in ("architecture.md", "README.md"))
    for project in ROOT.glob("drivers/*/pyproject.toml"):
        assert f"`drivers/{project.parent.name}`" in architecture
        assert f"(../drivers/{project.parent.name}/README.md)" in index


def test_every_page_can_be_reached_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in LINK.findall(_prose(page)):
            place = (page.parent / target.partition("#")[0]).resolve()
            if place.suffix == ".md" and place.exists():
                waiting.append(place)
    assert [
        str(page.relative_to(ROOT)) for page in PAGES if page not in seen and page.is_relative_to(ROOT / "docs")
    ] == []


def test_decisions_are_numbered_without_gaps_and_have_three_parts() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    for number, page in enumerate(pages, 1):
        text = page.read_text()
        assert page.name.startswith(f"{number:04d}-"), page.name
        assert text.startswith(f"# {number}. "), page.name
        assert re.findall(r"^## (.*)$", text, re.M) == ["Context", "Decision", "Consequences"], page.name


def test_the_changelog_has_the_version_of_every_distribution() -> None:
    listed = set(re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M))
    for project in (ROOT / "pyproject.toml", ROOT / "core" / "pyproject.toml", *ROOT.glob("drivers/*/pyproject.toml")):
        assert tomllib.loads(project.read_text())["project"]["version"] in listed, project


def test_a_page_that_points_nowhere_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n[a](gone.md) [b](page.md#b) [c](page.md#a-page) [d](https://example.org)\n"
        "`core/gone.py` `core/src/dockp` `dockp.store.gone` `dockp.store.journal.Journal.recover`\n"
        "```\n[e](gone.md) `core/gone.py`\n```\n"
    )
    assert [link.partition(":")[0] for link in _wrong_links(page)] == ["gone.md", "page.md#b"]
    assert list(_wrong_paths(page)) == ["core/gone.py: no such file"]
    assert list(_wrong_names(page)) == ["dockp.store.gone: no such module or name"]
