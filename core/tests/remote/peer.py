"""A server that says what a test tells it to: requests are kept, answers are bytes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Length: 0\r\n\r\n"


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunks(*pieces: bytes) -> bytes:
    """An answer in chunks."""
    parts = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"


class Peer:
    """Answers each request by what ``answers`` has next for its method and path (without the version)."""

    def __init__(self, path: Path, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.connections = 0
        self.answers: dict[str, list[bytes | Callable[[socket.socket], None]]] = {}
        self._context = context
        if context is None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self.host = f"unix://{path}"
        else:
            self._listener = socket.socket()
            self._listener.bind(("127.0.0.1", 0))
            self.host = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def on(self, request: str, *answers: bytes | Callable[[socket.socket], None]) -> None:
        """``request`` as ``"GET /info"``."""
        self.answers[request] = list(answers)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                while self._one(connection):
                    pass
        except OSError:
            return

    def _one(self, connection: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            if not byte:
                return False
            head += byte
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        lines = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.decode().split("\r\n")}
        body = b""
        while len(body) < int(lines.get("content-length", 0)):
            body += connection.recv(65536)
        if lines.get("transfer-encoding") == "chunked":
            while not body.endswith(b"0\r\n\r\n"):
                body += connection.recv(65536)
        self.requests.append((method, target, body))
        path = target.partition("?")[0]
        name = f"{method} {'/' + path.split('/', 2)[2] if path.startswith('/v1.') else path}"
        waiting = self.answers.get(name)
        reply = OK if not waiting and name == "HEAD /_ping" else waiting.pop(0) if waiting else answer(b"{}", "404 No")
        if callable(reply):
            reply(connection)
            return False
        connection.sendall(reply)
        return True
