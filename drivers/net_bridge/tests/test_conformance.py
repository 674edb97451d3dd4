"""The rules that every network driver obeys."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dockp.testkit.network import NetworkConformance
from dockp_net_bridge.driver import BridgeDriver


class TestBridge(NetworkConformance):
    @pytest.fixture
    def open_driver(self) -> Callable[[], BridgeDriver]:
        return lambda: BridgeDriver({})
