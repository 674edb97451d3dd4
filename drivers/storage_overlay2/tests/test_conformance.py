"""The conformance suite, without options and with all."""

from __future__ import annotations

from typing import ClassVar

import pytest

from dockp.testkit.storage import OpenDriver, StorageConformance
from dockp_storage_overlay2.driver import Overlay2Driver

LINKS = {"hard_links_of_a_lower_layer_stay_one_file_when_written": "needs overlay's index, which children do not see"}


class TestOverlay2(StorageConformance):
    limits: ClassVar[dict[str, str]] = {
        **LINKS,
        "directories_of_a_lower_layer_can_be_renamed": "needs redirect_dir, which would make diffs inexact",
    }

    @pytest.fixture
    def open_driver(self) -> OpenDriver:
        return lambda root: Overlay2Driver(root, {})


class TestOverlay2WithMetacopyAndVolatile(StorageConformance):
    limits: ClassVar[dict[str, str]] = LINKS

    @pytest.fixture
    def open_driver(self) -> OpenDriver:
        return lambda root: Overlay2Driver(root, {"overlay2.metacopy": "true", "overlay2.volatile": "true"})
