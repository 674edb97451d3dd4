"""Being connected to a container: terminal, signals, exit code. Used by ``run``, ``start``, ``attach`` and ``exec``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from dockp.cli.app import Failure

if TYPE_CHECKING:
    from dockp.interface import Stream

# Not proxied: what cannot be caught, what tells this process about itself (children, pipes, faults), what job control
# sends to keep it off the terminal, and the window size, which many servers take for a request to stop.
_OWN = frozenset(
    (
        *("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGURG", "SIGPIPE", "SIGTTIN", "SIGTTOU", "SIGWINCH"),
        *("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"),
    )
)

_PATIENCE = 3


def check_terminal(stdin: bool, tty: bool) -> None:
    """A pseudo-terminal with input needs a terminal here. Raises Failure."""
    if stdin and tty and not os.isatty(0):
        raise Failure("the input device is not a TTY")


def window_size() -> tuple[int, int]:
    """(rows, columns) of the terminal on standard output; zeros when there is none."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return (0, 0)
    return (size.lines, size.columns)


def _signal_name(number: int) -> str:
    if number >= signal.SIGRTMIN:
        return f"RTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else "RTMIN"
    return signal.Signals(number).name.removeprefix("SIG")


@contextmanager
def signals_sent_to(kill: Callable[[str], object], enabled: bool = True) -> Iterator[None]:
    """While inside, signals this process gets are handed to ``kill`` (by name) in a thread of their own.

    The third INT or TERM ends this process instead, for a container that ignores them. Raises: Failure then.
    """
    if not enabled:
        yield
        return
    from queue import SimpleQueue
    from threading import Thread

    arrived: SimpleQueue[int] = SimpleQueue()
    forwarder: list[Thread] = []

    def forward() -> None:
        while True:
            number = arrived.get()
            if number == 0:
                return
            try:
                kill(_signal_name(number))
            except Exception:  # noqa: S112 - as in Docker: the container may just have ended, and its code tells all
                continue

    endings = 0

    def caught(number: int, frame: FrameType | None) -> None:
        nonlocal endings
        # The engine is not called here: the handler may run in the middle of a call of the engine, under its locks.
        arrived.put(number)
        if not forwarder:
            forwarder.append(Thread(target=forward, daemon=True))
            forwarder[0].start()
        endings += number in (signal.SIGINT, signal.SIGTERM)
        if endings == _PATIENCE:
            raise Failure(f"\ngot {_PATIENCE} SIGTERM/SIGINTs, forcefully exiting")

    before = {}
    for number in signal.valid_signals():
        name = signal.Signals(number).name if number in signal.Signals._value2member_map_ else ""
        if name not in _OWN:
            before[number] = signal.signal(number, caught)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        arrived.put(0)


def pump(
    stream: Stream,
    *,
    tty: bool,
    stdin: bool,
    stdout: bool = True,
    stderr: bool = True,
    resize: Callable[[int, int], object] | None = None,
) -> str:
    """Move bytes between this process's standard streams and ``stream`` until it ends.

    Returns: "exit", or "detach" when the detach keys were typed.
    """
    from dockp.supervisor import stdio

    sys.stdout.flush()
    sys.stderr.flush()
    return stdio.pump(
        stream,
        stdin=0 if stdin else None,
        stdout=1 if stdout else None,
        stderr=2 if stderr else None,
        tty=tty,
        on_resize=resize if tty and os.isatty(1) else None,
    )
