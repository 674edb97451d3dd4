"""Standard input and output of one process: pipes or a terminal on one side, a log and attached clients on the other.

Every byte the process writes goes to the log first and then to each client. A client that does not keep up gets a
buffer; when that is full the shim stops reading from the process, which then waits as it would on a full pipe, until
the client has read on or is gone. What a client sends goes to the process in the order it came.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import time

from dockp.shim.loop import GONE, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dockp.shim.loop import Loop

CHUNK = 16384
"""Bytes read at once; also the longest log record, as Docker's, so that a chunk never holds a longer whole line."""
CLIENT_BUFFER = 1 << 20
STDIN_BUFFER = 1 << 16
_NOW = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL

HEAD_READ = 0.1
"""Seconds that a client has to read the head of a reply before output follows it."""
HEAD_TRAVELS = 0.01
"""The same, where nobody can say whether it was read."""
HEAD_LOOK = 0.0005
_SIOCOUTQ = 0x5411  # unix(7)

# ioctl_tty(2), asm-generic/ioctls.h; termios is a module of its own and would be loaded for these numbers alone
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441

_STREAMS = ("stdin", "stdout", "stderr")


def open_terminal(ptmx: int | None = None) -> tuple[int, int]:
    """A new terminal pair as (ours, the process's).

    Args: ptmx: the already opened multiplexer of another devpts, which becomes ours; by default the host's.
    The peer is opened through ours and not by name (ioctl_tty(2), TIOCGPTPEER): a name could be anything by now.
    """
    ours = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC) if ptmx is None else ptmx
    try:
        fcntl.ioctl(ours, _TIOCSPTLCK, bytes(4))
        theirs = fcntl.ioctl(ours, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(ours)
        raise
    return ours, theirs


def is_unread(sock: _socket.socket) -> bool:
    """Whether the other side has not yet read all that was sent to it. Known for unix sockets; for others always."""
    if sock.family != _socket.AF_UNIX:
        return True
    return int.from_bytes(fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)), "little") > 0


def head_time(sock: _socket.socket) -> float:
    """Seconds for which output is held back after the head of a reply, unless that `is_unread` no more.

    docker-py looks for the stream beneath the buffer that it read the head into, and loses what came along with it.
    Docker's own daemon, which starts a process only then, is slow enough for this never to show.
    """
    return HEAD_READ if sock.family == _socket.AF_UNIX else HEAD_TRAVELS


def give(stdio: tuple[int, int, int], owner: tuple[int, int] | None, open_stdin: bool) -> None:
    """Let the descriptors that `Stdio.open` made belong to the process: it may want to reopen /dev/stdout.

    Args: owner: uid and gid on the host that the process will have. open_stdin: as in `Stdio`.
    """
    if owner is None:
        return
    for descriptor in stdio:
        if open_stdin or descriptor != stdio[0] or stdio[0] == stdio[1]:  # /dev/null is everybody's
            try:
                os.fchown(descriptor, *owner)
            except OSError:
                pass  # a process of another user then cannot reopen its stdout by name; it can still write


class DetachKeys:
    """Finds the key sequence that means "detach" in what a person types, however the reads cut it."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes that are input for sure, and whether the sequence is complete. A beginning of it is held back
        until the next call shows what it is."""
        if not self._keys:
            return data, False
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        keep = min(len(self._keys) - 1, len(data))
        while keep and data[-keep:] != self._keys[:keep]:
            keep -= 1
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep], False


