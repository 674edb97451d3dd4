"""Names of containers, images, volumes and networks, for a shell that completes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem

from dockp.cli.rendering import familiar

if TYPE_CHECKING:
    from dockp.cli.app import App
    from dockp.interface import Engine


def _containers(engine: Engine, *states: str) -> Iterable[str]:
    filters = {"status": states} if states else {}
    for document in engine.containers.list(all=True, filters=filters):
        yield from (name.removeprefix("/") for name in document["Names"])


def _images(engine: Engine) -> Iterable[str]:
    for document in engine.images.list():
        yield from (familiar(tag) for tag in document.get("RepoTags") or ())


def _named(documents: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (document["Name"] for document in documents)


NAMES: Mapping[str, Callable[[Engine], Iterable[str]]] = {
    "container": _containers,
    "running": lambda engine: _containers(engine, "running", "paused", "restarting"),
    "stopped": lambda engine: _containers(engine, "created", "exited"),
    "paused": lambda engine: _containers(engine, "paused"),
    "image": _images,
    "volume": lambda engine: _named(engine.volumes.list()),
    "network": lambda engine: _named(engine.networks.list()),
}


def complete(app: App, kind: str, incomplete: str, taken: Sequence[str]) -> list[CompletionItem]:
    """What may come where ``incomplete`` stands; nothing when the engine cannot be asked."""
    from dockp.cli.app import Failure
    from dockp.spi.errors import DockpError

    try:
        names = sorted({*NAMES[kind](app.engine)} - {*taken})
    except (DockpError, Failure, OSError):
        return []
    finally:
        app.close()
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
