"""dockp: a container engine whose every layer is a plug-in. ``dockp.Engine`` is the way in for programs."""

from __future__ import annotations

# Not from typing: the shim imports this package, and typing alone would double what a shim costs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dockp.engine import Engine as Engine

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The shim imports this package too and must stay tiny, so the engine is loaded only when it is asked for.
    if name == "Engine":
        from dockp.engine import Engine

        return Engine
    raise AttributeError(f"module 'dockp' has no attribute {name!r}")
