"""Helpers beside the tests, and one served engine for those that share it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from serving import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the busybox image, shared by the tests of a module."""
    if os.geteuid() != 0:
        pytest.skip("these tests make containers: run them as root")
    with Served(tmp_path_factory.mktemp("served")) as server:
        server.add_busybox()
        yield server
