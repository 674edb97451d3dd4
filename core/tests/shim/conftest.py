from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import shimlab


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    return shimlab.busybox_tree(tmp_path_factory.mktemp("busybox") / "rootfs")


@pytest.fixture
def plain(tmp_path):
    """Containers of the runtime that isolates nothing."""
    yield from _lab(tmp_path, shimlab.PLAIN, None)


@pytest.fixture(params=[shimlab.PLAIN, shimlab.LIBCONTAINER], ids=["plain", "libcontainer"])
def lab(request, tmp_path, tree):
    yield from _lab(tmp_path, request.param, tree)


@pytest.fixture
def real(tmp_path, tree):
    """Containers of the real runtime."""
    yield from _lab(tmp_path, shimlab.LIBCONTAINER, tree)


def _lab(tmp_path, runtime, tree):
    if os.geteuid() != 0:
        pytest.fail("shims make namespaces and mounts: run this test as root", pytrace=False)
    root = tmp_path / "run"
    (root / "containers").mkdir(parents=True)
    lab = shimlab.Lab(root, runtime, tree)
    yield lab
    lab.close()
