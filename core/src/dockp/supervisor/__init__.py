"""Starts shims, talks to them, and reads what they leave behind. Keeps no state of its own."""

from __future__ import annotations

from dockp.supervisor.client import AttachStream, ShimClient
from dockp.supervisor.launch import Supervisor
from dockp.supervisor.state import TaskState

__all__ = ["AttachStream", "ShimClient", "Supervisor", "TaskState"]
