"""Connections: HTTP as clients speak it, and as they should not. The handlers here stand for no engine."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dockp.api.messages import Hijack, RawConnection, Reply, Request
from dockp.api.routing import Route, Router
from dockp.api.server import ApiServer
from dockp.api.services import ApiServices
from dockp.spi.errors import Conflict, NotModified

HEAD_TIMEOUT = 1.0


class Lab:
    """A server in a thread of its own, on a unix socket; ``ends`` records how handlers ended."""

    def __init__(self, base: Path) -> None:
        self.path = str(base / "api.sock")
        self.ends: list[str] = []
        self.listeners = 0
        """Sockets that a test had it listen on besides."""
        self.loop = asyncio.new_event_loop()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        routes = [
            Route("GET", "/ping", self.ping),
            Route("POST", "/echo", self.echo),
            Route("POST", "/count", self.count),
            Route("POST", "/read", self.read),
            Route("POST", "/ignore", self.ignore),
            Route("GET", "/flood", self.flood),
            Route("GET", "/endless", self.endless),
            Route("GET", "/sleep", self.sleep),
            Route("GET", "/bug", self.bug),
            Route("GET", "/conflict", self.conflict),
            Route("GET", "/same", self.same),
            Route("POST", "/hijack", self.hijack),
            Route("POST", "/hijack/refused", self.hijack_refused),
        ]
        self.services = ApiServices(None)  # type: ignore[arg-type]
        self.server = ApiServer(self.services, Router(routes), head_timeout=HEAD_TIMEOUT)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.do(self.server.serve([self.listener]))

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def close(self) -> None:
        self.do(self.server.close(0.5))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    # What is served

    async def ping(self, request: Request) -> Reply:
        return Reply(content=b"OK", content_type="text/plain; charset=utf-8")

    async def echo(self, request: Request) -> Reply:
        return Reply(document=await request.json())

    async def count(self, request: Request) -> Reply:
        total = 0
        async for piece in request.body:
            total += len(piece)
        return Reply(document=total)

    async def read(self, request: Request) -> Reply:
        def work(file: Any) -> int:
            with file:
                return sum(len(piece) for piece in iter(lambda: file.read(100_000), b""))

        try:
            return Reply(document=await request.services.run_long(work, request.body.file()))
        except OSError:
            self.ends.append("read: gone")
            raise

    async def ignore(self, request: Request) -> Reply:
        return Reply(document="ignored")

    async def flood(self, request: Request) -> Reply:
        async def body() -> AsyncGenerator[bytes, None]:
            try:
                for _ in range(1000):
                    yield bytes(100_000)
            finally:
                self.ends.append("flood")

        return Reply(content=body(), content_type="application/octet-stream")

    async def endless(self, request: Request) -> Reply:
        async def body() -> AsyncGenerator[bytes, None]:
            try:
                yield b"first\n"
                await asyncio.sleep(600)
            finally:
                self.ends.append("endless")

        return Reply(content=body())

    async def sleep(self, request: Request) -> Reply:
        try:
            await asyncio.sleep(float(request.query.text("for", "600")))
            return Reply(document="slept")
        finally:
            self.ends.append("sleep")

    async def bug(self, request: Request) -> Reply:
        raise KeyError("secret")

    async def conflict(self, request: Request) -> Reply:
        raise Conflict("it is taken")

    async def same(self, request: Request) -> Reply:
        raise NotModified("already")

    async def hijack(self, request: Request) -> Hijack:
        async def take(raw: RawConnection) -> None:
            handover = raw.handover()
            threading.Thread(target=_shout, args=(os.dup(handover.descriptor), raw.head, handover.early)).start()
            handover.close()

        return Hijack(take=take)

    async def hijack_refused(self, request: Request) -> Hijack:
        async def take(raw: RawConnection) -> None:
            raw.handover().close()
            raise Conflict("paused")

        return Hijack(take=take)


def _shout(descriptor: int, head: bytes, early: bytes) -> None:
    """Answers in capitals until the input ends, then says so; as somebody who was given the socket would."""
    with socket.socket(fileno=descriptor) as sock, contextlib.suppress(OSError):
        sock.setblocking(True)
        sock.sendall(head + early.upper())
        while data := sock.recv(1000):
            sock.sendall(data.upper())
        sock.sendall(b"[end]")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    try:
        before = _descriptors()
        yield lab
        before += lab.listeners
        deadline = time.monotonic() + 5
        while lab.server.counters.open or _descriptors() > before:
            assert time.monotonic() < deadline, "connections or descriptors were left behind"
            time.sleep(0.02)
    finally:
        lab.close()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class _Kept:
    """A file that outlives the response that was read from it: the next is in the same buffer."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def close(self) -> None:
        pass


