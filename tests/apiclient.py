"""A client of the API that is as small as can be, and what a daemon uses: for tests that need hundreds of clients."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attrs import frozen
from harness import Daemon, Dockp, processes_naming

_PINGER = """
import select, socket, sys, time
path, worst = sys.argv[1], 0.0
while not select.select([0], [], [], 0.1)[0]:
    began = time.monotonic()
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    try:
        client.connect(path)
        client.sendall(b"GET /_ping HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        heard = client.recv(64)
    except OSError as error:
        heard = repr(error).encode()
    client.close()
    if not heard.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"no answer to a ping: {heard}")
    worst = max(worst, time.monotonic() - began)
print(worst)
"""


class Reply:
    """One reply: its status, its headers (names in small letters), and its body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.document["message"])


class Client:
    """One connection to a daemon's unix socket."""

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self._unread = b""

    def send(self, method: str, target: str, body: Any = None, **query: Any) -> None:
        self.socket.sendall(request(method, target, body, **query))

    def ask(self, method: str, target: str, body: Any = None, **query: Any) -> Reply:
        """Send a request, wait for the reply."""
        self.send(method, target, body, **query)
        return self.reply()

    def ok(self, method: str, target: str, body: Any = None, **query: Any) -> Any:
        """As `ask`, for what must succeed; the document, if there is one."""
        reply = self.ask(method, target, body, **query)
        assert reply.status < 400, f"{method} {target}: {reply.status} {reply.body.decode(errors='replace')}"
        return reply.document if reply.body and reply.headers.get("content-type") == "application/json" else None

    def reply(self) -> Reply:
        """The next reply, whole."""
        status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            return Reply(status, headers, b"".join(self.chunks()))
        return Reply(status, headers, self.exactly(int(headers.get("content-length", "0"))))

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next reply."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}

    def chunks(self) -> Iterator[bytes]:
        """The pieces of a chunked body, as they come."""
        while size := int(self._until(b"\r\n"), 16):
            yield self.exactly(size)
            self.exactly(2)
        self.exactly(2)

    def hijack(self, target: str, body: Any = None, **query: Any) -> None:
        """Ask for a stream, which the socket is from here on. Raises: AssertionError for any other answer."""
        self.socket.sendall(request("POST", target, body, "Connection: Upgrade\r\nUpgrade: tcp\r\n", **query))
        status, headers = self.head()
        if status != 101:
            raise AssertionError(f"POST {target}: {status} {self.exactly(int(headers.get('content-length', '0')))!r}")

    def frame(self) -> bytes:
        """The next piece of a multiplexed stream; b"" at its end."""
        try:
            return self.exactly(int.from_bytes(self.exactly(8)[4:], "big"))
        except EOFError:
            return b""

    def rest(self) -> bytes:
        """Everything until the end of the connection."""
        pieces = [self._unread]
        self._unread = b""
        while piece := self.socket.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)

    def output(self) -> bytes:
        """The rest of a multiplexed stream, without its frames."""
        return b"".join(iter(self.frame, b""))

    def exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            self._receive()
        found, self._unread = self._unread[:count], self._unread[count:]
        return found

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            self._receive()
        found, _, self._unread = self._unread.partition(mark)
        return found

    def _receive(self) -> None:
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise EOFError("the daemon closed the connection")
        self._unread += piece

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def request(method: str, target: str, body: Any = None, headers: str = "", **query: Any) -> bytes:
    """A request's bytes. ``body``: a JSON document, or bytes as they are."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
    place = f"/v1.41{target}" + (f"?{urlencode(query)}" if query else "")
    head = f"{method} {place} HTTP/1.1\r\nHost: x\r\n{headers}Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


def shell(script: str, **host: Any) -> dict[str, Any]:
    """What to create: busybox with a script, without a network unless ``host`` (HostConfig) has one."""
    return {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none", **host}}


@contextlib.contextmanager
def answering(daemon: Daemon, within: float = 1.0) -> Iterator[None]:
    """All along, the daemon answers pings, each ``within`` seconds. Asked by a process of its own, which the test's
    own work does not hold up."""
    command = [sys.executable, "-S", "-E", "-c", _PINGER, str(daemon.socket)]
    pinger = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield
    finally:
        told, complaint = pinger.communicate(timeout=60)
    assert pinger.returncode == 0, complaint.decode()
    assert float(told) < within, f"a ping took {float(told):.2f} s"


@frozen(kw_only=True)
class Size:
    """What a daemon uses at one moment.

    Attributes:
        memory: proportional set size of dockpd in KiB. others: the same of its zygote, and of all shims.
        files: in both roots. database: bytes.
    """

    memory: int
    others: int
    descriptors: int
    threads: int
    files: int
    database: int
    processes: int

    @staticmethod
    def of(daemon: Daemon) -> Size:
        dockp = daemon.dockp
        processes = set(processes_naming(str(dockp.base))) - {daemon.pid}
        return Size(
            memory=_memory(daemon.pid),
            others=sum(map(_memory, processes)),
            descriptors=len(os.listdir(f"/proc/{daemon.pid}/fd")),
            threads=len(os.listdir(f"/proc/{daemon.pid}/task")),
            files=_files(dockp),
            database=sum(path.stat().st_size for path in dockp.data_root.glob("state.db*")),
            processes=len(processes),
        )


def _memory(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _files(dockp: Dockp) -> int:
    roots = (dockp.data_root, dockp.exec_root)
    return sum(len(names) + len(below) for root in roots for _, below, names in os.walk(root))
