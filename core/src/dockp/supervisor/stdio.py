"""Between this process's standard streams and an attached container: terminal modes, frames, sizes, both directions.

One poll loop and no threads. It never waits on one side while the other could go on: output that standard output does
not take is kept (and no more asked for), input that the container does not take likewise.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

_READ = 65536
_KEPT = 1 << 20
_SURE = select.PIPE_BUF
"""What a blocking pipe or terminal takes without waiting once poll(2) says it can be written."""
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class Stream(Protocol):
    """The attached end: `dockp.supervisor.AttachStream`, or a daemon's."""

    def fileno(self) -> int: ...
    def recv(self, size: int) -> bytes: ...
    def send(self, data: bytes) -> int: ...
    def close_stdin(self) -> None: ...
    def wait_end(self) -> str: ...


class Demultiplexer:
    """Takes Docker's frames apart: a byte for the stream (1 stdout, 2 stderr), three zeros, four bytes of length in
    network order, then so much data. Frames may arrive cut anywhere."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(stream, bytes) pairs in order. Raises ValueError for what is no frame."""
        found = []
        while data:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                found.append((self._stream, piece))
                continue
            missing = 8 - len(self._header)
            self._header += data[:missing]
            data = data[missing:]
            if len(self._header) == 8:
                self._stream, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
                if self._stream > 2 or self._header[1:4] != b"\0\0\0":
                    raise ValueError(f"not a stream frame: {self._header!r}")
                self._header = b""
        return found


