"""dockp: a container engine whose every layer is a plug-in. ``dockp.Engine`` is the way in for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dockp.engine import Engine as Engine

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The shim imports this package too and must stay tiny, so the engine is loaded only when it is asked for.
    if name == "Engine":
        from dockp.engine import Engine

        return Engine
    raise AttributeError(f"module 'dockp' has no attribute {name!r}")
