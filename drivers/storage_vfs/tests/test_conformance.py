"""The conformance suite."""

from __future__ import annotations

from typing import ClassVar

import pytest

from dockp.testkit.storage import OpenDriver, StorageConformance
from dockp_storage_vfs.driver import VfsDriver


class TestVfs(StorageConformance):
    limits: ClassVar[dict[str, str]] = {"usage_counts_the_snapshot_alone": "every snapshot is a full copy"}

    @pytest.fixture
    def open_driver(self) -> OpenDriver:
        return lambda root: VfsDriver(root, {})
