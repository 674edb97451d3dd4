"""The conversation between the shim and the process that becomes the container's command.

One pair of connected SOCK_SEQPACKET sockets, both ends closed on exec, so that the end of the stream on the shim's
side means "execve happened" (or the process died, which its exit status tells)::

    shim                                   child (already in its namespaces)
    ----                                   ---------------------------------
    writes the user namespace maps
    MAPPED  ------------------------------>  becomes root of its user namespace
                                             joins its cgroups, then a cgroup namespace of its own
                                             propagation, root, mounts, devices
                 <------------------ HOOKS   only when the spec has prestart or createRuntime hooks
    runs those hooks
    HOOKED  ------------------------------>  createContainer hooks, masks, pivot_root
                 <----------------- LIMITS   only when the spec has rlimits: while it is still root
    sets them
    LIMITED ----------------------------->   ids, capabilities, working directory, the command's file
                 <------------------ READY   all done but the last step; `create` returns here
    START   ------------------------------>  startContainer hooks, seccomp, execve
                 <------------ end of file   the command runs; `start` returns here

Any time the child may say ERROR (with a kind and a text; it then exits) or WARNING (with a text). `exec` is the same
without maps and hooks, and without READY and START: nothing happens between them.
"""

from __future__ import annotations

import _socket
import errno
import os

from dockp.spi.runtime import RuntimeFailure

MAPPED = b"m"
HOOKS = b"H"
HOOKED = b"h"
LIMITS = b"L"
LIMITED = b"l"
READY = b"R"
START = b"s"
ERROR = b"E"
WARNING = b"W"

_LONGEST = 8192


class Channel:
    """One end of the conversation."""

    __slots__ = ("_socket",)

    def __init__(self, end: _socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        return cls(first), cls(second)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: bytes) -> None:
        """Say something. A partner that is gone is noticed by the next `receive`."""
        try:
            self._socket.send(message[:_LONGEST], _socket.MSG_NOSIGNAL)
        except OSError as failure:
            if failure.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise

    def receive(self) -> bytes:
        """The next message, b"" at the end."""
        try:
            return self._socket.recv(_LONGEST)
        except ConnectionResetError:
            return b""

    # -- the child's side --

    def expect(self, message: bytes) -> None:
        """Wait for one message of the shim; without a shim there is nothing to live for."""
        if self.receive() != message:
            os._exit(1)

    def require(self) -> None:
        """End without a shim, as `expect` does, but wait for nothing."""
        try:
            if not self._socket.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT):
                os._exit(1)
        except BlockingIOError:
            pass

    def warn(self, text: str) -> None:
        self.send(WARNING + text.encode(errors="replace"))

    def fail(self, text: str, kind: str) -> None:
        self.send(ERROR + kind.encode() + b"\0" + text.encode(errors="replace"))

    # -- the shim's side --

    def await_message(self, wanted: bytes, warnings: list[str]) -> None:
        """Wait for ``wanted`` (b"" for the end), collecting warnings.

        Raises: RuntimeFailure with what the child reported, or when it died without a word.
        """
        while True:
            message = self.receive()
            if message[:1] == WARNING:
                warnings.append(message[1:].decode(errors="replace"))
            elif message[:1] == ERROR:
                kind, _, text = message[1:].decode(errors="replace").partition("\0")
                raise RuntimeFailure(text, kind)
            elif message == wanted:
                return
            elif not message:
                raise RuntimeFailure("the container's first process died while it was set up")
            else:
                raise RuntimeFailure(f"unexpected message {message!r} from the container's first process")
