"""The command line: `main` is the console script ``dockp``.

A command is parse, one engine call (or a loop over its arguments), render. Commands are loaded when they are named, and
import what they need when they run, since start-up time is part of every ``dockp run``.
"""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command of ``sys.argv`` and end the process with its exit code."""
    import gc
    import os
    import sys

    # Importing makes many objects and no garbage: at the usual threshold the collector would walk over all of them
    # again and again. A command that goes on for long is still collected.
    gc.set_threshold(50_000)
    from dockp.cli.app import run

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 1
    # Everything is closed and flushed: the interpreter's own teardown would only cost milliseconds.
    os._exit(code)