class Client:
    """A raw connection; every wait is bounded."""

    def __init__(self, lab: Lab, data: bytes = b"") -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(lab.path)
        self.file = self.sock.makefile("rb")
        self.send(data)

    def makefile(self, mode: str) -> _Kept:
        return _Kept(self.file)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the server, or the test, has enough
            self.sock.sendall(data)

    def reply(self, method: str = "GET") -> tuple[int, bytes, http.client.HTTPResponse]:
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return response.status, response.read(), response

    def rest(self) -> bytes:
        data = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := self.sock.recv(65536):
                data += piece
        return bytes(data)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()
        self.sock.close()


PING = b"GET /v1.44/ping HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_PING = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def ask(lab: Lab, head: str, body: bytes = b"") -> tuple[int, bytes, http.client.HTTPResponse]:
    with Client(lab, f"{head} HTTP/1.1\r\nHost: x\r\n".encode() + b"\r\n" + body) as client:
        return client.reply(head.split()[0])


def test_every_reply_has_dockers_headers(lab: Lab) -> None:
    status, body, response = ask(lab, "GET /ping")
    assert (status, body, response.reason) == (200, b"OK", "OK")
    assert response.headers["Api-Version"] == "1.50"
    assert response.headers["Docker-Experimental"] == "false"
    assert response.headers["Ostype"] == "linux"
    assert response.headers["Server"].startswith("Docker/")
    assert response.headers["Server"].endswith(" (linux)")
    assert response.headers["Date"]
    assert response.headers["Content-Length"] == "2"


def test_head_is_get_without_the_body(lab: Lab) -> None:
    status, body, response = ask(lab, "HEAD /ping")
    assert (status, body, response.headers["Content-Length"]) == (200, b"", "2")


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        ("/nothing", 404, "page not found"),
        ("/v1.44/nothing", 404, "page not found"),
        ("/v1.44ping", 404, "page not found"),
        ("/v" + "9" * 5000 + "/ping", 404, "page not found"),
        ("/v1.99/ping", 400, "client version 1.99 is too new. Maximum supported API version is 1.50"),
        (
            "/v1.12/ping",
            400,
            "client version 1.12 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("/bug", 500, None),
        ("/conflict", 409, "it is taken"),
    ],
)
def test_errors_are_documents_with_a_message(lab: Lab, target: str, status: int, message: str | None) -> None:
    found, body, response = ask(lab, f"GET {target}")
    assert found == status
    assert response.headers["Content-Type"] == "application/json"
    text = json.loads(body)["message"]
    assert text == message or (message is None and "secret" not in text and "\n" not in text)


@pytest.mark.parametrize(
    ("target", "place"),
    [("//ping?a=b", "/ping?a=b"), ("/v1.44/../ping", "/ping"), ("/x/%2e%2e/%2E/ping", "/ping"), ("/../..", "/")],
)
def test_tricks_in_paths_lead_elsewhere(lab: Lab, target: str, place: str) -> None:
    status, _, response = ask(lab, f"GET {target}")
    assert (status, response.headers["Location"]) == (301, place)


