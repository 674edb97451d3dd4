"""Finding the command inside the container, with the words of Go's os/exec that tools and people know."""

from __future__ import annotations

import errno
import os
import stat

from dockp.spi.runtime import RuntimeFailure

NOT_FOUND = "not-found"
NOT_EXECUTABLE = "not-executable"


def find_command(name: str, path: str) -> str:
    """The file to execute for ``name``: as given when it has a slash, else from the directories of ``path``.

    Called in the container, as its user. Raises RuntimeFailure of kind "not-found" or "not-executable".
    """
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        if problem in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            raise RuntimeFailure(f"exec: {_quote(name)}: stat {name}: {_text(problem)}", NOT_FOUND)
        raise RuntimeFailure(f"exec: {_quote(name)}: {_text(problem)}", NOT_EXECUTABLE)
    refused = False
    for directory in path.split(":") if name and path else ():
        candidate = f"{directory or '.'}/{name}"
        problem = _problem(candidate)
        if problem is None:
            return candidate
        refused = refused or problem == errno.EACCES
    if refused:
        raise RuntimeFailure(f"exec: {_quote(name)}: permission denied", NOT_EXECUTABLE)
    raise RuntimeFailure(f"exec: {_quote(name)}: executable file not found in $PATH", NOT_FOUND)


def execution_failure(path: str, failure: OSError) -> RuntimeFailure:
    """What to say when execve(2) itself refused ``path``."""
    kind = NOT_FOUND if failure.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
    return RuntimeFailure(f"exec {path}: {_text(failure.errno or 0)}", kind)


def _problem(path: str) -> int | None:
    try:
        found = os.stat(path)
    except OSError as failure:
        return failure.errno
    if stat.S_ISDIR(found.st_mode):
        return errno.EISDIR
    # By the effective ids; root too needs one execute bit, which access(2) knows.
    if not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return None


def _text(code: int) -> str:
    return os.strerror(code)[:1].lower() + os.strerror(code)[1:]


def _quote(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
