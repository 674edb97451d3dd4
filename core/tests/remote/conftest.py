"""A peer and an engine that speaks to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from peer import Peer

from dockp.remote import connect
from dockp.remote.engine import RemoteEngine


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path / "socket")
    yield peer
    peer.close()


@pytest.fixture
def engine(peer: Peer) -> Iterator[RemoteEngine]:
    with connect(peer.host) as engine:
        yield engine
