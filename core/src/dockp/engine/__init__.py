"""Engines: things that meet `dockp.interface.Engine`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockp.engine.local import LocalEngine
from dockp.engine.local import LocalEngine as Engine

if TYPE_CHECKING:
    from dockp.config import Config

__all__ = ["Engine", "LocalEngine", "open_engine"]


def open_engine(config: Config) -> LocalEngine:
    """The engine that ``config`` describes. Raises: Forbidden when not root; SystemFault for an unusable data root."""
    return LocalEngine(config=config)
