"""Namespaces and processes: unshare, setns, clone3, pidfds, user namespace maps.

Sources: namespaces(7), clone(2), setns(2), user_namespaces(7), time_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import struct

from dockp.linux.libc import (
    address,
    buffer,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_void_p,
    check,
    error,
    fail,
    function,
    python_api,
    system_call,
    system_call_keeping_gil,
)

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

SIGCHLD = 17

KINDS = {
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "mount": (CLONE_NEWNS, "mnt"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "time": (CLONE_NEWTIME, "time"),
    "user": (CLONE_NEWUSER, "user"),
    "uts": (CLONE_NEWUTS, "uts"),
}
"""OCI namespace type: (clone flag, file name under /proc/<pid>/ns)."""

_unshare = function("unshare", c_int)
_setns = function("setns", c_int, c_int)
_clone3 = system_call_keeping_gil("clone3", c_char_p, c_size_t)
_pidfd_open = system_call("pidfd_open", c_int, c_uint)
_pidfd_send_signal = system_call("pidfd_send_signal", c_int, c_int, c_void_p, c_uint)

_before_fork = python_api("PyOS_BeforeFork")
_after_fork_parent = python_api("PyOS_AfterFork_Parent")
_after_fork_child = python_api("PyOS_AfterFork_Child")


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(_unshare(flags), "unshare")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2) with the descriptor of a namespace, or with a pidfd and several flags (Linux 5.8)."""
    if _setns(fd, flags) < 0:
        fail("setns")


def clone(flags: int, cgroup_fd: int | None = None, sibling: bool = False) -> tuple[int, int]:
    """fork(2) into new namespaces by clone3(2); returns (pid, pidfd), which is (0, -1) in the child.

    Only for single-threaded processes. The interpreter's own fork hooks run as with os.fork().
    Args: flags: ``CLONE_NEW…``. cgroup_fd: a directory of a cgroup2 hierarchy to be born in. sibling: be a child of
        this process's parent, which then reaps it and whose death its death signal means.
    Raises: OSError.
    """
    pidfd = buffer(4)
    flags |= CLONE_PIDFD
    if cgroup_fd is not None:
        flags |= CLONE_INTO_CGROUP
    exit_signal = SIGCHLD
    if sibling:
        flags |= CLONE_PARENT
        exit_signal = 0  # it has this process's own, and must not be given one
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
    # set_tid_size, cgroup
    arguments = struct.pack("=11Q", flags, address(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, cgroup_fd or 0)
    _before_fork()
    pid = _clone3(arguments, len(arguments))
    if pid == 0:
        _after_fork_child()
        return 0, -1
    problem = error("clone3") if pid < 0 else None
    _after_fork_parent()
    if problem is not None:
        raise problem
    return pid, struct.unpack("=i", pidfd.raw)[0]


def pidfd_open(pid: int) -> int:
    """A descriptor of process ``pid``. Raises: ProcessLookupError."""
    return check(_pidfd_open(pid, 0), f"pid {pid}")


def pidfd_signal(pidfd: int, signum: int) -> bool:
    """Signal the process behind ``pidfd``; False when it is gone already."""
    if _pidfd_send_signal(pidfd, signum, None, 0) < 0:
        problem = error("pidfd")
        if problem.errno != errno.ESRCH:
            raise problem
        return False
    return True


def open_own(kind: str) -> int:
    """A descriptor of this process's namespace of an OCI kind."""
    return os.open(f"/proc/self/ns/{KINDS[kind][1]}", os.O_RDONLY | os.O_CLOEXEC)


def write_id_maps(
    pid: int, uid_map: Iterable[tuple[int, int, int]], gid_map: Iterable[tuple[int, int, int]], setgroups: bool = True
) -> None:
    """Write the maps of the user namespace of ``pid``, as (inside, outside, count) each. Raises OSError.

    Args: setgroups: False is what an unprivileged writer must say before it may write the gid map.
    """
    if not setgroups:
        _write(f"/proc/{pid}/setgroups", "deny")
    for name, entries in (("uid_map", uid_map), ("gid_map", gid_map)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in entries)
        _write(f"/proc/{pid}/{name}", text)


def loopback_up() -> None:
    """Bring the loopback interface of this network namespace up. Source: netdevice(7), SIOCGIFFLAGS. Raises OSError."""
    import _socket
    import fcntl

    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control.fileno(), _SIOCGIFFLAGS, request), 16)[0]
        if not flags & _IFF_UP:  # asking is free, changing takes a lock that all namespaces share
            fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
    finally:
        control.close()


def _write(path: str, text: str) -> None:
    # The kernel takes a map in one write only.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as failure:
        raise OSError(failure.errno, os.strerror(failure.errno or 0), path) from None
    finally:
        os.close(fd)


def user_namespace(uid_map: Iterable[tuple[int, int, int]], gid_map: Iterable[tuple[int, int, int]]) -> int:
    """A descriptor of a new user namespace with these maps and no process in it: what idmapped mounts take.

    Only for single-threaded processes. Raises OSError.
    """
    awake, wake = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = clone(CLONE_NEWUSER)
    if pid == 0:
        os.close(wake)
        os.read(awake, 1)  # until the parent is done, or gone
        os._exit(0)
    try:
        os.close(awake)
        write_id_maps(pid, uid_map, gid_map)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(wake)
        os.close(pidfd)
        os.waitpid(pid, 0)
