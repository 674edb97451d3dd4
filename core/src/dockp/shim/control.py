"""The shim's control socket: who is connected, what they asked for, and when the shim may end.

Any number of clients connect to ``shim.sock``, or come with the launch. Each sends requests ``{"op", "seq", …}`` and
gets ``{"seq", "ok": {…}}`` or ``{"seq", "error": {"kind", "message"}}``; answers may come late and in another order.
Events ``{"event": …}`` come unasked. ``kind`` is one of `dockp.spi.runtime.RuntimeFailure`'s, or the name of a class
in `dockp.spi.errors`.
"""

from __future__ import annotations

import _socket
import os

from dockp.linux import namespaces, process
from dockp.shim import wire
from dockp.shim.loop import GONE, READ, WRITE
from dockp.shim.streams import Stdio
from dockp.shim.task import EXPECTED, Task, check_message
from dockp.spi.errors import DockpError, FailedPrecondition, InvalidArgument, SystemFault
from dockp.spi.runtime import RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dockp.shim.loop import Loop
    from dockp.shim.maker import Ahead

_LARGEST_BACKLOG = 4 << 20
"""Bytes of answers a client may leave unread before it is dropped."""
_TOLD = frozenset(("start", "oom", "pause", "unpause"))
"""Announced actions that are events as they stand; the others need attributes and are told where these are known."""
_PEER_CREDENTIALS = 12  # struct ucred: pid, uid, gid


class Connection:
    """One client."""

    __slots__ = ("claims", "out", "pauses", "receiver", "sock", "starter", "watches")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.receiver = wire.Receiver(sock)
        self.out = b""
        self.claims = False
        self.pauses = False  # only as long as it is here
        self.watches = False
        self.starter = False


