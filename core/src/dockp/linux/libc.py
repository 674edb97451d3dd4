"""The binding to the C library: function objects with their types set once, and the one way errors are raised.

Every other module of `dockp.linux` gets its calls from here; nothing outside this package imports ctypes. Kept light
(os and ctypes only), since the shim imports it.

Calls that Debian 12's and older C libraries lack are made by number through ``syscall(2)``. Numbers from 424 on are
the same on every architecture; the older ones differ and stand in `_NUMBERS`.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_uint64, c_ulong, c_void_p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = [
    "c_char_p",
    "c_int",
    "c_long",
    "c_size_t",
    "c_uint",
    "c_uint64",
    "c_ulong",
    "c_void_p",
    "check",
    "error",
    "fail",
    "function",
    "system_call",
    "system_call_keeping_gil",
]

_LIBC = ctypes.CDLL(None, use_errno=True)
# PyDLL keeps the interpreter lock for the length of the call: clone3 must return in a child that still holds it.
_LIBC_WITH_GIL = ctypes.PyDLL(None, use_errno=True)

_ANY_ARCHITECTURE = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
_NUMBERS = {
    "x86_64": {
        "pivot_root": 155,
        "capget": 125,
        "capset": 126,
        "add_key": 248,
        "keyctl": 250,
        "ioprio_set": 251,
        "sched_setattr": 314,
        "seccomp": 317,
        "memfd_create": 319,
        "bpf": 321,
    },
    "aarch64": {
        "pivot_root": 41,
        "capget": 90,
        "capset": 91,
        "add_key": 217,
        "keyctl": 219,
        "ioprio_set": 30,
        "sched_setattr": 274,
        "seccomp": 277,
        "memfd_create": 279,
        "bpf": 280,
    },
}
MACHINE = os.uname().machine


def function(name: str, *types: Any) -> Callable[..., int]:
    """The C library's ``name`` as a function returning int. Raises AttributeError where the library lacks it."""
    found = _LIBC[name]
    found.argtypes = types
    found.restype = c_int
    return found


def number(name: str) -> int:
    """The number of a system call here, or -1 (which the kernel answers with ENOSYS) on an unknown architecture."""
    return _ANY_ARCHITECTURE.get(name) or _NUMBERS.get(MACHINE, {}).get(name, -1)


def system_call(name: str, *types: Any) -> Callable[..., int]:
    """System call ``name`` as a function of ``types``; -1 means failure, with errno for `fail`."""
    return _by_number(_LIBC, name, types)


def system_call_keeping_gil(name: str, *types: Any) -> Callable[..., int]:
    """Like `system_call`, for the calls that return twice."""
    return _by_number(_LIBC_WITH_GIL, name, types)


def _by_number(library: ctypes.CDLL, name: str, types: tuple[Any, ...]) -> Callable[..., int]:
    # Indexing, unlike attribute access, gives a new function object each time: every call owns its types.
    call = library["syscall"]
    call.argtypes = (c_long, *types)
    call.restype = c_long
    wanted = number(name)

    def invoke(*arguments: Any) -> int:
        result: int = call(wanted, *arguments)
        return result

    return invoke


def error(subject: str | int | None = None, code: int | None = None) -> OSError:
    """The last C error (or ``code``) as an OSError about ``subject``, a path or a descriptor."""
    code = ctypes.get_errno() if code is None else code
    if subject is None:
        return OSError(code, os.strerror(code))
    return OSError(code, os.strerror(code), subject if isinstance(subject, str) else f"fd {subject}")


def fail(subject: str | int | None = None) -> NoReturn:
    """Raise the last C error as ``OSError(errno, text, subject)``."""
    raise error(subject)


def check(result: int, subject: str | int | None = None) -> int:
    """``result``, unless it is negative: then `fail`."""
    if result < 0:
        fail(subject)
    return result


def buffer(size_or_bytes: int | bytes) -> Any:
    """A C buffer the kernel may write into; ``.raw`` are its bytes."""
    if isinstance(size_or_bytes, bytes):
        return ctypes.create_string_buffer(size_or_bytes, len(size_or_bytes))
    return ctypes.create_string_buffer(size_or_bytes)


def address(memory: Any) -> int:
    """The address of a `buffer`, for structures that hold pointers."""
    return ctypes.addressof(memory)


def python_api(name: str) -> Callable[[], None]:
    """A ``void name(void)`` of CPython's own API (the fork hooks)."""
    found = ctypes.pythonapi[name]
    found.argtypes = ()
    found.restype = None
    return found
