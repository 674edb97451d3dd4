"""``images --tree``: images with what each is for several platforms, as Docker's command line draws it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dockp.cli.app import App, Failure
from dockp.cli.flags import Values
from dockp.cli.format.printer import short_id
from dockp.units import human_size

_NOT_YET = {"quiet": "--quiet", "no-trunc": "--no-trunc", "digests": "--show-digest", "format": "--format"}
_TITLES = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
_NUMBERS = (2, 3)  # columns that are aligned to the right
_LEGEND = "Info ->  U In Use "
_SPACE = "   "

Row = tuple[str, ...]


def show(app: App, values: Values, filters: Mapping[str, Sequence[str]]) -> None:
    """Raises: Failure for flags that do not go with it."""
    for name, flag in _NOT_YET.items():
        if values[name]:
            raise Failure(f"{flag} is not yet supported with --tree")
    documents = app.engine.images.list(all=values["all"], filters=filters, manifests=True)
    blocks = [list(rows_of(document)) for document in documents]
    widths = [
        max(len(row[column]) for row in [_TITLES, *(row for block in blocks for row in block if len(row) > column)])
        for column in range(len(_TITLES))
    ]
    sys.stdout.write(f"{_LEGEND.rjust(shutil.get_terminal_size().columns)}\n\n{_line(_TITLES, widths)}\n")
    for block in blocks:
        sys.stdout.write("".join(f"{_line(row, widths)}\n" for row in block) + "\n")


def rows_of(document: Mapping[str, Any]) -> Iterator[Row]:
    """One row a name, the last with what the image is, and one for each platform."""
    manifests = document.get("Manifests") or []
    contents = sum(one["Size"]["Content"] for one in manifests)
    used = any(one["ImageData"]["Containers"] for one in manifests)
    *others, last = sorted(document.get("RepoTags") or []) or ["<untagged>"]
    for name in others:
        yield (name,)
    yield _row(last, document["Id"], document["Size"], contents, used)
    for number, one in enumerate(manifests, 1):
        branch = "└─" if number == len(manifests) else "├─"
        parts = one["ImageData"]["Platform"]
        platform = "/".join(parts[part] for part in ("os", "architecture", "variant") if parts.get(part))
        size = one["Size"]
        yield _row(
            f"{branch} {platform}", one["ID"], size["Total"], size["Content"], bool(one["ImageData"]["Containers"])
        )


def _row(name: str, id: str, usage: int, content: int, used: bool) -> Row:
    return name, short_id(id), human_size(usage, 3), human_size(content, 3), "U" if used else ""


def _line(row: Row, widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column in _NUMBERS and row is not _TITLES else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=False))
    ]
    return _SPACE.join(cells).rstrip()
