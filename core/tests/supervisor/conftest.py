from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "shim"))

import shimlab


@pytest.fixture
def plain(tmp_path):
    """Containers of a runtime that isolates nothing."""
    if os.geteuid() != 0:
        pytest.fail("shims make namespaces and mounts: run this test as root", pytrace=False)
    root = tmp_path / "run"
    (root / "containers").mkdir(parents=True)
    lab = shimlab.Lab(root)
    yield lab
    lab.close()
