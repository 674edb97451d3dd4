"""The engine for programs that use asyncio. The same verbs, typed (`dockp.aio.interface`).

::

    async with dockp.aio.Engine() as engine:                        # in this process, no daemon
        result = await engine.containers.run("busybox", ["echo", "hi"])

    async with dockp.aio.connect("unix:///run/dockp.sock") as engine:   # a daemon
        async for event in engine.system.events():
            ...

Against a daemon it is asyncio all the way (`dockp.aio.remote`). In-process the engine's calls run in threads
(`dockp.aio.local`), one for each call that is under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dockp.aio.local import Engine as Engine
    from dockp.aio.remote import RemoteEngine


def connect(host: str, *, api_version: str = "") -> RemoteEngine:
    """The engine at ``host``, as `dockp.remote.connect` has it. Raises: InvalidArgument."""
    from dockp.aio.remote import RemoteEngine
    from dockp.remote.endpoint import Endpoint

    return RemoteEngine(Endpoint(host=host, api_version=api_version))


def __getattr__(name: str) -> Any:
    # Whoever speaks to a daemon need not wait for the engine's own modules.
    if name == "Engine":
        from dockp.aio.local import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
