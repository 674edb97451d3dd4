"""A tiny Docker Engine API on a unix socket: enough for Docker's own command line to talk to, while it is recorded."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

API_VERSION = "1.50"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests: ClassVar[list[tuple[str, str, dict[str, list[str]], Any]]]
    answers: ClassVar[Mapping[str, Any]]

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        path = re.sub(r"^/v[0-9.]+", "", parts.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.requests.append((self.command, path, parse_qs(parts.query), body))
        if path == "/_ping":
            self._answer(200, b"OK", "text/plain")
            return
        document = self.answers.get(path)
        if document is None:
            self._answer(404, json.dumps({"message": f"no such thing: {path}"}).encode())
        else:
            self._answer(201 if self.command == "POST" else 200, json.dumps(document).encode())

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Api-Version", API_VERSION)
        self.send_header("Ostype", "linux")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - the names that http.server calls


class FakeDocker:
    """What the server was asked: (method, path without version, query, body)."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.requests: list[tuple[str, str, dict[str, list[str]], Any]] = []
        self.answers: dict[str, Any] = {}


@contextmanager
def serving(directory: Path) -> Iterator[FakeDocker]:
    """A server at ``directory/docker.sock`` while inside."""
    fake = FakeDocker(directory / "docker.sock")
    handler = type("Handler", (_Handler,), {"requests": fake.requests, "answers": fake.answers})
    with socketserver.ThreadingUnixStreamServer(str(fake.address), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
