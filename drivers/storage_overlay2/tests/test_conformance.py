"""The conformance suite, on every combination of options that changes how files are copied up."""

from __future__ import annotations

from typing import ClassVar

import pytest

from dockp.testkit.storage import OpenDriver, StorageConformance
from dockp_storage_overlay2.driver import Overlay2Driver


class TestOverlay2(StorageConformance):
    limits: ClassVar[dict[str, str]] = {
        "directories_of_a_lower_layer_can_be_renamed": "needs redirect_dir, which would make diffs inexact",
        "hard_links_of_a_lower_layer_stay_one_file_when_written": "needs overlay2.index=true",
    }

    @pytest.fixture
    def open_driver(self) -> OpenDriver:
        return lambda root: Overlay2Driver(root, {})


class TestOverlay2WithMetacopyIndexAndVolatile(StorageConformance):
    @pytest.fixture
    def open_driver(self) -> OpenDriver:
        options = {"overlay2.metacopy": "true", "overlay2.index": "true", "overlay2.volatile": "true"}
        return lambda root: Overlay2Driver(root, options)
