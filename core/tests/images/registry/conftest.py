"""Registries to test against, in a network namespace of the tests' own: Debian's, and one that does as it is told."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import define, field, frozen

from dockp.images.registry import transport
from dockp.linux import namespaces, netns, rtnl

ELSEWHERE = "10.66.0.1"
"""An address that is not on loopback, so that TLS has to be good. There is a certificate for it."""
NOT_CERTIFIED = "10.66.0.2"
"""The same, but the certificate does not name it."""


@pytest.fixture(scope="module", autouse=True)
def own_network() -> Iterator[None]:
    """The thread that runs the tests, and what it starts, see a loopback and nothing else."""
    assert os.geteuid() == 0, "these tests make network namespaces: run them as root"
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    own = netns.new()
    rtnl.loopback_up(own)
    namespaces.setns(own)
    for address in (ELSEWHERE, NOT_CERTIFIED):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    yield
    namespaces.setns(home)
    os.close(home)
    os.close(own)


@pytest.fixture(autouse=True)
def no_proxies_and_short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(transport, "PAUSE", 0.01)


# One that answers as it is told


@frozen(kw_only=True)
class Request:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


@frozen(kw_only=True)
class Answer:
    """``length``: what Content-Length says, the truth if None, nothing if -1. ``pace``: seconds between the pieces of a
    body. The connection ends after it when ``cut``."""

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes | Iterable[bytes] = b""
    length: int | None = None
    pace: float = 0.0
    cut: bool = False


Script = Callable[[Request], "Answer | bytes | None"]
"""What to answer: well-formed, as these very bytes, or not at all, ever."""


@define
class Scripted:
    """A server whose ``script`` says what it answers, with what it was asked in ``asked``."""

    answer: ClassVar[type[Answer]] = Answer
    address: str
    script: Script
    asked: list[Request] = field(factory=list)
    connections: int = 0

    def paths(self, method: str = "GET") -> list[str]:
        return [request.path for request in self.asked if request.method == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.told.connections += 1

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        path, _, query = self.path.partition("?")
        request = Request(
            method=self.command,
            path=path,
            query=query,
            headers=self._headers(),
            body=self.rfile.read(length),
        )
        self.server.told.asked.append(request)
        answer = self.server.told.script(request)
        if answer is None:
            self.server.ended.wait(20)
            self.close_connection = True
        elif isinstance(answer, bytes):
            self.wfile.write(answer)
            self.close_connection = True
        else:
            self._answer(answer)

    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        whole = answer.body if isinstance(answer.body, bytes) else None
        length = answer.length
        if length is None and whole is not None:
            length = int(answer.headers.get("Content-Length", len(whole)))
        if length is None or length < 0:
            self.close_connection = True
        elif "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            for piece in [whole] if whole is not None else answer.body:
                self.wfile.write(piece)
                self.wfile.flush()
                if answer.pace and self.server.ended.wait(answer.pace):
                    break
        if answer.cut:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _any  # noqa: N815 - the names that http.server wants

    def do_CONNECT(self) -> None:
        """Be a proxy: bytes go to and fro until one side ends."""
        self.server.told.asked.append(
            Request(method="CONNECT", path=self.path, query="", headers=self._headers(), body=b"")
        )
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            ends = {self.connection: far, far: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    ends[end].sendall(data)

    def handle(self) -> None:
        # Clients that give up are what many of these tests are about.
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    """Start a server: ``serve(script)``, with TLS when a context is given."""
    servers: list[Any] = []

    def start(script: Script, context: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> Scripted:
        server: Any = _Server((host, 0), _Handler)
        server.ended = threading.Event()
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.told = Scripted(f"{host}:{server.server_address[1]}", script)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server.told  # type: ignore[no-any-return]

    yield start
    for server in servers:
        server.ended.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def elsewhere() -> str:
    return ELSEWHERE


@pytest.fixture
def answer() -> type[Answer]:
    """What a script makes its answers of."""
    return Answer


# Certificates


@frozen(kw_only=True)
class Authority:
    """A certificate authority in a directory: ``ca.crt``, ``server.*`` for 127.0.0.1 and `ELSEWHERE`, ``client.*``."""

    path: Path

    def certs_d(self, top: Path, address: str, *names: str) -> Path:
        """Make ``certs.d/ADDRESS`` below ``top`` with copies of files: ``ca.crt``, ``client.cert``, ``client.key``."""
        folder = top / "certs.d" / address
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes((self.path / name).read_bytes())
        return top / "certs.d"

    def server_context(self, *, client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path / "server.cert", self.path / "server.key")
        if client:
            context.load_verify_locations(self.path / "ca.crt")
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    path = tmp_path_factory.mktemp("authority")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=path, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority")
    for name, alternative in (("server", f"IP:127.0.0.1,IP:{ELSEWHERE},DNS:localhost"), ("client", "DNS:client")):
        (path / "extensions").write_text(f"subjectAltName={alternative}\n")
        openssl("req", "-new", *key[:5], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "extensions", "-out", f"{name}.cert"),
        )
    return Authority(path=path)


# Debian's

NAME, PASSWORD = "tester", "secret words"
# htpasswd -nbB tester "secret words"
_HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuqYWJzDGhfhlP.9mT5jl1vGUfaiH1IM.\n"


@frozen(kw_only=True)
class DebianRegistry:
    address: str

    def push(self, layout: Path, name: str, *, tls: bool = False, login: bool = False) -> None:
        """Put ``layout:x`` there, by skopeo."""
        words = ["--insecure-policy", "copy", "-q", "--all", f"--dest-tls-verify={'true' if tls else 'false'}"]
        if login:
            words += ["--dest-creds", f"{NAME}:{PASSWORD}"]
        run = ["skopeo", *words, f"oci:{layout}:x", f"docker://{self.address}/{name}"]
        subprocess.run(run, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def start_registry(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Callable[..., DebianRegistry]]:
    """Start Debian's docker-registry on a port of loopback: ``start_registry(tls=…, login=…)``."""
    started = []

    def start(*, tls: bool = False, login: bool = False, host: str = "127.0.0.1") -> DebianRegistry:
        top = tmp_path_factory.mktemp("registry")
        with socket.socket() as probe:
            probe.bind((host, 0))
            address = f"{host}:{probe.getsockname()[1]}"
        http: dict[str, Any] = {"addr": address}
        if tls:
            http["tls"] = {"certificate": f"{authority.path}/server.cert", "key": f"{authority.path}/server.key"}
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(top / "data")}, "delete": {"enabled": True}},
            "http": http,
        }
        if login:
            (top / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(top / "htpasswd")}}
        (top / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        log = (top / "log").open("wb")
        process = subprocess.Popen(["docker-registry", "serve", str(top / "config.yml")], stdout=log, stderr=log)
        started.append(process)
        host, _, port = address.partition(":")
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return DebianRegistry(address=address)
            assert process.poll() is None, (top / "log").read_text()
            time.sleep(0.02)
        raise AssertionError((top / "log").read_text())

    yield start
    for process in started:
        process.kill()
        process.wait()
