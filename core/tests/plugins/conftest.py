"""Plug-ins made on the spot, in a directory of the search path that no other test sees."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockp.plugins import PluginRegistry

SOUND = """
    from pathlib import Path
    from dockp.spi import Probe, StorageDriver, hookimpl

    DOCKP_SPI = 1

    class Driver(StorageDriver):
        name = "{name}"
        summary = "made by a test"
        priority = {priority}
        @classmethod
        def probe(cls, root, options): return Probe(supported=True)
        def __init__(self, root, options): pass
        def create(self, id, parent, options): pass
        def mounts(self, id, read_only=False): return ()
        def seal(self, id): pass
        def remove(self, id): pass
        def usage(self, id): pass
        def inventory(self): return frozenset()

    @hookimpl
    def dockp_storage_drivers():
        return [Driver]
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.modules: list[str] = []
        self.clock = 1_700_000_000

    def install(self, name: str, source: str, *, version: str = "1.0", entry: str | None = None) -> Path:
        """Install distribution ``dist-NAME`` with module and plug-in ``NAME``; returns the module's file."""
        module = self.path / f"{name}.py"
        module.write_text(textwrap.dedent(source))
        info = self.path / f"dist_{name}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry or f"[dockp]\n{name} = {name}\n")
        self.modules.append(name)
        self.settle()
        return module

    def install_sound(self, name: str, *, driver: str | None = None, priority: int = 0, version: str = "1.0") -> Path:
        return self.install(name, SOUND.format(name=driver or name, priority=priority), version=version)

    def settle(self) -> None:
        """Date everything back, as if it had been installed a while ago, but later than what was there before."""
        self.clock += 1
        for path in (*self.path.rglob("*"), self.path):
            os.utime(path, (self.clock, self.clock))

    def problems(self, registry: PluginRegistry, name: str) -> list[str]:
        return [problem.message for problem in registry.problems if problem.plugin == name]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    made = Site(folder)
    made.settle()
    monkeypatch.setenv("DOCKP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(folder))
    yield made
    for name in list(sys.modules):
        if name.partition(".")[0] in made.modules:
            del sys.modules[name]
