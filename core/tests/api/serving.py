"""The API over a real engine, in a process and namespaces of its own, and a client of few lines.

As a script: ``python serving.py SOCKET`` serves on the unix socket until standard input ends; roots come from the
environment, as for every engine.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from attrs import frozen

REPOSITORY = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("DOCKP_TEST_CACHE", REPOSITORY / ".cache" / "images"))
BUSYBOX = CACHE / "busybox.tar"


@frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """A client of the server on ``path``: ``api("GET", "/info")``."""

    def __init__(self, path: Path, version: str = "1.50") -> None:
        self.path = path
        self.version = version

    def at(self, version: str) -> Api:
        return Api(self.path, version)

    def __call__(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Bytes are sent as they are, anything else as JSON."""
        connection = _UnixConnection(self.path, timeout)
        given = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            given.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, f"/v{self.version}{target}", body=body, headers=given)
            reply = connection.getresponse()
            return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
        finally:
            connection.close()


class Served:
    """A server of its own; roots lie under ``base``. A context manager."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.socket = base / "api.sock"
        self.cgroup = f"dockp-api-{os.getpid()}-{base.name}"
        self.api = Api(self.socket)

    def __enter__(self) -> Served:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKP_", "DOCKER_"))}
        self._log = (self.base / "server.log").open("wb")
        self._process = subprocess.Popen(
            ["unshare", "-m", "-n", "--propagation", "private", sys.executable, __file__, str(self.socket)],
            stdin=subprocess.PIPE,
            stderr=self._log,
            env=clean
            | {
                "DOCKP_DATA_ROOT": str(self.base / "data"),
                "DOCKP_EXEC_ROOT": str(self.base / "run"),
                "DOCKP_CACHE_DIR": str(self.base / "cache"),
                "DOCKP_CGROUP_PARENT": self.cgroup,
                "HOME": str(self.base),
            },
        )
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, f"the server did not start: {self.log}"
            time.sleep(0.02)
        return self

    def __exit__(self, *exc: object) -> None:
        for container in self.api("GET", "/containers/json?all=1").document:
            self.api("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._log.close()
        places = [path for pattern in ("", "*/") for path in Path("/sys/fs/cgroup").glob(pattern + self.cgroup)]
        for root in {path.resolve() for path in places}:
            for directory in [*sorted(root.rglob("*/"), key=lambda path: -len(path.parts)), root]:
                directory.rmdir()

    @property
    def log(self) -> str:
        return (self.base / "server.log").read_text()

    def add_busybox(self) -> None:
        done = self.api("POST", "/images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD+sh", BUSYBOX.read_bytes())
        assert done.status == 200, done


async def _serve(path: str) -> None:
    from dockp.api.operations import ROUTES
    from dockp.api.routing import Router
    from dockp.api.server import ApiServer
    from dockp.api.services import ApiServices
    from dockp.engine.local import LocalEngine

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with LocalEngine() as engine:
        engine.watch()
        server = ApiServer(ApiServices(engine), Router(ROUTES))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{path}.new")
        listener.listen(100)
        os.rename(f"{path}.new", path)
        await server.serve([listener])
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await server.close(1)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
