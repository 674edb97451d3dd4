"""The binding to the C library: function objects with their types set once, and the one way errors are raised.

Every other module of `dockp.linux` gets its calls from here; nothing outside this package imports ctypes. Kept light,
since the shim imports it: it stands on ``_ctypes``, the C half of ctypes, of whose Python half (300 kB, and as long to
import as the rest of this package) it would use nothing but the type names below.

Calls that Debian 12's and older C libraries lack are made by number through ``syscall(2)``. Numbers from 424 on are
the same on every architecture; the older ones differ and stand in `_NUMBERS`.
"""

from __future__ import annotations

import os
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    get_errno,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


class c_char(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801 - C's name
    _type_ = "c"


class c_char_p(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "z"


class c_int(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "i"


class c_uint(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "I"


class c_long(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "l"


class c_ulong(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "L"


class c_void_p(_SimpleCData):  # type: ignore[type-arg]  # noqa: N801
    _type_ = "P"


c_size_t = c_ulong


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_int


class _FunctionKeepingGil(CFuncPtr):
    # The interpreter lock is kept for the length of the call: clone3 must return in a child that still holds it.
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI
    _restype_ = c_int


class _Process:
    """What is linked into this process: the C library and the interpreter. What CFuncPtr needs of a library."""

    _handle = dlopen(None, 0)  # type: ignore[arg-type]  # None is "this process", dlopen(3)


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
        "rt_sigaction": 13,
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
        "rt_sigaction": 134,
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
    found: Any = _Function((name, _Process))  # type: ignore[arg-type]
    found.argtypes = types
    return found  # type: ignore[no-any-return]


def number(name: str) -> int:
    """The number of a system call here, or -1 (which the kernel answers with ENOSYS) on an unknown architecture."""
    return _ANY_ARCHITECTURE.get(name) or _NUMBERS.get(MACHINE, {}).get(name, -1)


def system_call(name: str, *types: Any) -> Callable[..., int]:
    """System call ``name`` as a function of ``types``; -1 means failure, with errno for `fail`."""
    return _by_number(_Function, name, types)


def system_call_keeping_gil(name: str, *types: Any) -> Callable[..., int]:
    """Like `system_call`, for the calls that return twice."""
    return _by_number(_FunctionKeepingGil, name, types)


def _by_number(kind: Any, name: str, types: tuple[Any, ...]) -> Callable[..., int]:
    # Every call owns a function object, and so its types.
    call = kind(("syscall", _Process))
    call.argtypes = (c_long, *types)
    call.restype = c_long
    wanted = number(name)

    def invoke(*arguments: Any) -> int:
        result: int = call(wanted, *arguments)
        return result

    return invoke


def error(subject: str | int | None = None, code: int | None = None) -> OSError:
    """The last C error (or ``code``) as an OSError about ``subject``, a path or a descriptor."""
    code = get_errno() if code is None else code
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
    size = size_or_bytes if isinstance(size_or_bytes, int) else len(size_or_bytes)
    made: Any = (c_char * size)()
    if isinstance(size_or_bytes, bytes):
        made.raw = size_or_bytes
    return made


def address(memory: Any) -> int:
    """The address of a `buffer`, for structures that hold pointers."""
    return addressof(memory)


def python_api(name: str) -> Callable[[], None]:
    """A ``void name(void)`` of CPython's own API (the fork hooks)."""
    found: Any = _FunctionKeepingGil((name, _Process))  # type: ignore[arg-type]
    found.argtypes = ()
    found.restype = None
    return found  # type: ignore[no-any-return]
