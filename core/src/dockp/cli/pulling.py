"""Pulls, and the progress of pulls and imports on a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from dockp.cli.app import App
    from dockp.spi.images import Credentials

SOURCES = ("oci", "docker-archive", "debootstrap")
"""Schemes that come before a colon and are no repository's name."""


def pull(
    app: App,
    reference: str,
    stream: TextIO,
    *,
    tag: str = "",
    platform: str = "",
    all_tags: bool = False,
    quiet: bool = False,
) -> str:
    """Pull an image with the user's credentials, telling on ``stream`` how it goes; its id."""
    with shown_progress(stream, quiet=quiet) as progress:
        return app.engine.images.pull(
            reference,
            tag=tag,
            platform=platform,
            all_tags=all_tags,
            credentials=credentials_for(app, reference),
            progress=progress,
        )


def credentials_for(app: App, reference: str) -> Credentials | None:
    """What Docker's configuration of this user knows for the registry of ``reference``, if it means one."""
    from dockp.cli.hosts import config_directory
    from dockp.images.reference import DEFAULT_SCHEME, parse, split_scheme
    from dockp.images.registry.credentials import CredentialStore, server_of
    from dockp.spi.errors import InvalidArgument

    scheme, name = split_scheme(reference, SOURCES)
    if scheme != DEFAULT_SCHEME:
        return None
    try:
        domain = parse(name).domain
    except InvalidArgument:
        return None  # the engine says what is wrong with it
    return CredentialStore(str(config_directory(app.flags, os.environ))).get(server_of(domain))


@contextmanager
def shown_progress(stream: TextIO, *, quiet: bool = False) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Gives the callable for `Images.pull` and `Images.import_`; None when nothing is to be shown.

    In a terminal there is a line a layer, redrawn; elsewhere a line for each step, without the numbers.
    """
    if quiet:
        yield None
        return
    from dockp.cli.format.progress import Progress
    from dockp.interface import is_summary

    terminal = stream.isatty()
    with Progress(stream) as lines:

        def show(what: str, done: int, total: int | None) -> None:
            if is_summary(what):
                lines.say(what)
                return
            if not terminal and (done or total):
                return  # as Docker's: bytes are for terminals
            # Without a number it is a step ("Pull complete"), with one it is the bytes of one thing.
            key, _, status = what.partition(": ")
            if not status:
                key, status = "", what
            lines.update(key, status, done or None, total)

        yield show