class _Sink:
    """A descriptor to write to, and what it has not taken yet."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.kept = bytearray()
        mode = os.fstat(descriptor).st_mode
        # A file takes everything; a pipe or terminal that others share may be in blocking mode, and has to stay so.
        careful = os.get_blocking(descriptor) and not stat.S_ISREG(mode)
        self._piece = _SURE if careful else _KEPT

    def push(self) -> None:
        """Write once; called when poll(2) said it can be. Raises BrokenPipeError and other OSErrors."""
        with suppress(BlockingIOError):
            del self.kept[: os.write(self.descriptor, self.kept[: self._piece])]


def pump(
    stream: Stream,
    *,
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    tty: bool,
    on_resize: Callable[[int, int], object] | None = None,
    on_signal: Callable[[int], object] | None = None,
) -> str:
    """Move bytes until the stream ends; returns "exit" or "detach".

    Args:
        stdin, stdout, stderr: descriptors, or None to leave that one alone.
        tty: the container has a terminal: its output is not framed, and a terminal on ``stdin`` is put in raw mode,
            and back in its own mode however this ends, a deadly signal included.
        on_resize: called with (rows, columns) of the terminal at the beginning and whenever they change.
        on_signal: called with each INT, TERM, HUP, QUIT, USR1 or USR2 that arrives, which then does nothing else
            here (``--sig-proxy``). Not used in raw mode, where keys reach the container as they are.

    Raises: OSError of the local streams (BrokenPipeError when nobody reads standard output any more).
    """
    raw = tty and stdin is not None and os.isatty(stdin)
    proxied = {} if on_signal is None or raw else dict.fromkeys(_PROXIED, on_signal)
    size_of = next((fd for fd in (stdout, stdin) if fd is not None and os.isatty(fd)), None) if on_resize else None

    def resized() -> None:
        assert on_resize is not None
        assert size_of is not None
        try:
            size = os.get_terminal_size(size_of)
            on_resize(size.lines, size.columns)
        except Exception as failure:  # a size that does not arrive is no reason to end a session
            import logging

            logging.getLogger(__name__).debug("cannot tell the container its window size: %s", failure)

    with _signals(raw, size_of is not None, proxied) as wake, _raw_mode(stdin if raw else None):
        if size_of is not None:
            resized()
        # Non-blocking, since a blocking send waits until everything is taken.
        os.set_blocking(stream.fileno(), False)
        _Pump(stream, stdin, stdout, stderr, tty, wake, resized, proxied).run()
    return stream.wait_end()


_PROXIED = (*_ENDING, signal.SIGUSR1, signal.SIGUSR2)


class _Pump:
    def __init__(
        self,
        stream: Stream,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        tty: bool,
        wake: int,
        resized: Callable[[], None],
        proxied: dict[Any, Callable[[int], object]],
    ) -> None:
        self._stream = stream
        self._stdin = stdin
        self._sinks = {number: _Sink(fd) for number, fd in ((1, stdout), (2, stderr)) if fd is not None}
        self._frames = None if tty else Demultiplexer()
        self._wake = wake
        self._resized = resized
        self._proxied = proxied
        self._input = b""
        self._input_over = stdin is None
        self._output_over = False

    def run(self) -> None:
        stream = self._stream.fileno()
        while not self._output_over or any(sink.kept for sink in self._sinks.values()):
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            wanted = 0
            if not self._output_over:
                room = all(len(sink.kept) < _KEPT for sink in self._sinks.values())
                wanted = (select.POLLIN if room else 0) | (select.POLLOUT if self._input else 0)
                if wanted:
                    poll.register(stream, wanted)
                if not self._input and not self._input_over:
                    assert self._stdin is not None
                    poll.register(self._stdin, select.POLLIN)
            writing = {sink.descriptor: sink for sink in self._sinks.values() if sink.kept}
            for descriptor in writing:
                poll.register(descriptor, select.POLLOUT)
            for descriptor, events in poll.poll():
                if descriptor == self._wake:
                    self._signalled()
                elif descriptor in writing and descriptor != stream:
                    writing[descriptor].push()
                elif descriptor == stream:
                    if events & ~select.POLLOUT and wanted & select.POLLIN:
                        self._output()
                    if events & select.POLLOUT and self._input:
                        self._send()
                elif descriptor == self._stdin:
                    self._read_input()

    def _output(self) -> None:
        try:
            data = self._stream.recv(_READ)
        except BlockingIOError:
            return
        if not data:
            self._output_over = True
        elif self._frames is None:
            self._keep(1, data)
        else:
            for number, piece in self._frames.feed(data):
                self._keep(number, piece)

    def _keep(self, number: int, data: bytes) -> None:
        sink = self._sinks.get(number)
        if sink is not None:
            sink.kept += data

    def _read_input(self) -> None:
        assert self._stdin is not None
        try:
            self._input = os.read(self._stdin, _READ)
        except BlockingIOError:
            return
        except OSError as failure:
            if failure.errno != errno.EIO:  # the terminal has hung up
                raise
            self._input = b""
        if self._input:
            self._send()
        else:
            self._input_over = True
            self._stream.close_stdin()

    def _send(self) -> None:
        try:
            self._input = self._input[self._stream.send(self._input) :]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            # The process reads no more; what it still has to say comes first.
            self._input, self._input_over = b"", True

    def _signalled(self) -> None:
        for number in os.read(self._wake, 4096):
            if number == signal.SIGWINCH:
                self._resized()
            elif number in self._proxied:
                self._proxied[number](number)
            elif number in _ENDING:
                raise _Killed(number)


class _Killed(BaseException):
    """A signal that is to end this process, once the terminal is as it was."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _raw_mode(terminal: int | None) -> Iterator[None]:
    if terminal is None:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(terminal)
    # Not TCSAFLUSH, the default: what was typed ahead is for the container.
    tty.setraw(terminal, termios.TCSADRAIN)
    try:
        yield
    finally:
        with suppress(termios.error):  # hung up
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _signals(raw: bool, sizes: bool, proxied: dict[Any, Callable[[int], object]]) -> Iterator[int]:
    """A descriptor on which the numbers of the signals arrive that matter to a session."""
    awake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before: dict[int, Any] = {}
    former = -1

    def caught(number: int, frame: FrameType | None) -> None:
        """The interpreter has written the number to the descriptor, whichever thread the signal came to."""

    try:
        # Only the main thread may set handlers; in another there is nobody to type at a terminal either.
        if threading.current_thread() is threading.main_thread():
            wanted = set(proxied)
            if sizes:
                wanted.add(signal.SIGWINCH)
            if raw:
                wanted.update(number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL)
            if wanted:
                former = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
            for number in wanted:
                before[number] = signal.signal(number, caught)
        yield awake
    except _Killed as killed:
        _restore(before, former)
        signal.signal(killed.number, signal.SIG_DFL)
        os.kill(os.getpid(), killed.number)
        raise SystemExit(128 + killed.number) from None
    finally:
        _restore(before, former)
        os.close(awake)
        os.close(wake)


def _restore(handlers: dict[int, Any], wakeup: int) -> None:
    if handlers:
        signal.set_wakeup_fd(wakeup)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    handlers.clear()
