"""Progress of pulls and imports on a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def shown_progress(stream: TextIO, *, quiet: bool = False) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Gives the callable for `Images.pull` and `Images.import_`; None when nothing is to be shown."""
    if quiet:
        yield None
        return
    from dockp.cli.format.progress import Progress

    with Progress(stream) as lines:

        def show(what: str, done: int, total: int | None) -> None:
            # Without a number it is a step ("Extracting"), with one it is the bytes of one thing.
            key, _, status = what.partition(": ")
            if not status:
                key, status = "", what
            lines.update(key, status, done or None, total)

        yield show
