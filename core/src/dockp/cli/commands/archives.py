"""``save`` and ``load``."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values


def save(app: App, values: Values) -> None:
    import shutil

    path = values["output"]
    if not path:
        if sys.stdout.isatty():
            raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        with app.engine.images.save(values.args, platform=values["platform"]) as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise Failure(f"failed to save image: invalid output path: stat {folder}: no such file or directory")
    if os.path.isdir(path):
        raise Failure(f"failed to save image: invalid output path: {path} is a directory")
    with app.engine.images.save(values.args, platform=values["platform"]) as stream:
        _write(stream, path)


def _write(stream: BinaryIO, path: str) -> None:
    """Into ``path`` under another name until it is whole, unless that is something like a device or a pipe."""
    import shutil

    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        return
    unfinished = f"{path}.{os.getpid()}.part"
    try:
        with open(unfinished, "xb") as file:
            os.fchmod(file.fileno(), 0o600)  # images may hold secrets; Docker writes it so too
            shutil.copyfileobj(stream, file, 1 << 20)
        os.rename(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise


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
