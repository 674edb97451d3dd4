"""These tests make devices and give files away."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _root_is_needed() -> None:
    if os.geteuid() != 0:
        pytest.fail("layers hold devices and owners: run these tests as root")