def test_another_method_is_another_page(lab: Lab) -> None:
    assert ask(lab, "DELETE /ping")[0] == 404


def test_not_modified_has_no_body(lab: Lab) -> None:
    with Client(lab, b"GET /same HTTP/1.1\r\nHost: x\r\n\r\n" + LAST_PING) as client:
        status, body, _ = client.reply()
        assert (status, body) == (304, b"")
        assert client.reply()[0] == 200


@pytest.mark.parametrize("version", ["1.24", "1.41", "1.50"])
def test_versions_in_the_path(lab: Lab, version: str) -> None:
    assert ask(lab, f"GET /v{version}/ping")[0] == 200


def test_a_proxys_absolute_form(lab: Lab) -> None:
    assert ask(lab, "GET http://docker/v1.44/ping")[0] == 200


def test_connections_are_kept(lab: Lab) -> None:
    with Client(lab) as client:
        for _ in range(5):
            client.send(PING)
            assert client.reply()[:2] == (200, b"OK")
    _until(lambda: lab.server.counters.requests["GET", 200] == 5)


def test_pipelined_requests_are_answered_in_order(lab: Lab) -> None:
    body = b'{"n": %d}'
    requests = b"".join(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n" + body % number for number in range(9)
    )
    with Client(lab, requests * 1 + LAST_PING) as client:
        got = client.rest()
    assert [got.index(b'{"n":%d}' % number) for number in range(9)] == sorted(
        got.index(b'{"n":%d}' % number) for number in range(9)
    )
    assert got.endswith(b"OK")


def test_many_pipelined_requests(lab: Lab) -> None:
    with Client(lab) as client:
        threading.Thread(target=client.send, args=(PING * 3000 + LAST_PING,), daemon=True).start()
        assert client.rest().count(b"HTTP/1.1 200 OK") == 3001


def test_a_request_byte_by_byte(lab: Lab) -> None:
    with Client(lab) as client:
        for byte in b'POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1}\r\n0\r\n\r\n':
            client.send(bytes((byte,)))
        assert client.reply()[:2] == (200, b'{"a":1}\n')


def test_an_old_http_version(lab: Lab) -> None:
    with Client(lab, b"GET /ping HTTP/1.0\r\n\r\n") as client:
        assert client.rest().endswith(b"\r\n\r\nOK")
    with Client(lab, b"GET /flood HTTP/1.0\r\n\r\n") as client:
        got = client.rest()
        assert b"chunked" not in got
        assert len(got) > 100_000_000


def test_who_expects_to_continue_is_told_to(lab: Lab) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n"
    with Client(lab, head) as client:
        assert client.sock.recv(1000).startswith(b"HTTP/1.1 100")
        client.send(b'{"a": 1}')
        assert client.reply()[:2] == (200, b'{"a":1}\n')


def test_who_expects_to_continue_is_not_told_to_for_nothing(lab: Lab) -> None:
    head = b"POST /ignore HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n"
    with Client(lab, head) as client:
        assert client.rest().startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("target", ["/count", "/read"])
def test_large_bodies(lab: Lab, target: str) -> None:
    piece = bytes(1 << 16)
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with Client(lab, head) as client:
        for _ in range(320):
            client.send(b"10000\r\n" + piece + b"\r\n")
        client.send(b"0\r\n\r\n" + LAST_PING)
        assert json.loads(client.reply()[1]) == 320 << 16
        assert client.reply()[0] == 200


