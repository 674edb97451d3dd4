"""The engine's end of a shim's control socket."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import frozen

from dockp.shim import wire
from dockp.spi import errors
from dockp.spi.runtime import RuntimeFailure
from dockp.supervisor.state import TaskState, read_state

_RUNTIME_KINDS = ("failed", "not-executable", "not-found")


@frozen
class ClientSocket:
    """Somebody's connected stream socket, for a shim to serve. It is copied; whoever made this closes it.

    Attributes:
        head: sent before any output, once nothing can fail any more. early: input that was read from it already.
    """

    descriptor: int
    head: bytes = b""
    early: bytes = b""


class AttachStream:
    """The caller's end of an attached process: read its output, send its input.

    Attributes:
        framed: output comes in Docker's 8-byte frames (see `dockp.supervisor.stdio.Demultiplexer`), not as it is.
        owns_client: the connection was made for this stream, and is closed with it.
    """

    def __init__(self, client: ShimClient, sock: socket.socket, name: tuple[str, object], framed: bool) -> None:
        self._client = client
        self._name = name
        self.sock = sock
        self.framed = framed
        self.owns_client = False

    def fileno(self) -> int:
        return self.sock.fileno()

    def recv(self, size: int = 65536) -> bytes:
        """Output, or b"" at the end. Raises BlockingIOError on a socket set to non-blocking."""
        try:
            return self.sock.recv(size)
        except ConnectionResetError:  # the shim closed with input of ours unread: the output is complete
            return b""

    def send(self, data: bytes) -> int:
        """Input; returns how much was taken. Raises BrokenPipeError when the process or the session has ended."""
        return self.sock.send(data, socket.MSG_NOSIGNAL)

    def close_stdin(self) -> None:
        """No more input: the process reads end-of-file, once it has read the rest."""
        with suppress(OSError):  # the other side is gone already
            self.sock.shutdown(socket.SHUT_WR)

    def wait_end(self) -> str:
        """After the end of the output: "exit" (the process ended) or "detach" (the detach keys, or the end of the
        input of a container that keeps its stdin)."""
        return self._client.why_ended(self._name)

    def close(self) -> None:
        self.sock.close()
        if self.owns_client:
            self._client.close()

    def __enter__(self) -> AttachStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ShimClient:
    """One connection to one shim. Every method may be called from any thread, at the same time too.

    Methods raise what the shim answers: RuntimeFailure or a class of `dockp.spi.errors`; Unavailable when the shim is
    gone or, where a ``timeout`` in seconds was given, did not answer in time.
    """

    def __init__(self, id: str, sock: socket.socket, directory: Path, launcher: int = 0) -> None:
        self.id = id
        # The child of this process that forked the shim. By the shim's first word it has ended, and is collected
        # then; waiting for it at the launch would cost the time in which an interpreter starts.
        self._launcher = launcher
        self._sock = sock
        self._directory = directory
        self._receiver = wire.Receiver(sock)
        self._sending = threading.Lock()
        # Guards everything below. One of the waiting threads reads for all of them.
        self._changed = threading.Condition()
        self._reading = False
        self._gone = False
        self._next = 0
        self._answers: dict[int, dict[str, Any] | None] = {}
        self._events: list[dict[str, Any]] = []
        self._detached: set[tuple[str, object]] = set()

    # --- the conversation

    def _begin(self, operation: str, descriptors: Sequence[int] = (), **fields: Any) -> int:
        with self._changed:
            self._next += 1
            seq = self._next
            self._answers[seq] = None
        try:
            with self._sending:
                wire.send_blocking(self._sock, {"op": operation, "seq": seq, **fields}, list(descriptors))
        except OSError as failure:
            with self._changed:
                self._answers.pop(seq, None)
                self._gone = True
            raise self._lost() from failure
        return seq

    def _end(self, seq: int, timeout: float | None = None) -> dict[str, Any]:
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                with self._changed:
                    answer = self._answers[seq]
                    if answer is not None:
                        break
                    if self._gone:
                        raise self._lost()
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise errors.Unavailable(f"the shim of container {self.id} did not answer in {timeout} s")
                    if self._reading:
                        self._changed.wait(left)
                        continue
                    self._reading = True
                self._read(left)
        finally:
            with self._changed:
                self._answers.pop(seq, None)
        if "error" in answer:
            raise _error(answer["error"])
        ok: dict[str, Any] = answer["ok"]
        return ok

    def _read(self, timeout: float | None) -> None:
        """Read once for everybody; the caller has set ``_reading``."""
        messages: list[tuple[dict[str, Any], list[int]]] | None = []
        try:
            if timeout is not None:
                poll = select.poll()
                poll.register(self._sock, select.POLLIN)
                if not poll.poll(timeout * 1000):
                    return
            try:
                messages = self._receiver.receive()
            except (OSError, ValueError):
                messages = None
        finally:
            self._collect_launcher()
            with self._changed:
                self._reading = False
                if messages is None:
                    self._gone = True
                for message, descriptors in messages or ():
                    for descriptor in descriptors:
                        os.close(descriptor)
                    self._take(message)
                self._changed.notify_all()

    def _collect_launcher(self) -> None:
        with self._changed:
            launcher, self._launcher = self._launcher, 0
        if launcher:
            with suppress(ChildProcessError):  # somebody else in this process collects every child
                os.waitpid(launcher, 0)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" not in message:
            if message.get("seq") in self._answers:  # not given up meanwhile
                self._answers[message["seq"]] = message
        elif message["event"] == "detached":
            name = "exec_id" if "exec_id" in message else "attach"
            self._detached.add((name, message[name]))
        else:
            self._events.append(message)

    def _lost(self) -> errors.DockpError:
        reason = ""
        try:
            lines = (self._directory / "shim.log").read_text(errors="replace").strip().splitlines()
            reason = f": {lines[-1]}" if lines else ""
        except OSError:
            pass
        return errors.Unavailable(f"the shim of container {self.id} is gone{reason}")

    def _call(self, operation: str, descriptors: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        return self._end(self._begin(operation, descriptors, **fields))

    def next_event(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next event that `claim` or `watch` brought; None when none came in ``timeout`` seconds, or ever will."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._changed:
                if self._events:
                    return self._events.pop(0)
                left = None if deadline is None else deadline - time.monotonic()
                if self._gone or (left is not None and left <= 0):
                    return None
                if self._reading:
                    self._changed.wait(left)
                    continue
                self._reading = True
            self._read(left)

    def why_ended(self, name: tuple[str, object]) -> str:
        """See `AttachStream.wait_end`."""
        with suppress(errors.Unavailable):
            self._call("state")  # whatever the shim sent before its answer is here with it
        with self._changed:
            return "detach" if name in self._detached else "exit"

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """End the connection; a claim not released passes to the shim's ``on_exit``."""
        with self._changed:
            self._gone = True
        self._collect_launcher()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        self._receiver.close()

    def __enter__(self) -> ShimClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- the container

    def create(self, netns: int | None = None, ports: Iterable[int] = ()) -> tuple[int, list[str]]:
        """Build the container; returns its init's pid and warnings.

        Args: netns: a descriptor of the network namespace to use. ports: sockets to hold while the container exists.
            All are copied; the caller closes its own.
        """
        descriptors = [*([] if netns is None else [netns]), *ports]
        answer = self._call("create", descriptors, netns=netns is not None)
        return answer["pid"], answer["warnings"]

    def start(self) -> int:
        """Let the command run; returns its pid."""
        pid: int = self._call("start")["pid"]
        return pid

    def kill(self, signum: int, *, everyone: bool = False) -> None:
        """Signal init, or every process of the container."""
        self._call("kill", signal=signum, all=everyone)

    def stop(self, signum: int | None = None, timeout: float | None = None) -> TaskState:
        """Ask the container to end, kill it after ``timeout`` seconds (None: as configured, -1: never); returns when
        it has ended. NotModified when it had ended before."""
        return TaskState.from_json(self._call("stop", signal=signum, timeout=timeout))

    def pause(self, *, held: bool = False) -> None:
        """Args: held: no longer than this connection lasts."""
        self._call("pause", held=held)

    def unpause(self) -> None:
        self._call("unpause")

    def wait(self, condition: str = "not-running", timeout: float | None = None) -> TaskState:
        """Wait for "not-running", "next-exit" or "removed". A shim that ended meanwhile has left a record: its last
        word is then the answer."""
        try:
            return TaskState.from_json(self._end(self._begin("wait", condition=condition), timeout))
        except errors.Unavailable:
            state = read_state(self._directory) if self._gone else None
            if state is None or state.status != "exited":
                raise
            return state

    def state(self) -> TaskState:
        return TaskState.from_json(self._call("state"))

    def stats(self) -> dict[str, Any]:
        """See `dockp.spi.runtime.Runtime.stats`."""
        return self._call("stats")

    def processes(self) -> list[int]:
        """Pids on the host."""
        pids: list[int] = self._call("processes")["pids"]
        return pids

    def update(self, resources: Mapping[str, Any] | None = None, restart: Mapping[str, Any] | None = None) -> list[str]:
        """Change OCI resources and the restart policy (``{"name", "max"}``); returns warnings."""
        warnings: list[str] = self._call("update", resources=resources, restart=restart)["warnings"]
        return warnings

    def rename(self, name: str) -> None:
        """Have the shim tell of its container's events by another name."""
        self._call("rename", name=name)

    def logs_flush(self) -> None:
        """Everything written by now is in the log when this returns."""
        self._call("logs_flush")

    def resize(self, rows: int, columns: int, exec_id: str | None = None) -> None:
        """Set the window size of the container's terminal, or of an exec's."""
        self._call("resize", rows=rows, cols=columns, exec_id=exec_id)

    # --- streams

    def attach(
        self,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: bytes = b"",
        framing: str = "auto",
    ) -> AttachStream:
        """Attach to the container's streams. Works before `create` too, so that no byte is missed.

        Args: framing: "raw", "stdcopy", or "auto" (frames unless there is a terminal).
        """
        ours, theirs = socket.socketpair()
        try:
            name, framed = self._attach_fd(theirs.fileno(), stdin, stdout, stderr, detach_keys, framing)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return AttachStream(self, ours, name, framed)

    def attach_after(self, before: Iterable[bytes], framed: bool, **options: Any) -> AttachStream:
        """As `attach`, but the stream begins with ``before``, which a thread brings while the caller reads; only then
        does it go on with what the container writes.

        Args: framed: see `AttachStream`. options: of `attach_fd`.
        """
        ours, theirs = socket.socketpair()
        stream = AttachStream(self, ours, ("attach", 0), framed)

        def bring() -> None:
            # An error here is the end of the stream: the caller has left, or the container.
            with theirs, suppress(OSError, errors.DockpError, RuntimeFailure):
                for data in before:
                    theirs.sendall(data)
                stream._name = self.attach_fd(theirs.fileno(), **options)

        threading.Thread(target=bring, name="attach", daemon=True).start()
        return stream

    def attach_fd(
        self,
        sock: int,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: bytes = b"",
        framing: str = "auto",
        head: bytes = b"",
        early: bytes = b"",
    ) -> tuple[str, object]:
        """Hand a connected stream socket of somebody else to the shim, which talks to it from then on. The descriptor
        is copied; close it afterwards. Returns the name of the session, for `why_ended`.

        Args: head: sent before any output, unless this raises. early: input that was read from the socket already.
        """
        return self._attach_fd(sock, stdin, stdout, stderr, detach_keys, framing, head, early)[0]

    def _attach_fd(
        self,
        descriptor: int,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        detach_keys: bytes,
        framing: str,
        head: bytes = b"",
        early: bytes = b"",
    ) -> tuple[tuple[str, object], bool]:
        seq = self._begin(
            "attach",
            [descriptor],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            detach_keys=list(detach_keys),
            framing=framing,
            head=head.decode("latin-1"),
            early=early.decode("latin-1"),
        )
        return ("attach", seq), self._end(seq)["framed"]

    def exec(
        self,
        exec_id: str,
        process: Mapping[str, Any],
        *,
        user: str | None = None,
        groups: Sequence[str] = (),
        terminal: bool = False,
        console_size: tuple[int, int] | None = None,
        stream: int | None = None,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: bytes = b"",
        framing: str = "auto",
        head: bytes = b"",
        early: bytes = b"",
        set_home: bool = True,
    ) -> int:
        """Run an OCI ``process`` in the container; returns its pid on the host.

        Args: user: resolved inside the container, with ``groups``; None leaves what ``process`` says.
            stream: a connected stream socket for its standard streams, copied; None: no input, output is discarded.
            head, early: see `attach_fd`.
        """
        answer = self._call(
            "exec",
            [] if stream is None else [stream],
            exec_id=exec_id,
            process=dict(process),
            user=None if user is None else {"user": user, "groups": list(groups)},
            terminal=terminal,
            console_size=None if console_size is None else list(console_size),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            detach_keys=list(detach_keys),
            framing=framing,
            head=head.decode("latin-1"),
            early=early.decode("latin-1"),
            env_home=set_home,
        )
        pid: int = answer["pid"]
        return pid

    def exec_attached(
        self,
        exec_id: str,
        process: Mapping[str, Any],
        *,
        terminal: bool = False,
        framing: str = "auto",
        **options: Any,
    ) -> AttachStream:
        """Like `exec` (whose options it takes, but for ``stream``), with a stream made for it."""
        ours, theirs = socket.socketpair()
        try:
            self.exec(exec_id, process, stream=theirs.fileno(), terminal=terminal, framing=framing, **options)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        framed = framing == "stdcopy" or (framing == "auto" and not terminal)
        return AttachStream(self, ours, ("exec_id", exec_id), framed)

    def exec_wait(self, exec_id: str, timeout: float | None = None) -> int:
        """Wait for an exec and its output to end; returns its exit code."""
        code: int = self._end(self._begin("exec_wait", exec_id=exec_id), timeout)["exit_code"]
        return code

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """``{"running", "pid", "exit_code"}``."""
        return self._call("exec_inspect", exec_id=exec_id)

    def execs(self) -> list[str]:
        """The ids of those that run."""
        found: list[str] = self._call("execs")["running"]
        return found

    # --- the end

    def watch(self) -> TaskState:
        """Have an event ``{"event": "state", "action", "state"}`` for each change from now on; see `next_event`."""
        return TaskState.from_json(self._call("watch"))

    def claim(self) -> TaskState:
        """Promise to clean up after the container's exit: an event ``{"event": "exit", "state"}`` will come. When
        this connection ends before `release`, the shim runs its ``on_exit`` instead."""
        return TaskState.from_json(self._call("claim"))

    def release(self, *, everyone: bool = False) -> None:
        """Give up the claim, or, after the exit, tell the shim that its record was taken and it may end. With
        ``everyone`` nobody's claim counts any more: for who holds the container's lock, which the others may want."""
        with suppress(errors.Unavailable):  # it has ended
            self._call("release", all=everyone)


def _error(problem: Mapping[str, Any]) -> Exception:
    kind, message = str(problem["kind"]), str(problem["message"])
    if kind in _RUNTIME_KINDS:
        return RuntimeFailure(message, kind)
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, errors.DockpError):
        return known(message)
    return errors.SystemFault(message)
