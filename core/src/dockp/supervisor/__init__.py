"""Starts shims, talks to them, and reads what they leave behind. Keeps no state of its own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dockp.supervisor.client import AttachStream, ShimClient
    from dockp.supervisor.launch import Supervisor
    from dockp.supervisor.state import TaskState

__all__ = ["AttachStream", "ShimClient", "Supervisor", "TaskState"]

_PLACES = {"AttachStream": "client", "ShimClient": "client", "Supervisor": "launch", "TaskState": "state"}


def __getattr__(name: str) -> Any:
    # A command whose engine is behind a socket needs `dockp.supervisor.stdio` alone.
    if name in _PLACES:
        return getattr(importlib.import_module(f"dockp.supervisor.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
