"""Properties of the calling process: prctl, ids, limits, scheduling, keyring, descriptors.

What the standard library has (os.setresuid, os.sched_setaffinity, resource.prlimit ...) is used where it is.
Sources: prctl(2), close_range(2), personality(2), sched_setattr(2), ioprio_set(2), keyctl(2).
"""

from __future__ import annotations

import os
import struct

from dockp.linux.libc import c_char_p, c_int, c_size_t, c_uint, c_ulong, check, error, function, system_call

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

CLOSE_RANGE_CLOEXEC = 4
_LAST_DESCRIPTOR = 0xFFFFFFFF
KEYCTL_JOIN_SESSION_KEYRING = 1

SCHEDULING_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULING_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}

_prctl = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_set_name = function("prctl", c_int, c_char_p)
_sethostname = function("sethostname", c_char_p, c_size_t)
_setdomainname = function("setdomainname", c_char_p, c_size_t)
_personality = function("personality", c_ulong)
_close_range = system_call("close_range", c_uint, c_uint, c_uint)
_sched_setattr = system_call("sched_setattr", c_int, c_char_p, c_uint)
_ioprio_set = system_call("ioprio_set", c_int, c_int, c_int)
_keyctl = system_call("keyctl", c_int, c_char_p)
_rt_sigaction = system_call("rt_sigaction", c_int, c_char_p, c_char_p, c_size_t)


def set_no_new_privileges() -> None:
    """No execve(2) from here on gives privileges (irreversible)."""
    check(_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def set_parent_death_signal(signum: int) -> None:
    """Have the kernel send ``signum`` when the parent thread ends. Changing ids clears it: set it afterwards."""
    check(_prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0), "pdeathsig")


def set_child_subreaper(on: bool = True) -> None:
    """Become (or stop being) the parent of orphaned descendants."""
    check(_prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0), "subreaper")


def dumpable() -> bool:
    """Whether others of the same ids may look into this process (ptrace, /proc/<pid>/exe and fd)."""
    return check(_prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), "dumpable") == 1


def set_dumpable(on: bool) -> None:
    """Let others look into this process or not; children inherit it, execve(2) sets it again."""
    check(_prctl(PR_SET_DUMPABLE, int(on), 0, 0, 0), "dumpable")


def set_keep_capabilities(on: bool) -> None:
    """Keep the permitted capabilities when all ids become non-zero."""
    check(_prctl(PR_SET_KEEPCAPS, int(on), 0, 0, 0), "keepcaps")


def set_name(name: str) -> None:
    """The name in ps (15 bytes)."""
    check(_set_name(PR_SET_NAME, os.fsencode(name)), "name")


def set_host_name(name: str) -> None:
    """sethostname(2)."""
    encoded = os.fsencode(name)
    check(_sethostname(encoded, len(encoded)), f"hostname {name}")


def set_domain_name(name: str) -> None:
    """setdomainname(2)."""
    encoded = os.fsencode(name)
    check(_setdomainname(encoded, len(encoded)), f"domainname {name}")


def set_personality(persona: int) -> None:
    """personality(2)."""
    check(_personality(persona), "personality")


def close_from(first: int) -> None:
    """Close every descriptor from ``first`` on."""
    if _close_range(first, _LAST_DESCRIPTOR, 0) < 0:
        raise error("close_range")


def close_on_exec_from(first: int) -> None:
    """Have every descriptor from ``first`` on closed by execve(2)."""
    if _close_range(first, _LAST_DESCRIPTOR, CLOSE_RANGE_CLOEXEC) < 0:
        raise error("close_range")


def set_scheduler(
    policy: int,
    nice: int = 0,
    priority: int = 0,
    flags: int = 0,
    runtime: int = 0,
    deadline: int = 0,
    period: int = 0,
) -> None:
    """sched_setattr(2) on this thread; times in nanoseconds."""
    attributes = struct.pack("=IIQiIQQQ", 48, policy, flags, nice, priority, runtime, deadline, period)
    check(_sched_setattr(0, attributes, 0), "scheduler")


def set_io_priority(io_class: int, priority: int) -> None:
    """ioprio_set(2) on this process."""
    check(_ioprio_set(1, 0, io_class << 13 | priority), "ioPriority")


def join_session_keyring(name: str) -> None:
    """Join the session keyring ``name``, making it when absent. Raises OSError (ENOSYS where keys are not built in)."""
    check(_keyctl(KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name)), "session keyring")


def reset_action(signum: int) -> None:
    """Give a signal its default action, past the C library, which refuses to touch those it uses itself (32 and 33) but
    leaves them ignored in what posix_spawn(3) starts. Source: sigaction(2), "C library/kernel differences".
    """
    # struct kernel_sigaction of zeros: SIG_DFL, no flags, no restorer, an empty mask of eight bytes
    check(_rt_sigaction(signum, bytes(32), None, 8), signum)