class Control:
    """The server, and the end of the shim.

    Args:
        directory: ``<run>/containers/<id>``.
        lock: the descriptor whose lock says that this shim lives.
        host: the host's mount namespace, for the process that cleans up after the exit.
        report: writes the exception being handled to the shim's own log.
        ahead: a maker that was forked already.
    """

    def __init__(
        self,
        loop: Loop,
        directory: str,
        config: dict[str, Any],
        lock: int,
        host: int,
        report: Callable[[], None],
        ahead: Ahead | None = None,
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._lock = lock
        self._host = host
        self._report = report
        self._connections: list[Connection] = []
        self._ports: list[int] = []
        self._listener: _socket.socket | None = None
        self._folder = -1
        self._on_exit = config["on_exit"]
        self._forsaken = False
        self._ending = False
        self._removed_waiters: list[Callable[[], None]] = []
        self._exec_clients = 0
        self.failure: Exception | None = None
        self.task = Task(loop, directory, config, self._announce, self._over, report, ahead)
        self.task.stdio.idle = self._end_if_due

    # --- connections

    def listen(self) -> None:
        """Open ``shim.sock``. The name goes through a descriptor, since a socket's path has at most 107 bytes."""
        # Kept, since by the time the shim leaves another may live in a new folder of that name.
        directory = self._folder = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{directory}/shim.sock"
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        listener.listen(128)
        listener.setblocking(False)
        self._listener = listener
        self._loop.watch(listener.fileno(), READ, self._accept)

    def _accept(self, events: int) -> None:
        assert self._listener is not None
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        sock = _socket.socket(fileno=descriptor)
        peer = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _PEER_CREDENTIALS)
        if int.from_bytes(peer[4:8], "little") != os.geteuid():
            sock.close()
            return
        self.connect(sock)

    def connect(self, sock: _socket.socket, starter: bool = False) -> None:
        """Serve a client. The ``starter`` came with the launch: until the container runs, its end is the end."""
        connection = Connection(sock)
        connection.starter = starter
        self._connections.append(connection)
        self._loop.watch(sock.fileno(), READ, lambda events: self._event(connection, events))

    def _event(self, connection: Connection, events: int) -> None:
        if events & WRITE:
            self._push(connection)
        if connection not in self._connections or not events & (READ | GONE):
            return
        try:
            messages = connection.receiver.receive(_socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError):
            messages = None
        if messages is None:
            self._disconnect(connection)
            return
        for message, descriptors in messages:
            self._dispatch(connection, message, descriptors)

    def _send(self, connection: Connection, message: dict[str, Any]) -> None:
        if connection in self._connections:
            connection.out += wire.pack(message)
            self._push(connection)

    def _push(self, connection: Connection) -> None:
        try:
            while connection.out:
                sent = connection.sock.send(connection.out, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
                connection.out = connection.out[sent:]
        except (BlockingIOError, InterruptedError):
            if len(connection.out) > _LARGEST_BACKLOG:
                self._disconnect(connection)
                return
        except OSError:
            return  # the end will be read next
        self._loop.change(connection.sock.fileno(), READ | WRITE if connection.out else READ)

    def _disconnect(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._loop.forget(connection.sock.fileno())
        connection.receiver.close()
        if connection.pauses and self.task.record.values["status"] == "paused":
            self.task.unpause()
        if connection.claims or (connection.starter and not self.task.started):
            self._claim_ended(connection)

    # --- the end

    def _claim_ended(self, connection: Connection) -> None:
        if connection.starter and not self.task.started and not self.task.ended and not self._claimed():
            # Whoever was starting the container is gone, and nobody else can finish what it began.
            self.task.abandon()
        self._forsaken = True
        self._end_if_due()

    def _claimed(self) -> bool:
        return any(connection.claims or connection.starter for connection in self._connections)

    def _announce(self, action: str) -> None:
        if action == "start":
            for connection in self._connections:
                connection.starter = False
        if action in _TOLD or action.startswith("health_status"):
            self.task.tell(action)
        message = {"event": "state", "action": action, "state": self.task.record.values}
        for connection in list(self._connections):
            if connection.watches:
                self._send(connection, message)

    def _over(self) -> None:
        for port in self._ports:
            os.close(port)
        self._ports = []
        for connection in list(self._connections):
            if connection.claims:
                self._send(connection, {"event": "exit", "state": self.task.record.values})
        self._forsaken = self._forsaken or not self._claimed()
        # Not now: the request or the child that brought the end is still being handled.
        self._loop.after(0, self._end_if_due)

    def _end_if_due(self) -> None:
        if not self.task.ended or self._claimed():
            return
        if not self._ending:
            self._ending = True
            for waiter in self._removed_waiters:
                waiter()
            self._leave()
            if self._forsaken and self._on_exit:
                self._hand_over(self._on_exit)
        if not self.task.stdio.clients and not self._exec_clients:
            self._loop.stop()

    def _leave(self) -> None:
        """Vanish from the run folder. Clients that read slowly may keep the process itself for a while."""
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            try:
                os.unlink("shim.sock", dir_fd=self._folder)
            except OSError:
                pass
        for connection in list(self._connections):
            self._push(connection)
            self._connections.remove(connection)
            self._loop.forget(connection.sock.fileno())
            connection.receiver.close()
        os.close(self._lock)

    def _hand_over(self, argv: list[str]) -> None:
        """Start ``argv`` on its own: it cleans up what nobody else will."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            namespaces.setns(self._host, namespaces.CLONE_NEWNS)
            null = os.open("/dev/null", os.O_RDONLY)
            log = os.open(self._directory + "/on_exit.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            process.close_from(3)
            os.execve(argv[0], argv, dict(os.environ))
        except BaseException:
            self._report()
        os._exit(127)

    # --- requests

    def _dispatch(self, connection: Connection, message: dict[str, Any], descriptors: list[int]) -> None:
        seq = message.get("seq")
        try:
            operation = getattr(self, "op_" + str(message.get("op")).replace("-", "_"), None)
            if operation is None:
                raise InvalidArgument(f"the shim does not know the request {message.get('op')!r}")
            answer = operation(connection, seq, message, descriptors)
        except EXPECTED as failure:
            self._refuse(connection, seq, failure)
        except (KeyError, TypeError, ValueError) as failure:
            self._report()
            problem = InvalidArgument(f"malformed request {message.get('op')!r}: {type(failure).__name__}: {failure}")
            self._refuse(connection, seq, problem)
        except Exception as failure:  # a bug; whoever asked must not wait for an answer for ever
            self._report()
            self._refuse(connection, seq, SystemFault(f"the shim failed: {type(failure).__name__}: {failure}"))
        else:
            if answer is not None:
                self._send(connection, {"seq": seq, "ok": answer})
        finally:
            for descriptor in descriptors:  # those the operation did not take
                os.close(descriptor)

    def _refuse(self, connection: Connection, seq: object, failure: Exception) -> None:
        if isinstance(failure, RuntimeFailure):
            kind = failure.kind
        elif isinstance(failure, DockpError):
            kind = type(failure).__name__
        else:
            kind = "SystemFault"
        self._send(connection, {"seq": seq, "error": {"kind": kind, "message": str(failure)}})

    def op_create(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        netns = fds.pop(0) if message.get("netns") else None
        self._ports, fds[:] = list(fds), []
        return self.task.create(netns)

    def op_start(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return self.task.start()

    def op_attach(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        if self.task.ended:
            raise FailedPrecondition(f"container {self.task.config['id']} is not running")
        if len(fds) != 1:
            raise InvalidArgument("attach takes one descriptor, a connected stream socket")
        return self._attach(self.task.stdio, connection, {"attach": seq}, message, fds)

    def _attach(
        self, stdio: Stdio, connection: Connection, name: dict[str, Any], message: dict[str, Any], fds: list[int]
    ) -> dict[str, Any]:
        keys = bytes(message.get("detach_keys") or ())
        framing = message.get("framing", "auto")
        if framing not in ("raw", "stdcopy", "auto"):
            raise InvalidArgument(f"unknown framing {framing!r}")
        frames = framing == "stdcopy" or (framing == "auto" and not stdio.terminal)
        wants = {stream: bool(message.get(stream)) for stream in ("stdin", "stdout", "stderr")}
        wants["stdin"] = wants["stdin"] and stdio.open_stdin
        sock = _socket.socket(fileno=fds[0])  # raises OSError for what is no socket
        fds.pop(0)

        def ended(reason: str) -> None:
            if reason == "detach":
                if "exec_id" in name:
                    self.task.tell("exec_detach", execID=name["exec_id"])
                else:
                    self.task.tell("detach")
                self._send(connection, {"event": "detached", **name})

        head, early = (message.get(name, "").encode("latin-1") for name in ("head", "early"))
        stdio.attach(sock, wants, keys, frames, ended, head, early)
        return {"framed": frames}

    def op_resize(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        rows = check_message(message["rows"], int, "rows") & 0xFFFF
        columns = check_message(message["cols"], int, "cols") & 0xFFFF
        if message.get("exec_id"):
            self.task.execs.resize(message["exec_id"], rows, columns)
        else:
            self.task.stdio.resize(rows, columns)
        return {}

    def op_kill(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self.task.kill(check_message(message["signal"], int, "signal"), bool(message.get("all")))
        return {}

    def op_stop(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> None:
        self._when_ended(connection, seq)
        self.task.stop(message.get("signal"), message.get("timeout"))

    def _when_ended(self, connection: Connection, seq: object) -> None:
        """Answer the request with the record at the next end of the process."""
        waiters = self.task.waiters

        def answer() -> None:
            waiters.remove(answer)
            self._send(connection, {"seq": seq, "ok": dict(self.task.record.values)})

        waiters.append(answer)

    def op_pause(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self.task.pause()
        connection.pauses = bool(message.get("held"))
        return {}

    def op_unpause(
        self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]
    ) -> dict[str, Any]:
        self.task.unpause()
        for each in self._connections:
            each.pauses = False
        return {}

    def op_wait(
        self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]
    ) -> dict[str, Any] | None:
        condition = message.get("condition", "not-running")
        values = self.task.record.values
        if condition == "removed":
            self._removed_waiters.append(lambda: self._send(connection, {"seq": seq, "ok": dict(values)}))
            return None
        if condition not in ("not-running", "next-exit"):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        idle = not self.task.started and values["status"] != "restarting"
        if self.task.ended or (condition == "not-running" and idle):
            return dict(values)
        self._when_ended(connection, seq)
        return None

    def op_exec(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        answer: dict[str, Any] = {}

        def attach(stdio: Stdio) -> None:
            if fds:
                answer.update(self._attach(stdio, connection, {"exec_id": message["exec_id"]}, message, fds))
                self._exec_clients += 1
                stdio.idle = self._exec_idle

        entry = self.task.execs.run(
            check_message(message["exec_id"], str, "exec_id"),
            check_message(message["process"], dict, "process"),
            message.get("user"),
            bool(message.get("terminal")),
            message.get("console_size"),
            attach,
            bool(message.get("stdin")) and bool(fds),
            bool(message.get("env_home", True)),
        )
        answer["pid"] = entry.pid
        return answer

    def _exec_idle(self) -> None:
        self._exec_clients -= 1
        self._end_if_due()

    def op_exec_wait(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> None:
        self.task.execs.wait(message["exec_id"], lambda answer: self._send(connection, {"seq": seq, "ok": answer}))

    def op_exec_inspect(
        self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]
    ) -> dict[str, Any]:
        return self.task.execs.inspect(message["exec_id"])

    def op_execs(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return {"running": self.task.execs.running()}

    def op_stats(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self.task.require_running()
        answer: dict[str, Any] = self.task.runtime.stats()
        return answer

    def op_processes(
        self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]
    ) -> dict[str, Any]:
        self.task.require_running()
        return {"pids": self.task.runtime.processes()}

    def op_update(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return {"warnings": self.task.update(message.get("resources"), message.get("restart"))}

    def op_rename(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self.task.rename(check_message(message["name"], str, "name"))
        return {}

    def op_state(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return dict(self.task.record.values)

    def op_logs_flush(
        self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]
    ) -> dict[str, Any]:
        self.task.flush_log()
        return {}

    def op_watch(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        connection.watches = True
        return dict(self.task.record.values)

    def op_claim(self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if self._ending:
            raise FailedPrecondition("the container is being cleaned up")
        connection.claims = True
        if self.task.ended:
            self._send(connection, {"event": "exit", "state": self.task.record.values})
        return dict(self.task.record.values)

    def op_release(
        self, connection: Connection, seq: object, message: dict[str, Any], fds: list[int]
    ) -> dict[str, Any]:
        # Whoever holds the container's lock speaks for all: the others may be waiting for that lock.
        for released in self._connections if message.get("all") else [connection]:
            released.claims = False
            released.starter = False
        if self.task.ended:
            self._forsaken = False
            self._loop.after(0, self._end_if_due)
        return {}
