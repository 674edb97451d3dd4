"""A storage driver from outside, built and installed as a wheel, runs containers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY, Dockp, image_tar


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the toy driver's distribution in it."""
    work = tmp_path_factory.mktemp("toy")
    shutil.copytree(REPOSITORY / "tests" / "toy_driver", work / "source")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(work / "dist")]
    subprocess.run([*build, str(work / "source")], check=True, capture_output=True, timeout=120)
    wheel = next((work / "dist").glob("*.whl"))
    install = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", str(work / "site")]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=120)
    return work / "site"


def test_it_is_discovered_selected_and_used(fresh: Dockp, site: Path) -> None:
    fresh.settings = {"PYTHONPATH": str(site), "DOCKP_CACHE_DIR": str(fresh.base / "cache")}
    fresh.add_image("busybox", image_tar("busybox"))
    rows = [json.loads(line) for line in fresh.ok("plugin", "ls", "--format", "json").splitlines()]
    assert any(row["Name"] == "toy" and row["Distribution"] == "dockp-storage-toy" for row in rows)
    fresh.globals = ("--storage-driver=toy", "--storage-opt", "toy.label=mine")
    assert "Storage Driver: toy" in fresh.ok("info")
    assert (
        fresh.ok("run", "--name", "box", "--network", "none", "busybox", "sh", "-c", "rm /bin/ls; echo x > /new") == ""
    )
    assert fresh.ok("inspect", "-f", "{{.Driver}}", "box") == "toy"
    assert len(list((fresh.data_root / "storage" / "toy" / "snapshots").iterdir())) >= 2
    # Taken away again, the engine goes on, and says in one line what is missing.
    fresh.settings = {"DOCKP_CACHE_DIR": str(fresh.base / "cache")}
    done = fresh("run", "--rm", "--network", "none", "busybox", "true")
    assert done.returncode == 125
    assert len(done.stderr.strip().split("\n\n")[0].splitlines()) == 1
    assert "toy" in done.stderr
    fresh.globals = ()
    assert fresh.ok("run", "--rm", "--network", "none", "busybox", "echo", "on") == "on"
    # What depends on it is marked, and is there again when the driver is.
    assert '(degraded: storage driver "toy" is missing)' in fresh.ok("ps", "-a")
    assert fresh.ok("inspect", "-f", "{{.Degraded}}", "box") == 'storage driver "toy" is missing'
    assert "container box is degraded" in fresh("info").stderr + fresh("info").stdout
    assert "toy" in fresh("start", "box").stderr
    fresh.settings["PYTHONPATH"] = str(site)
    fresh.ok("start", "box")
    fresh.ok("rm", "-f", "box")
