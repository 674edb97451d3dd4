"""A third party's storage driver, built as a wheel and installed away from the workspace, is found and works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockp.config import Config
from dockp.guard import guarded
from dockp.plugins import PluginRegistry, choose_storage, storage_root
from dockp.spi import InvalidArgument, NotFound, StorageDriver

SOURCE = Path(__file__).resolve().parents[3] / "tests" / "toy_driver"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("toy")
    shutil.copytree(SOURCE, work / "source")  # building must leave nothing in the checkout
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", work / "dist", work / "source"],
        check=True,
        capture_output=True,
    )
    (file,) = (work / "dist").glob("*.whl")
    return file


@pytest.fixture
def installed(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    target = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", target, wheel],
        check=True,
    )
    monkeypatch.setenv("DOCKP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(target))
    yield target
    for name in list(sys.modules):
        if name.partition(".")[0] == "dockp_storage_toy":
            del sys.modules[name]


def test_the_wheel_is_found_with_its_distribution_and_version(installed: Path) -> None:
    registry = PluginRegistry.open()
    info = registry.info("storage", "toy")
    assert (info.distribution, info.version, info.builtin) == ("dockp-storage-toy", "1.2.3", False)
    assert [str(problem) for problem in registry.problems if problem.plugin == "storage_toy"] == []


def test_it_is_never_chosen_unasked_and_can_be_named(installed: Path, tmp_path: Path) -> None:
    registry = PluginRegistry.open()
    config = Config.load({"data_root": str(tmp_path / "root")}, {"DOCKP_STORAGE_DRIVER": "toy"})
    assert choose_storage(registry, config)[0] == "toy"
    assert choose_storage(registry, Config(data_root=str(tmp_path / "root")))[0] != "toy"


@pytest.fixture
def driver(installed: Path, tmp_path: Path) -> StorageDriver:
    config = Config.load({"data_root": str(tmp_path / "root"), "storage_opts": ["toy.label=blue"]}, {})
    registry = PluginRegistry.open(config)
    options = config.driver_options("storage", "toy", default="overlay2", known=["overlay2", "toy"])
    made = registry.load("storage", "toy")(storage_root(config, "toy"), options)
    assert isinstance(made, StorageDriver)
    return guarded(made, "storage", "toy")


def mounted(driver: StorageDriver, id: str, script: str, target: Path) -> str:
    """Run ``script`` in a private mount namespace in which snapshot ``id`` is mounted on ``target``."""
    target.mkdir(exist_ok=True)
    (mount,) = driver.mounts(id)
    options = "bind,ro" if "ro" in mount.options else "bind"
    steps = f"mount -o {options} {mount.source} {target} && cd {target} && {script}"
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", steps], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_its_snapshots_work_as_layers(driver: StorageDriver, tmp_path: Path) -> None:
    target = tmp_path / "target"
    driver.create("1", None, {})
    mounted(driver, "1", "echo base > file; ln file hard; mkdir -m 1777 tmp", target)
    driver.seal("1")
    driver.create("2", "1", {})
    mounted(driver, "2", "echo changed > file", target)
    assert mounted(driver, "1", "cat file hard; stat -c %a tmp .", target) == "base\nbase\n1777\n755\n"
    assert mounted(driver, "2", "cat file hard", target) == "changed\nchanged\n"
    with pytest.raises(subprocess.CalledProcessError):
        mounted(driver, "1", "touch new", target)
    assert driver.usage("2").inodes == 3
    assert driver.inventory() == {"1", "2"}
    assert ("Toy Label", "blue") in list(driver.status())
    driver.remove("2")
    driver.remove("2")
    driver.remove("1")
    assert driver.inventory() == frozenset()


def test_its_verbs_are_idempotent_and_its_errors_those_of_the_contract(driver: StorageDriver) -> None:
    driver.create("1", None, {})
    driver.create("1", None, {})
    driver.seal("1")
    driver.seal("1")
    with pytest.raises(NotFound, match="no such snapshot: 9"):
        driver.create("2", "9", {})
    with pytest.raises(NotFound):
        driver.mounts("9")
    with pytest.raises(InvalidArgument, match='unknown option "size"'):
        driver.create("3", None, {"size": "1G"})


SUITE = """
import pytest
from dockp.testkit.storage import StorageConformance
from dockp_storage_toy.driver import ToyDriver

class TestToy(StorageConformance):
    limits = {"usage_counts_the_snapshot_alone": "every snapshot is a full copy"}

    @pytest.fixture
    def open_driver(self):
        return lambda root: ToyDriver(root, {})
"""


def test_it_passes_the_conformance_suite_as_the_guide_shows_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "test_conformance.py").write_text(SUITE)
    # A process of its own, as an author has it: away from the workspace and its settings.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_conformance.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed), "DOCKP_REQUIRE": "toy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