def test_a_body_that_nobody_reads(lab: Lab) -> None:
    with Client(
        lab, b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + bytes(100_000)
    ) as client:
        status, body, response = client.reply()
        assert (status, body, response.headers["Connection"]) == (200, b'"ignored"\n', "close")
    with Client(lab, b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345" + LAST_PING) as client:
        assert client.reply()[:2] == (200, b'"ignored"\n')
        assert client.reply()[0] == 200


def test_json_that_is_none(lab: Lab) -> None:
    for body in (b"{", b"[]", b"\xff\xff", b"[" * 100_000):
        status, told, _ = ask(lab, f"POST /echo HTTP/1.1\r\nContent-Length: {len(body)}\r\nX: ", body)
        assert status == 400
        assert "message" in json.loads(told)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n\x00\x01\x02\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\n\r\n", 400),  # without Host
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123456789\r\n", 400),
        (b"GET /" + b"x" * (2 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (2 << 20) + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),  # TLS
    ],
)
def test_what_is_no_http_is_refused_and_the_connection_closed(lab: Lab, data: bytes, status: int) -> None:
    with Client(lab) as client:
        threading.Thread(target=client.send, args=(data,), daemon=True).start()
        got = client.rest()
    assert got.startswith(b"HTTP/1.1 %d" % status), got[:200]
    assert got.count(b"HTTP/1.1") == 1
    assert b"Traceback" not in got


