"""How the C library keeps memory. Source: mallopt(3), malloc_trim(3). Both are glibc's; elsewhere nothing happens."""

from __future__ import annotations

from dockp.linux.libc import c_int, c_size_t, function

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def suit_a_daemon() -> None:
    """For a process with many threads that calls `trim` when it has nothing to do.

    All threads share one arena: what one freed is of use to the others, and they hold the interpreter lock whenever
    they allocate, so that they hardly ever wait for each other here. The heap does not shrink and grow again with every
    request, which would cost a fault for each page of it.
    """
    try:
        mallopt = function("mallopt", c_int, c_int)
    except AttributeError:
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_TRIM_THRESHOLD, 8 << 20)
    mallopt(_M_TOP_PAD, 512 << 10)
    mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def trim() -> None:
    """Give free memory back to the kernel."""
    try:
        malloc_trim = function("malloc_trim", c_size_t)
    except AttributeError:
        return
    malloc_trim(0)
