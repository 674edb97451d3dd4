"""An archive from the engine to a file or to standard output: ``save`` and ``export``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import BinaryIO

from dockp.cli.app import Failure

_PIECE = 1 << 20


def save_to(path: str, open_stream: Callable[[], BinaryIO], failed: str) -> None:
    """Write what ``open_stream`` gives to the file ``path``, or to standard output when that is "".

    Args: failed: what an error begins with. Raises: Failure.
    """
    if not path:
        if sys.stdout.isatty():
            raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        with open_stream() as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer, _PIECE)
        sys.stdout.buffer.flush()
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise Failure(f"{failed}: invalid output path: stat {folder}: no such file or directory")
    if os.path.isdir(path):
        raise Failure(f"{failed}: invalid output path: {path} is a directory")
    with open_stream() as stream:
        _write(stream, path)


def _write(stream: BinaryIO, path: str) -> None:
    """Into ``path`` under another name until it is whole, unless that is something like a device or a pipe."""
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:
            shutil.copyfileobj(stream, file, _PIECE)
        return
    unfinished = f"{path}.{os.getpid()}.part"
    try:
        with open(unfinished, "xb") as file:
            os.fchmod(file.fileno(), 0o600)  # it may hold secrets; Docker writes it so too
            shutil.copyfileobj(stream, file, _PIECE)
        os.rename(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        raise
