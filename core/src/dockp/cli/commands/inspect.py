"""``inspect`` of any object, and of containers and images alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dockp.cli.app import App, Failure, warn
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values, quote
from dockp.cli.rendering import INSPECT_FORMAT, write_documents

if TYPE_CHECKING:
    from dockp.interface import Engine

_TYPES = ("container", "image", "network", "volume")


def inspect(app: App, values: Values) -> int:
    kind = values["type"]
    if "type" in values.given and kind not in _TYPES:
        listed = '", "'.join(_TYPES)
        complaint = f"unknown type: {quote(kind)}" if kind else "type is empty"
        raise Failure(f'{complaint}: must be one of "{listed}"')
    engine = app.engine
    return write_documents(values, lambda name: _find(engine, name, kind, values["size"]))


def _find(engine: Engine, name: str, kind: str, size: bool) -> dict[str, Any]:
    """The first object of that name, looked for among containers, images, networks and volumes in turn."""
    from dockp.spi.errors import InvalidArgument, NotFound, NotImplemented

    finders: dict[str, Callable[[], dict[str, Any]]] = {
        "container": lambda: engine.containers.inspect(name, size=size),
        "image": lambda: engine.images.inspect(name),
        "network": lambda: engine.networks.inspect(name),
        "volume": lambda: engine.volumes.inspect(name),
    }
    for candidate, find in finders.items():
        if kind and candidate != kind:
            continue
        try:
            document = find()
        except (NotFound, NotImplemented, InvalidArgument):
            if kind:
                raise
            continue
        if size and candidate != "container":
            warn(f"WARNING: --size ignored for {candidate}")
        return document
    raise NotFound(f"No such object: {name}")


def inspect_containers(app: App, values: Values) -> int:
    return write_documents(values, lambda name: app.engine.containers.inspect(name, size=values["size"]))


def inspect_images(app: App, values: Values) -> int:
    return write_documents(values, app.engine.images.inspect)


_SIZE = Flag("size", "s", SWITCH, "Display total file sizes")

INSPECT = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers, images, networks and volumes",
    inspect,
    (
        INSPECT_FORMAT,
        Flag("size", "s", SWITCH, "Display total file sizes if the type is container"),
        Flag("type", "", STRING, "Only inspect objects of the given type"),
    ),
    args=(1, None),
    examples=("dockp inspect web", "dockp inspect -f '{{.State.Status}}' web db", "dockp inspect --type volume data"),
    names="container",
)
CONTAINER_INSPECT = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    inspect_containers,
    (INSPECT_FORMAT, _SIZE),
    args=(1, None),
    examples=("dockp container inspect web", "dockp container inspect -f '{{json .State}}' web"),
    names="container",
)
IMAGE_INSPECT = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    inspect_images,
    (INSPECT_FORMAT,),
    args=(1, None),
    examples=("dockp image inspect debian:bookworm", "dockp image inspect -f '{{.Id}}' debian:bookworm"),
    names="image",
)