class LogFeed:
    """Cuts output into lines for a log writer (`dockp.spi.logs`). A writer that fails never stops the container."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._block = getattr(writer, "write_block", None)
        self._flush = getattr(writer, "flush", None)
        self._tails: dict[str, tuple[bytes, int, bool]] = {}  # what has no end yet, its time, and is it a second piece
        self.failures = 0

    def feed(self, stream: str, data: bytes) -> None:
        """Take at most `CHUNK` bytes."""
        try:
            self._feed(stream, data, time.time_ns())
            if self._flush is not None:
                self._flush()
        except Exception:  # a log is never worth a container; the count says that something is missing
            self.failures += 1

    def _feed(self, stream: str, data: bytes, now: int) -> None:
        tail, since, split = self._tails.pop(stream, (b"", now, False))
        if tail or split:
            end = data.find(b"\n")
            if end >= 0:
                line = tail + data[:end]
                if len(line) < CHUNK:
                    self._writer.write(stream, since, line, False)
                else:
                    self._writer.write(stream, since, line[:CHUNK], True)
                    self._writer.write(stream, since, line[CHUNK:], False)
                data, tail, since, split = data[end + 1 :], b"", now, False
        end = data.rfind(b"\n") + 1
        if end:
            if self._block is not None:
                self._block(stream, now, data[:end])
            else:
                for line in data[: end - 1].split(b"\n"):
                    self._writer.write(stream, now, line, False)
        tail += data[end:]
        if len(tail) >= CHUNK:
            self._writer.write(stream, since, tail[:CHUNK], True)
            tail, split = tail[CHUNK:], True
        if tail or split:
            self._tails[stream] = (tail, since, split)

    def end(self) -> None:
        """The process is over: what has no newline is written as it is."""
        tails, self._tails = self._tails, {}
        try:
            for stream, (tail, since, _) in tails.items():
                if tail:
                    self._writer.write(stream, since, tail, True)
            self.flush()
        except Exception:
            self.failures += 1

    def flush(self) -> None:
        if self._flush is not None:
            self._flush()

    def close(self) -> None:
        try:
            self._writer.close()
        except Exception:
            self.failures += 1


class Client:
    """One attached stream socket. Made by `Stdio.attach`.

    Attributes:
        pending: output that the socket did not take yet.
        head_due: until when (monotonic) output waits for the head of the reply to be read; 0 when it waits no more.
        looking: a timer runs, to see whether it was read.
        ended: called once with "exit", "detach" or "gone".
    """

    __slots__ = ("closing", "ended", "events", "frames", "head_due", "keys", "looking", "pending", "sock", "wants")

    def __init__(
        self, sock: _socket.socket, wants: dict[str, bool], keys: bytes, frames: bool, ended: Callable[[str], None]
    ) -> None:
        self.sock = sock
        self.wants = wants
        self.keys = DetachKeys(keys)
        self.frames = frames
        self.ended = ended
        self.pending = bytearray()
        self.head_due = 0.0
        self.looking = False
        self.closing = ""
        self.events = 0


class Stdio:
    """The streams of one process, or of one container over all its restarts.

    Args:
        terminal: a pty instead of three pipes.
        open_stdin: keep stdin for clients; otherwise the process reads /dev/null.
        once: a client's end of input is the process's end of input; otherwise the client is just detached.
        log: where output goes besides, or None.
    """

    def __init__(self, loop: Loop, terminal: bool, open_stdin: bool, once: bool, log: LogFeed | None) -> None:
        self.loop = loop
        self.terminal = terminal
        self.open_stdin = open_stdin
        self.once = once
        self.log = log
        self.clients: list[Client] = []
        self.idle: Callable[[], None] | None = None
        self._size: tuple[int, int] | None = None
        self._inner: list[int] = []
        self._sources: dict[int, str] = {}
        self._paused = False
        self._master = -1
        self._peer = -1
        self._stdin = -1
        self._input = bytearray()
        self._input_over = False
        self._deaf = False  # the process has no stdin any more: what comes is taken and dropped
        self._waiting_to_write = False
        self._finish: Callable[[], None] | None = None

    # --- the process's side

    def open(self, ptmx: int | None = None) -> tuple[int, int, int]:
        """Make the descriptors that become 0, 1, 2 of the process; `close_inner` when it has them.

        Args: ptmx: see `open_terminal`.
        """
        if self.terminal:
            self._master, self._peer = open_terminal(ptmx)
            os.set_blocking(self._master, False)
            # The peer is held open for as long as the process runs, so that reading never ends while no process has
            # the terminal open at the moment.
            inner = (self._peer, self._peer, self._peer)
            self._add_source(self._master, "stdout")
            if self.open_stdin:
                self._stdin = fcntl.fcntl(self._master, fcntl.F_DUPFD_CLOEXEC, 3)
            if self._size is not None:
                self.resize(*self._size)
        else:
            if self.open_stdin:
                stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._stdin, False)
            else:
                stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            pair = [stdin]
            for stream in ("stdout", "stderr"):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(ours, False)
                self._add_source(ours, stream)
                pair.append(theirs)
            self._inner = pair
            inner = (pair[0], pair[1], pair[2])
        self._push_input()
        return inner

    def close_inner(self) -> None:
        """The process has its descriptors."""
        for descriptor in self._inner:
            os.close(descriptor)
        self._inner = []

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's window size; kept for the next `open` when there is none now."""
        self._size = (rows, columns)
        if self._master >= 0:
            packed = rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4)
            fcntl.ioctl(self._master, _TIOCSWINSZ, packed)

    def _add_source(self, descriptor: int, stream: str) -> None:
        self._sources[descriptor] = stream
        if not self._paused:
            self.loop.watch(descriptor, READ, lambda events: self._readable(descriptor))

    def _readable(self, descriptor: int) -> None:
        data = self._read(descriptor)
        if data is None:
            return
        if data:
            self._deliver(self._sources[descriptor], data)
            self._hold_back()
        else:
            self._drop_source(descriptor)
            if not self._sources and self._finish is not None:
                self._end()

    def _read(self, descriptor: int) -> bytes | None:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # EIO is how a terminal says that nobody has it open any more
            return b""

    def _drop_source(self, descriptor: int) -> None:
        del self._sources[descriptor]
        self.loop.forget(descriptor)
        os.close(descriptor)
        if descriptor == self._master:
            self._master = -1

    def _deliver(self, stream: str, data: bytes) -> None:
        if self.log is not None:
            self.log.feed(stream, data)
        for client in list(self.clients):
            if client.wants[stream] and not client.closing:
                if client.frames:
                    # Docker's frame: stream number, three zero bytes, length in network order
                    header = bytes((_STREAMS.index(stream), 0, 0, 0)) + len(data).to_bytes(4, "big")
                    self._send(client, header + data)
                else:
                    self._send(client, data)

    def _hold_back(self) -> None:
        full = any(len(client.pending) > CLIENT_BUFFER for client in self.clients)
        if full == self._paused:
            return
        self._paused = full
        for descriptor in list(self._sources):
            # Not watched at all while paused: the hang-up of a finished process would be reported for ever.
            if full:
                self.loop.forget(descriptor)
            else:
                self.loop.watch(descriptor, READ, lambda events, which=descriptor: self._readable(which))  # type: ignore[misc]

    def finish(self, done: Callable[[], None], grace: float = 0.0) -> None:
        """The process has ended: take what it left in the pipes, let the clients go, call ``done``.

        ``done`` is called when everything is in the log and in the clients' buffers, which is at once, unless somebody
        else still holds the process's output open: then in ``grace`` seconds, or earlier when they let go.
        """
        self._finish = done
        self.close_inner()
        if self._peer >= 0:
            os.close(self._peer)
            self._peer = -1
        for descriptor in list(self._sources):
            self._drain(descriptor)
        if self._sources and grace:
            self._hold_back()
            self.loop.after(grace, self._end)
        else:
            self._end()

    def _drain(self, descriptor: int) -> None:
        # Back-pressure ends here: what is left is at most a pipe's or a terminal's buffer.
        for _ in range(256):
            data = self._read(descriptor)
            if data is None:
                return
            if not data:
                self._drop_source(descriptor)
                return
            self._deliver(self._sources[descriptor], data)

    def _end(self) -> None:
        done, self._finish = self._finish, None
        if done is None:
            return
        for descriptor in list(self._sources):
            self._drain(descriptor)
            if descriptor in self._sources:
                self._drop_source(descriptor)
        self._paused = False
        self._shut_stdin()
        self._input_over = self._deaf = False
        if self.log is not None:
            self.log.end()
        for client in list(self.clients):
            self._let_go(client, "exit")
        done()

    # --- standard input

    def close_stdin(self) -> None:
        """The process's end of input, once everything that came before was taken."""
        self._input_over = True
        self._push_input()

    def _push_input(self) -> None:
        while self._input and self._stdin >= 0:
            try:
                written = os.write(self._stdin, self._input[:STDIN_BUFFER])
            except BlockingIOError:
                if not self._waiting_to_write:
                    self._waiting_to_write = True
                    self.loop.watch(self._stdin, WRITE, lambda events: self._push_input())
                break
            except OSError:  # nobody reads it any more
                self._shut_stdin()
                break
            del self._input[:written]
        else:
            if self._waiting_to_write:
                self._waiting_to_write = False
                self.loop.forget(self._stdin)
            if self._input_over and not self._input:
                self._shut_stdin()
        if len(self._input) < STDIN_BUFFER:
            for client in self.clients:
                self._ask(client)

    def _shut_stdin(self) -> None:
        self._input.clear()
        self._deaf = True
        self._waiting_to_write = False
        if self._stdin >= 0:
            self.loop.forget(self._stdin)
            os.close(self._stdin)
            self._stdin = -1

    # --- the clients' side

    def attach(
        self,
        sock: _socket.socket,
        wants: dict[str, bool],
        keys: bytes,
        frames: bool,
        ended: Callable[[str], None],
        head: bytes = b"",
        early: bytes = b"",
    ) -> Client:
        """Add a client; the socket is ours from here on, but its blocking mode is not: others may hold it too.

        Args: head: sent before any output. early: input that somebody has read from the socket before.
        """
        client = Client(sock, wants, keys if self.terminal else b"", frames, ended)
        self.clients.append(client)
        client.events = READ if self._may_read(client) else 0
        self.loop.watch(sock.fileno(), client.events, lambda events: self._client_event(client, events))
        if head:
            self._send(client, head)
            client.head_due = time.monotonic() + head_time(sock)
        if early and client.wants["stdin"] and client in self.clients:
            self._take_input(client, early)
        return client

    def _may_read(self, client: Client) -> bool:
        return client.wants["stdin"] and not client.closing and len(self._input) < STDIN_BUFFER

    def _ask(self, client: Client) -> None:
        events = (READ if self._may_read(client) else 0) | (WRITE if client.pending and not client.head_due else 0)
        if events != client.events:
            client.events = events
            self.loop.change(client.sock.fileno(), events)

    def _client_event(self, client: Client, events: int) -> None:
        if events & READ and self._may_read(client):
            self._client_input(client)
        if client.sock.fileno() >= 0 and events & WRITE:
            self._send(client, b"")
            self._hold_back()
        if client.sock.fileno() >= 0 and events & GONE and not events & READ:
            if client.wants["stdin"] and self.once and not self.terminal:
                self.close_stdin()
            self._drop(client, "gone")

    def _client_input(self, client: Client) -> None:
        try:
            data = client.sock.recv(CHUNK, _NOW)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            client.wants["stdin"] = False
            if self.once and not self.terminal:
                self.close_stdin()
            elif not self.once:
                # As Docker: a session whose input ends leaves a container that keeps its stdin for the next one.
                self._let_go(client, "detach")
                return
            self._ask(client)
            return
        self._take_input(client, data)

    def _take_input(self, client: Client, data: bytes) -> None:
        data, leave = client.keys.feed(data)
        if data and not self._deaf and not self._input_over:
            self._input += data
            self._push_input()
        if leave:
            self._let_go(client, "detach")
        elif client in self.clients:
            self._ask(client)

    def _send(self, client: Client, data: bytes) -> None:
        """Send or keep. With nothing to send it sends what was kept."""
        if client.head_due and not self._head_was_read(client):
            client.pending += data
            return
        if client.pending:
            client.pending += data
            data = b""
        try:
            while client.pending:
                del client.pending[: client.sock.send(client.pending[:65536], _NOW)]
            while data:
                data = data[client.sock.send(data, _NOW) :]
        except (BlockingIOError, InterruptedError):
            client.pending += data
        except OSError:
            self._drop(client, "gone")
            return
        if client.closing and not client.pending:
            self._drop(client, client.closing)
        else:
            self._ask(client)

    def _head_was_read(self, client: Client) -> bool:
        """Whether output may follow; when not, what is kept is sent later."""
        if time.monotonic() < client.head_due and is_unread(client.sock):
            if not client.looking:
                client.looking = True
                self.loop.after(HEAD_LOOK, lambda: self._look(client))
            return False
        client.head_due = 0.0
        return True

    def _look(self, client: Client) -> None:
        client.looking = False
        if client in self.clients:
            self._send(client, b"")
            self._hold_back()

    def _let_go(self, client: Client, reason: str) -> None:
        """End a session in good order: what is buffered is sent first."""
        client.closing = client.closing or reason
        self._send(client, b"")

    def _drop(self, client: Client, reason: str) -> None:
        if client not in self.clients:
            return
        self.clients.remove(client)
        client.ended(client.closing or reason)
        self.loop.forget(client.sock.fileno())
        try:
            # Unread input would turn the close into a reset, which may overtake output that is still on its way.
            for _ in range(64):
                if not client.sock.recv(CHUNK, _NOW):
                    break
        except OSError:
            pass
        try:
            client.sock.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass
        client.sock.close()
        client.pending.clear()
        self._hold_back()
        if not self.clients and self.idle is not None:
            self.idle()

    def close(self) -> None:
        """Give every descriptor back; clients are dropped."""
        for client in list(self.clients):
            self._drop(client, "exit")
        for descriptor in list(self._sources):
            self._drop_source(descriptor)
        self.close_inner()
        self._shut_stdin()
        if self._peer >= 0:
            os.close(self._peer)
            self._peer = -1
