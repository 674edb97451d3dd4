"""Every test here runs in namespaces of its own and is checked for what it leaves behind."""

from __future__ import annotations

import os
import subprocess
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


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority ``ca.pem``, and what it signed: ``server.pem`` for 127.0.0.1, ``client.pem``, each with its key."""
    place = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for authority in ("ca", "other"):
        words = ["-x509", "-days", "2", "-subj", f"/CN={authority}", "-keyout", f"{authority}.key"]
        openssl("req", *curve, *words, "-out", f"{authority}.pem")
    (place / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2"]
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-extfile", "names", "-out", f"{name}.pem")
    return place
