"""Launching shims, and finding those that live."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs

from dockp.linux.locks import RangeLocks
from dockp.shim import wire
from dockp.spi.errors import FailedPrecondition, NotFound, SystemFault
from dockp.supervisor.client import ShimClient
from dockp.supervisor.state import TaskState, read_state

_log = logging.getLogger(__name__)

# The launched process forks before it imports anything, so that its parent need wait for a millisecond only, and so
# that the shim leads no session and can never get a controlling terminal (credentials(7)).
_DETACHED = "import posix,sys\nposix.setsid()\nif posix.fork():posix._exit(0)\n"
_SHIM = _DETACHED + "sys.path[:0]=sys.argv[2:]\nfrom dockp.shim.main import run\nrun(sys.argv[1])"
_ZYGOTE = _DETACHED + "sys.path[:0]=sys.argv[3:]\nfrom dockp.shim.zygote import run\nrun(sys.argv[1],sys.argv[2])"
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_ISOLATED = ("-I", "-S")
# As isolated, for nothing but this is in its environment. With the C library's allocator a module's objects lie side
# by side, and not by size all over the memory: a shim then writes to fewer of the pages it shares with the zygote.
_ZYGOTE_FLAGS = ("-s", "-P", "-S")
_ZYGOTE_ENVIRONMENT = {**_ENVIRONMENT, "PYTHONMALLOC": "malloc"}
_CONTROL, _LOCK = 3, 4  # as dockp.shim.main expects them
_FIXED_SIGNALS = (9, 19, 32, 33)  # KILL and STOP; the C library's own two
_DEAD = "the container's shim was killed"
_GREETING = 2.0
"""Seconds after which a zygote, or its spare, is taken to hang."""
_SIGKILL = 9


class Supervisor:
    """Every shim under one run root.

    Args:
        run_root: where ``containers/<id>/`` lie, each with ``shim.json`` and ``bundle`` written by the engine.
        search_paths: directories to import `dockp` and the runtime and log classes from; called once a launch.
    """

    def __init__(self, run_root: Path, search_paths: Callable[[], list[str]]) -> None:
        self._root = run_root
        self._search_paths = search_paths

    def directory(self, id: str) -> Path:
        return Path(f"{self._root}/containers/{id}")

    def launch(self, id: str) -> ShimClient:
        """Start the shim of a container; returns at once, while it prepares. What goes wrong there is the answer to
        the first request.

        Raises: FailedPrecondition when it has a shim; NotFound without a run folder; OSError.
        """
        directory = self.directory(id)
        try:
            lock = RangeLocks(directory / "lock").hold(0, wait=False)
        except BlockingIOError:
            raise FailedPrecondition(f"container {id} has a shim already") from None
        except FileNotFoundError:
            raise NotFound(f"container {id} has no run folder") from None
        launcher = 0
        with lock:
            ours, theirs = socket.socketpair()
            try:
                if not self._ask_zygote(directory, theirs.fileno(), lock.fileno()):
                    arguments = [str(directory), *self._search_paths()]
                    launcher = _spawn(
                        (*_ISOLATED, "-c", _SHIM, *arguments), _ENVIRONMENT, theirs.fileno(), lock.fileno()
                    )
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
        return ShimClient(id, ours, directory, launcher)

    def _ask_zygote(self, directory: Path, control: int, lock: int) -> bool:
        """Have a zygote's spare be the shim; False where there is none, or one of another version of dockp."""
        sock = connect_in(self._root, "zygote.sock")
        if sock is None:
            return False
        with sock:
            sock.settimeout(_GREETING)
            receiver = wire.Receiver(sock)
            try:
                greeting = receiver.receive()
                # Only then the lock: what is sent to a process that hangs stays held.
                if not greeting or greeting[0][0].get("code") != wire.code_identity():
                    return False
                wire.send_blocking(sock, {"directory": str(directory)}, [control, lock])
                return bool(receiver.receive())
            except TimeoutError:
                _end_zygote(sock)
                return False
            except (OSError, ValueError):
                return False

    def start_zygote(self, modules: list[str]) -> socket.socket:
        """Start the process that forks shims quickly, with ``modules`` (runtimes, log writers) loaded; returns the
        connection that keeps it alive: it ends when that is closed. A zygote that runs already is replaced."""
        ours, theirs = socket.socketpair()
        try:
            arguments = [str(self._root), ",".join(modules), *self._search_paths()]
            words = (*_ZYGOTE_FLAGS, "-c", _ZYGOTE, *arguments)
            launcher = _spawn(words, _ZYGOTE_ENVIRONMENT, theirs.fileno(), theirs.fileno())
        finally:
            theirs.close()
        os.waitpid(launcher, 0)
        ours.settimeout(10)
        try:
            ready = ours.recv(1)
        except OSError:
            ready = b""
        if not ready:
            ours.close()
            raise SystemFault(f"the zygote of {self._root} did not start; see {self._root / 'zygote.log'}")
        ours.settimeout(None)
        return ours

    def connect(self, id: str) -> ShimClient:
        """Talk to a living shim. Raises NotFound when there is none."""
        directory = self.directory(id)
        sock = connect_in(directory, "shim.sock")
        if sock is None:
            raise NotFound(f"container {id} has no shim")
        return ShimClient(id, sock, directory)

    def alive(self, id: str) -> bool:
        """Whether a shim holds the container's lock."""
        return RangeLocks(f"{self._root}/containers/{id}/lock").is_held(0)

    def state(self, id: str) -> TaskState | None:
        """What the container's record says, corrected when its shim is dead; None without a record."""
        directory = self.directory(id)
        # The lock before the record: a shim that ends in between has written its last record by then.
        alive = self.alive(id)
        state = read_state(directory)
        if state is None:
            return None
        if alive or state.status == "exited":
            return state
        return attrs.evolve(
            state,
            status="exited",
            pid=0,
            pid_start_time=0,
            exit_code=137,
            error=_DEAD,
            lost=True,
            finished_at=time.time_ns(),
        )


def connect_in(directory: Path, name: str) -> socket.socket | None:
    """Connect to a unix socket, however long its path; None when nobody listens."""
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{place}/{name}")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(place)
    return sock


def _end_zygote(sock: socket.socket) -> None:
    """Kill the process that made the socket at the other end. Whoever keeps it alive starts another."""
    pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    with suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text() == "dockp-zygote\n":
            _log.warning("the zygote %s does not answer: killed", pid)
            os.kill(pid, _SIGKILL)


def _spawn(arguments: tuple[str, ...], environment: dict[str, str], control: int, lock: int) -> int:
    """Run Python with two descriptors, isolated from this process's environment, site and signals.

    Returns the pid of a child that ends as soon as it has forked; the caller collects it.
    """
    from dockp.linux.selfexe import sealed_executable

    # The base interpreter, not a virtual environment's link to it: what is imported comes from the arguments alone.
    interpreter: str = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    executable = sealed_executable(interpreter)
    # Copied out of the way first, since each of the numbers below may be the other descriptor's now.
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in (control, lock)]
    try:
        return os.posix_spawn(
            f"/proc/self/fd/{executable}",
            [interpreter, "-X", "utf8", *arguments],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, copies[0], _CONTROL),
                (os.POSIX_SPAWN_DUP2, copies[1], _LOCK),
            ],
            setsigmask=[],
            # Signals that our own parent had us ignore (nohup) would stay ignored in every container.
            setsigdef=[number for number in range(1, 65) if number not in _FIXED_SIGNALS],
        )
    finally:
        for descriptor in (*copies, executable):
            os.close(descriptor)
