"""Every test here runs in namespaces of its own and is checked for what it leaves behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent / "parity"))

from harness import Dockp, Leaks, chosen, enter_private_world, image_tar, remove_cgroups


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() != 0:
        raise pytest.UsageError("these tests make containers and need root: run them with sudo")
    # With xdist every worker makes its own world; the controller runs no tests.
    if not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", None):
        return
    enter_private_world()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the engine of this run does not have (see `harness.chosen`)."""
    passed_over = {"embedded": (), "dockpd": ("embedded",), "dockerd": ("embedded", "own")}[chosen()]
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in passed_over)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockp]:
    """An engine with the busybox image, shared by the tests of one worker; containers are cleared after each."""
    dockp = Dockp(tmp_path_factory.mktemp("home"))
    dockp.serve()
    dockp.add_image("busybox", image_tar("busybox"))
    yield dockp
    dockp.close()
    remove_cgroups(dockp.cgroup_parent)


@pytest.fixture
def dockp(home: Dockp) -> Iterator[Dockp]:
    """The shared engine; whatever a test leaves running is removed, whatever else it leaves fails it."""
    leaks = Leaks(home.base, home.cgroup_parent)
    yield home
    home.clear()
    # What Docker leaves behind is its own affair.
    assert home.kind == "dockerd" or leaks.found() == []


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Dockp]:
    """An engine on empty roots."""
    dockp = Dockp(tmp_path, name="dockp-fresh")
    leaks = Leaks(dockp.base, dockp.cgroup_parent)
    dockp.serve()
    yield dockp
    dockp.close()
    found = leaks.found()
    remove_cgroups(dockp.cgroup_parent)
    assert dockp.kind == "dockerd" or found == []


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockp]:
    """An engine with a real Debian that has nginx, Redis, PostgreSQL, bash and job control tools in it."""
    dockp = Dockp(tmp_path_factory.mktemp("debian"), name="dockp-debian")
    dockp.serve()
    dockp.add_image("debian:bookworm", image_tar("debian"))
    yield dockp
    dockp.close()
    remove_cgroups(dockp.cgroup_parent)
