"""How the C library keeps memory. Source: mallopt(3), malloc_trim(3). Both are glibc's; elsewhere nothing happens."""

from __future__ import annotations

from dockp.linux.libc import c_int, c_size_t, function

_M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Have all threads share one arena. What one thread freed is then of use to the others; they hold the interpreter
    lock whenever they allocate, so they hardly ever wait for each other here. For a process with many threads."""
    try:
        mallopt = function("mallopt", c_int, c_int)
    except AttributeError:
        return
    mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give free memory back to the kernel."""
    try:
        malloc_trim = function("malloc_trim", c_size_t)
    except AttributeError:
        return
    malloc_trim(0)
