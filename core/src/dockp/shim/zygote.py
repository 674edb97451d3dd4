"""The zygote: a process that has the shim loaded and forks one on request, in about a millisecond.

What it has loaded is shared by all its shims, page by page, until somebody writes to it; so nothing is loaded, and
nothing allocated, that a shim does not need.
"""

from __future__ import annotations

import _socket
import gc
import os
import sys

import dockp.shim.main as shim
from dockp.linux import process
from dockp.shim import wire
from dockp.shim.loop import GONE, READ, Loop, catch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run(run_root: str, modules: str) -> NoReturn:
    """Be the zygote of ``run_root``; descriptor `shim.CONTROL` keeps it alive."""
    code = 1
    try:
        directory = _Zygote(run_root, modules.split(",") if modules else []).serve()
        if directory is not None:
            shim.run(directory)
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
        for module in (*shim.LOADED_LATER, *modules):
            __import__(module)
        self._root = run_root
        self._born: str | None = None
        self._loop = Loop(lambda: sys.__excepthook__(*sys.exc_info()))
        self._listener = self._listen()
        self._loop.watch(self._listener.fileno(), READ, self._accept)
        self._loop.watch(shim.CONTROL, READ, self._told)
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

    def serve(self) -> str | None:
        """Returns None when told to end; in a new shim, its directory."""
        self._loop.run()
        return self._born

    def _told(self, events: int) -> None:
        if events & GONE or not os.read(shim.CONTROL, 64):
            path = self._root + "/zygote.sock"
            try:
                if os.stat(path).st_ino == self._identity:
                    os.unlink(path)
            except OSError:
                pass
            self._loop.stop()

    def _accept(self, events: int) -> None:
        try:
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        sock = _socket.socket(fileno=descriptor)
        try:
            peer = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
            if int.from_bytes(peer[4:8], "little") == os.geteuid():
                self._request(sock)
        finally:
            sock.close()

    def _request(self, sock: _socket.socket) -> None:
        sock.settimeout(1)
        receiver = wire.Receiver(sock)
        try:
            messages = None
            while not messages:
                messages = receiver.receive()
                if messages is None:
                    return
        except (OSError, ValueError):
            return
        message, descriptors = messages[0]
        if len(descriptors) == 2 and self._fork(message["directory"], descriptors):
            return
        for descriptor in descriptors:
            os.close(descriptor)
        wire.send_blocking(sock, {"ok": {}})

    def _fork(self, directory: str, descriptors: list[int]) -> bool:
        """Fork twice: the shim is nobody's child. True in the shim."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return False
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            high = [os.dup(descriptor) for descriptor in descriptors]
            while min(high) <= shim.LOCK:
                high = [os.dup(descriptor) for descriptor in high]
            os.dup2(high[0], shim.CONTROL)
            os.dup2(high[1], shim.LOCK)
            self._born = directory
            self._loop.stop()
            return True
        except BaseException:
            os._exit(1)
