"""The processes of a container as ``ps`` lists them."""

from __future__ import annotations

import shlex
import subprocess

from dockp.interface import Top
from dockp.spi.errors import InvalidArgument, NotImplemented


def top(pids: set[int], arguments: str) -> Top:
    """Run the host's ``ps`` and keep the rows of ``pids``; as Docker does, so that its arguments mean the same.

    Raises: InvalidArgument with what ps said; NotImplemented where the host has no ps.
    """
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise InvalidArgument(f"invalid ps arguments {arguments!r}: {error}") from error
    try:
        done = subprocess.run(["ps", *words], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise NotImplemented("top needs the ps command on the host: install the Debian package procps") from None
    if done.returncode != 0:
        raise InvalidArgument(f"ps: {done.stderr.strip().partition(chr(10))[0] or f'exit code {done.returncode}'}")
    lines = done.stdout.splitlines()
    titles = tuple(lines[0].split()) if lines else ()
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(tuple(fields))
    return Top(titles=titles, processes=tuple(rows))
