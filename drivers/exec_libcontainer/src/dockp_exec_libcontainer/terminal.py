"""The foreground of `dockp_exec_libcontainer.command`: our own terminal connected with that of a process."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable


def exit_status(status: int) -> int:
    """What a shell would say of a wait(2) status: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def run(begin: Callable[[tuple[int, int, int]], int]) -> int:
    """Begin a process on a new terminal, carry input and output until it ends, and return its exit status."""
    master, replica = os.openpty()
    saved = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        _copy_size(master)
        try:
            pid = begin((replica, replica, replica))
        finally:
            os.close(replica)
        signal.signal(signal.SIGWINCH, lambda *_: _copy_size(master))
        if saved is not None:
            tty.setraw(0)
        _carry(master)
        return exit_status(os.waitpid(pid, 0)[1])
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)
        os.close(master)


def _copy_size(master: int) -> None:
    if os.isatty(0):
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))


def _carry(master: int) -> None:
    watched = [master, 0]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if master in ready:
            try:
                output = os.read(master, 65536)
            except OSError:  # EIO: the last holder of the replica is gone
                return
            if not output:
                return
            sys.stdout.buffer.write(output)
            sys.stdout.buffer.flush()
        if 0 in ready:
            typed = os.read(0, 65536)
            if not typed:
                watched.remove(0)
            else:
                os.write(master, typed)
