"""The author's guide has a section for everything an author may meet, with its exact signature."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from dockp.plugins import KINDS
from dockp.spi import errors, hooks, runtime

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "drivers"
PAGES = {
    "StorageDriver": ("storage.md", ""),
    "NetworkDriver": ("network.md", "NetworkDriver"),
    "IpamDriver": ("network.md", "IpamDriver"),
    "ExecDriver": ("execution.md", "ExecDriver"),
    "ImageSource": ("images.md", ""),
    "VolumeDriver": ("volumes.md", ""),
    "LogDriver": ("logs.md", ""),
}


def contract(kind: str) -> type:
    found = getattr(importlib.import_module(KINDS[kind].module), KINDS[kind].contract)
    assert isinstance(found, type)
    return found


def signature(function: Any) -> str:
    """``name(a, b=1)``, without self, cls and annotations."""
    function = getattr(function, "__func__", function)
    found = inspect.signature(function)
    taken = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in found.parameters.values()
        if p.name not in ("self", "cls")
    ]
    return function.__name__ + str(found.replace(parameters=taken, return_annotation=inspect.Signature.empty))


def methods(cls: type) -> list[str]:
    names = [name for name in vars(cls) if name == "__init__" or not name.startswith("_")]
    return [signature(vars(cls)[name]) for name in names if inspect.isroutine(vars(cls)[name])]


def attributes(cls: type) -> list[str]:
    return [name for name, kind in vars(cls).get("__annotations__", {}).items() if "ClassVar" in str(kind)]


def sections(page: str, of: str = "") -> set[str]:
    """Headings of a page that are code; those under a heading that ends in "of `X`" only."""
    found: set[str] = set()
    current = ""
    for line in (GUIDE / page).read_text().splitlines():
        if match := re.fullmatch(r"## .* of `(\w+)`", line):
            current = match[1]
        elif re.match(r"##? ", line):
            current = ""
        if (match := re.fullmatch(r"##+ `(.+)`", line)) and (not of or current == of):
            found.add(match[1])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_and_attribute_of_a_contract_has_its_section_and_no_section_is_out_of_date(kind: str) -> None:
    cls = contract(kind)
    page, of = PAGES[cls.__name__]
    assert sections(page, of) == {*methods(cls), *attributes(cls)}


def test_every_method_of_a_runtime_has_its_section() -> None:
    assert sections("execution.md", "Runtime") == set(methods(runtime.Runtime))


def test_every_hook_has_its_section() -> None:
    assert sections("hooks.md") == {signature(getattr(hooks, name)) for name in (*hooks.PROVIDERS, *hooks.MOMENTS)}


def test_every_hook_spec_is_listed_as_provider_or_moment() -> None:
    specs = {name for name, value in vars(hooks).items() if hasattr(value, "dockp_spec")}
    assert specs == {*hooks.PROVIDERS, *hooks.MOMENTS}
    assert {kind.hook for kind in KINDS.values()} == set(hooks.PROVIDERS)


def test_every_error_has_its_section() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert sections("errors.md") == {
        *classes,
        signature(runtime.RuntimeFailure.__init__).replace("__init__", "RuntimeFailure"),
    }


def test_links_between_pages_lead_somewhere() -> None:
    for page in GUIDE.glob("*.md"):
        for target in re.findall(r"\]\(([a-z]+\.md)", page.read_text()):
            assert (GUIDE / target).is_file(), f"{page.name}: {target}"


def test_the_example_in_the_guide_is_a_sound_plugin(site: Any) -> None:
    from dockp.plugins import PluginRegistry

    text = (GUIDE / "README.md").read_text()
    blocks = {match[1]: match[2] for match in re.finditer(r"```python\n# src/(\S+)\n(.*?)```", text, re.S)}
    package = site.path / "dockp_storage_mine"
    site.install("dockp_storage_mine", "").unlink()
    package.mkdir()
    (package / "__init__.py").write_text(blocks["dockp_storage_mine/__init__.py"])
    (package / "driver.py").write_text(blocks["dockp_storage_mine/driver.py"])
    site.settle()
    (problem,) = site.problems(PluginRegistry.open(), "dockp_storage_mine")
    # The guide leaves the methods out ("..."); everything else about it is right.
    assert problem.startswith("dockp_storage_drivers: MyDriver does not implement __init__, create")