def test_a_body_that_breaks_off_inside_a_thread(lab: Lab) -> None:
    with Client(lab, b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc"):
        pass
    _until(lambda: lab.services.long._free >= lab.services.long.threads)


def test_half_a_head_does_not_stay(lab: Lab) -> None:
    begin = time.monotonic()
    with Client(lab, b"GET /ping HTTP/1.1\r\nHo") as client:
        assert client.rest() == b""
    assert HEAD_TIMEOUT / 2 < time.monotonic() - begin < HEAD_TIMEOUT * 4


def test_an_idle_connection_does_stay(lab: Lab) -> None:
    with Client(lab, PING) as client:
        client.reply()
        time.sleep(HEAD_TIMEOUT * 1.5)
        client.send(PING)
        assert client.reply()[0] == 200


def test_a_client_that_leaves_ends_its_handler(lab: Lab) -> None:
    with Client(lab, b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n"):
        time.sleep(0.1)
    _until(lambda: lab.ends == ["sleep"])


def test_a_client_that_leaves_ends_its_stream(lab: Lab) -> None:
    with Client(lab, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        while b"first\n" not in client.sock.recv(1000):
            pass
    _until(lambda: lab.ends == ["endless"])


def test_who_only_stops_to_send_gets_the_reply(lab: Lab) -> None:
    with Client(lab, b"GET /sleep?for=0.3 HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        client.sock.shutdown(socket.SHUT_WR)
        assert client.reply()[:2] == (200, b'"slept"\n')


def test_a_slow_reader_holds_little(lab: Lab) -> None:
    """A hundred megabytes are made at the pace at which they are taken, and others are served meanwhile."""
    with Client(lab, b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        time.sleep(0.3)
        assert lab.ends == []
        assert ask(lab, "GET /ping")[0] == 200
        client.sock.recv(100_000)
    _until(lambda: lab.ends == ["flood"])


def test_a_thousand_idle_connections(lab: Lab) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(lab)) for _ in range(1000)]
        begin = time.monotonic()
        assert ask(lab, "GET /ping")[0] == 200
        assert time.monotonic() - begin < 2
        for client in clients[::50]:
            client.send(PING)
            assert client.reply()[0] == 200


def test_clients_that_leave_at_any_byte(lab: Lab) -> None:
    requests = [
        b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n",
        b'POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"a": 1}\r\n0\r\n\r\n',
        b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n" + bytes(20),
        b"POST /hijack HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nhello",
    ]
    for request in requests:
        for end in range(len(request) + 1):
            with Client(lab, request[:end]) as client:
                if end % 3 == 0:
                    client.sock.shutdown(socket.SHUT_WR)
                elif end % 3 == 1:
                    client.sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        client.sock.recv(10)
    assert ask(lab, "GET /ping")[0] == 200


def test_random_bytes(lab: Lab) -> None:
    chance = random.Random(7)
    pieces = [PING, b"\r\n", b"POST /echo HTTP/1.1\r\n", b"Content-Length: 3\r\n", b"Host: x\r\n", b"{}", b"0\r\n\r\n"]
    for _ in range(300):
        data = bytearray(b"".join(chance.choices(pieces, k=chance.randrange(1, 6))))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with Client(lab, bytes(data)) as client:
            client.sock.shutdown(socket.SHUT_WR)
            assert b" 500 " not in client.rest()


# Connections that leave HTTP


def test_a_stream_without_upgrade(lab: Lab) -> None:
    with Client(lab, b"POST /hijack HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}early ") as client:
        client.send(b"late")
        client.sock.shutdown(socket.SHUT_WR)
        head, _, rest = client.rest().partition(b"\r\n\r\n")
    assert head == b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream"
    assert rest == b"EARLY LATE[end]"


def test_a_stream_with_upgrade(lab: Lab) -> None:
    request = b"POST /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    with Client(lab, request) as client:
        head = client.sock.recv(1000)
        assert head == (
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        client.send(b"hello")
        assert client.sock.recv(1000) == b"HELLO"
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == b"[end]"


def test_a_stream_that_cannot_begin_is_an_ordinary_error(lab: Lab) -> None:
    status, body, _ = ask(lab, "POST /hijack/refused")
    assert (status, json.loads(body)) == (409, {"message": "paused"})


def test_a_stream_outlives_the_server(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with Client(lab, b"POST /hijack HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        assert client.sock.recv(1000)
        lab.close()
        client.send(b"still")
        assert client.sock.recv(1000) == b"STILL"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def secure(lab: Lab, tmp_path: Path, certificate: Path) -> Iterator[ssl.SSLSocket]:
    """A client's connection over TLS, on a unix socket too."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "tls.sock"))
    lab.do(lab.server.serve([listener], ours))
    lab.listeners += 1
    theirs = ssl.create_default_context()
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(10)
    plain.connect(str(tmp_path / "tls.sock"))
    with theirs.wrap_socket(plain) as client:
        yield client


def test_requests_over_tls(secure: ssl.SSLSocket) -> None:
    secure.sendall(LAST_PING)
    got = b""
    while piece := secure.recv(1000):
        got += piece
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert got.endswith(b"OK")


def test_streams_over_tls_are_pumped(secure: ssl.SSLSocket) -> None:
    secure.sendall(b"POST /hijack HTTP/1.1\r\nHost: x\r\n\r\nearly ")
    got = b""
    while b"EARLY " not in got:
        got += secure.recv(1000)
    data = bytes(range(65, 91)) * 40_000
    threading.Thread(target=secure.sendall, args=(data,), daemon=True).start()
    echoed = b""
    while len(echoed) < len(data):
        echoed += secure.recv(65536)
    assert echoed == data


# The server


def test_closing_waits_for_replies_and_for_no_idle_client(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with Client(lab, b"GET /sleep?for=0.3 HTTP/1.1\r\nHost: x\r\n\r\n") as busy, Client(lab) as idle:
        time.sleep(0.1)
        lab.do(lab.server.close(5))
        assert busy.reply()[:2] == (200, b'"slept"\n')
        assert idle.rest() == b""
    lab.close()


def test_closing_ends_what_does_not_end(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with Client(lab, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        time.sleep(0.1)
        begin = time.monotonic()
        lab.do(lab.server.close(0.2))
        assert time.monotonic() - begin < 2
        assert b"first" in client.rest()
    assert lab.ends == ["endless"]
    lab.close()


def test_work_that_waits_does_not_hold_up_what_is_short(lab: Lab) -> None:
    async def check() -> float:
        release = threading.Event()
        waiting = [asyncio.ensure_future(lab.services.run_long(release.wait, 10)) for _ in range(300)]
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        await asyncio.gather(*(lab.services.run(time.sleep, 0.001) for _ in range(100)))
        taken = time.monotonic() - begin
        release.set()
        await asyncio.gather(*waiting)
        return taken

    assert lab.do(check()) < 2


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
