"""``export``."""

from __future__ import annotations

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import STRING, Flag, Values


def export(app: App, values: Values) -> None:
    from dockp.cli.saving import save_to

    save_to(values["output"], lambda: app.engine.containers.export(values.args[0]), "failed to export container")


EXPORT = Command(
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    export,
    (Flag("output", "o", STRING, "Write to a file, instead of STDOUT"),),
    args=(1, 1),
    aliases="dockp container export, dockp export",
    examples=("dockp export -o web.tar web", "dockp container export --output=web.tar web"),
    names="container",
)
