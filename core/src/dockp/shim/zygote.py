"""The zygote: a process that has the shim loaded, and always one forked already that waits for its container.

What it has loaded is shared by all its shims, page by page, until somebody writes to it; so nothing is loaded, and
nothing allocated, that a shim does not need.

It listens at ``zygote.sock``, but whoever connects there is served by the *spare*: a shim's process, with its maker
beside it, that has done all that can be done before the container is known. The spare that was asked tells the zygote,
which forks the next::

    zygote                    spare                          launcher
    ------                    -----                          --------
    fork ------------------>  settles in, forks its maker
                              accept, which code it has -->
                              "ok"  <---------------------  run folder, control socket, lock
             <--------------  "taken"
    fork the next             is the shim from here on
"""

from __future__ import annotations

import _socket
import gc
import os
import select
import sys

import dockp.shim.main as shim
from dockp.linux import namespaces, process
from dockp.shim import wire
from dockp.shim.loop import catch
from dockp.shim.maker import Ahead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_LISTENER, _LINE = shim.CONTROL, shim.LOCK
"""While a spare waits, these places are taken by the zygote's listening socket, and by the line to the zygote."""

_REST = 25
"""Milliseconds, somewhat more than a start takes."""


def run(run_root: str, modules: str) -> NoReturn:
    """Be the zygote of ``run_root``; descriptor `shim.CONTROL` keeps it alive."""
    code = 1
    try:
        zygote = _Zygote(run_root, modules.split(",") if modules else [])
        line = zygote.serve()
        if line is not None:
            shim.run(*_wait(zygote.listener.fileno(), line, zygote.code))
        code = 0
    except BaseException:
        log = os.open(run_root + "/zygote.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(log, 2)
        sys.__excepthook__(*sys.exc_info())
    os._exit(code)


class _Zygote:
    def __init__(self, run_root: str, modules: list[str]) -> None:
        process.close_from(shim.CONTROL + 1)
        os.set_inheritable(shim.CONTROL, False)
        os.chdir("/")
        catch(*shim.SURVIVED)
        process.set_name("dockp-zygote")
        self.code = wire.code_identity()
        for module in (*shim.LOADED_LATER, *modules):
            __import__(module)
        self._root = run_root
        self.listener = self._listen()
        os.environ.pop("PYTHONMALLOC", None)  # meant for this process and its shims only
        gc.collect()
        gc.freeze()
        os.write(shim.CONTROL, b"+")

    def _listen(self) -> _socket.socket:
        place = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # Bound to another name and renamed: there is always one listening, the old zygote or the new.
        name, temporary = (f"/proc/self/fd/{place}/{end}" for end in ("zygote.sock", f"zygote.{os.getpid()}"))
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        listener.bind(temporary)
        os.umask(mask)
        listener.listen(128)
        listener.setblocking(False)
        os.rename(temporary, name)
        self._identity = os.stat(name).st_ino
        os.close(place)
        return listener

    def serve(self) -> int | None:
        """Returns None when told to end; in a new spare, its end of the line to here."""
        while True:
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            pid, pidfd = namespaces.clone(0, sibling=True)  # a shim is nobody's child
            if pid == 0:
                os.setsid()
                return theirs.detach()
            os.close(pidfd)
            theirs.close()
            if not self._until_taken(ours):
                return None
            ours.close()
            self._until_wanted()

    def _until_taken(self, line: _socket.socket) -> bool:
        """False when the zygote is to end. Raises RuntimeError when the spare ended without having been asked."""
        poll = select.poll()
        poll.register(shim.CONTROL, select.POLLIN)
        poll.register(line, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll()]
        if shim.CONTROL in ready and not os.read(shim.CONTROL, 64):
            self._unlink()
            return False
        if line.fileno() in ready and not line.recv(1):
            raise RuntimeError("the spare shim ended")
        return line.fileno() in ready or self._until_taken(line)

    def _until_wanted(self) -> None:
        """Leave the processor to the container that is about to start, unless the next one waits already."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.poll(_REST)

    def _unlink(self) -> None:
        path = self._root + "/zygote.sock"
        try:
            if os.stat(path).st_ino == self._identity:
                os.unlink(path)
        except OSError:
            pass


def _wait(listener: int, line: int, code: str) -> tuple[str, shim.Newborn]:
    """Be the spare until it is asked: its run folder, and itself. Ends the process when the zygote is gone."""
    high = [os.dup(descriptor) for descriptor in (listener, line)]
    while min(high) <= _LINE:
        high = [os.dup(descriptor) for descriptor in high]
    for descriptor, place in zip(high, (_LISTENER, _LINE), strict=True):
        os.dup2(descriptor, place, inheritable=False)
    newborn = shim.Newborn()
    newborn.ahead = Ahead(shim.reporter)
    listening = _socket.socket(fileno=_LISTENER)
    poll = select.poll()
    poll.register(_LISTENER, select.POLLIN)
    poll.register(_LINE, select.POLLIN)
    while True:
        if any(descriptor == _LINE for descriptor, _ in poll.poll()):
            os._exit(0)
        found = _asked(listening, code)
        if found is not None:
            break
    listening.detach()
    directory, descriptors = found
    for descriptor, place in zip(descriptors, (shim.CONTROL, shim.LOCK), strict=True):
        os.dup2(descriptor, place, inheritable=False)
        os.close(descriptor)
    return directory, newborn


def _asked(listening: _socket.socket, code: str) -> tuple[str, list[int]] | None:
    """Serve one connection: the run folder and the two descriptors for it, or None when it brought none."""
    try:
        sock = _socket.socket(fileno=listening._accept()[0])  # type: ignore[attr-defined]
    except OSError:
        return None
    receiver = wire.Receiver(sock)
    try:
        peer = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        if int.from_bytes(peer[4:8], "little") != os.geteuid():
            return None
        sock.settimeout(1)
        wire.send_blocking(sock, {"code": code})
        messages = receiver.receive()
        while messages == []:
            messages = receiver.receive()
        if not messages or len(messages[0][1]) != 2:
            return None
        wire.send_blocking(sock, {"ok": {}})
        message, descriptors = messages[0]
        os.write(_LINE, b"+")
        return message["directory"], descriptors
    except (OSError, ValueError):
        return None
    finally:
        receiver.close()
