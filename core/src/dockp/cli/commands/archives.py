"""``save`` and ``load``."""

from __future__ import annotations

import sys

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values


def save(app: App, values: Values) -> None:
    from dockp.cli.saving import save_to

    save_to(
        values["output"],
        lambda: app.engine.images.save(values.args, platform=values["platform"]),
        "failed to save image",
    )


def load(app: App, values: Values) -> None:
    from dockp.cli.pulling import shown_progress

    path = values["input"]
    if not path and sys.stdin.isatty():
        raise Failure("requested load from stdin, but stdin is empty")
    try:
        source = open(path, "rb") if path else sys.stdin.buffer  # noqa: SIM115 - closed below
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or '').lower()}") from error
    with source, shown_progress(sys.stderr, quiet=values["quiet"] or not sys.stderr.isatty()) as progress:
        loaded = app.engine.images.load(source, platform=values["platform"], progress=progress)
    for name in loaded:
        print(f"Loaded image ID: {name}" if name.startswith("sha256:") else f"Loaded image: {name}")


SAVE = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    save,
    (
        Flag("output", "o", STRING, "Write to a file, instead of STDOUT"),
        Flag("platform", "", STRING, 'Save only the given platform variant, as "os[/arch[/variant]]"'),
    ),
    args=(1, None),
    aliases="dockp image save, dockp save",
    examples=("dockp save -o app.tar app:1 app:2", "dockp image save debian:bookworm"),
    names="image",
)
LOAD = Command(
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    load,
    (
        Flag("input", "i", STRING, "Read from tar archive file, instead of STDIN"),
        Flag("platform", "", STRING, 'Load only the given platform variant, as "os[/arch[/variant]]"'),
        Flag("quiet", "q", SWITCH, "Suppress the load output"),
    ),
    args=(0, 0),
    aliases="dockp image load, dockp load",
    examples=("dockp load -i app.tar", "dockp image load -q --input app.tar.gz"),
)
