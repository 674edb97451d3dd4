"""Loading a ready seccomp filter (BPF bytes). Source: seccomp(2)."""

from __future__ import annotations

import os
import struct

from dockp.linux.libc import address, buffer, c_char_p, c_uint, check, system_call

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_GET_ACTION_AVAIL = 2
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
_INSTRUCTION_SIZE = 8

_seccomp = system_call("seccomp", c_uint, c_uint, c_char_p)


def available() -> bool:
    """Whether this kernel takes filters."""
    return _seccomp(SECCOMP_GET_ACTION_AVAIL, 0, struct.pack("=I", 0x7FFF0000)) == 0


def load(program: bytes, flags: int = 0) -> None:
    """Put this thread, and what it executes, under ``program``. Needs no_new_privs or CAP_SYS_ADMIN. Raises OSError."""
    if not program or len(program) % _INSTRUCTION_SIZE:
        raise OSError(22, os.strerror(22), f"seccomp filter of {len(program)} bytes")
    code = buffer(program)
    # struct sock_fprog: unsigned short len, then a pointer, naturally aligned
    header = struct.pack("@HP", len(program) // _INSTRUCTION_SIZE, address(code))
    check(_seccomp(SECCOMP_SET_MODE_FILTER, flags, header), "seccomp filter")
