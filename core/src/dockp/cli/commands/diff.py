"""``diff``."""

from __future__ import annotations

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import Values


def diff(app: App, values: Values) -> None:
    for change in app.engine.containers.changes(values.args[0]):
        print("CAD"[change["Kind"]], change["Path"])


DIFF = Command(
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    diff,
    args=(1, 1),
    aliases="dockp container diff, dockp diff",
    examples=("dockp diff web",),
    names="container",
)
