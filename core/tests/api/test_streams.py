"""Attach, exec, logs, wait, events and archives of real containers, over raw sockets."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import select
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Served
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection
from wsproto.events import Request as Opening

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


class Wire:
    """A raw connection to the server."""

    def __init__(self, served: Served, request: str, body: bytes = b"", headers: str = "", version: str = "1.50"):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(15)
        self.sock.connect(str(served.socket))
        method, _, target = request.partition(" ")
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = f"{method} /v{version}{target} HTTP/1.1\r\nHost: x\r\n{headers}{length}\r\n"
        self.sock.sendall(head.encode() + body)

    def head(self) -> str:
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += self.sock.recv(1)
        return got.decode()

    def until(self, wanted: bytes) -> bytes:
        got = b""
        while wanted not in got:
            piece = self.sock.recv(65536)
            assert piece, f"the stream ended before {wanted!r}: {got!r}"
            got += piece
        return got

    def rest(self) -> bytes:
        got = bytearray()
        while piece := self.sock.recv(65536):
            got += piece
        return bytes(got)

    def reply(self) -> tuple[int, bytes]:
        response = http.client.HTTPResponse(self.sock)
        response.begin()
        return response.status, response.read()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        stream, length = struct.unpack(">BxxxI", data[:8])
        found.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


def joined(data: bytes, stream: int = 1) -> bytes:
    return b"".join(piece for number, piece in frames(data) if number == stream)


class Box:
    """One container of the served engine."""

    def __init__(self, served: Served, command: str, **config: Any) -> None:
        self.served = served
        document = {"Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": {"NetworkMode": "none"}, **config}
        made = served.api("POST", "/containers/create", document)
        assert made.status == 201, made
        self.id = made.document["Id"]

    def start(self) -> Box:
        assert self.served.api("POST", f"/containers/{self.id}/start").status == 204
        return self

    def attach(self, query: str = "stream=1&stdout=1&stderr=1", headers: str = UPGRADE, **options: Any) -> Wire:
        return Wire(self.served, f"POST /containers/{self.id}/attach?{query}", headers=headers, **options)

    def exec(self, command: list[str], body: bytes = b'{"Detach": false}', **config: Any) -> tuple[Wire, str]:
        exec_id = self.exec_create(command, **config)
        return Wire(self.served, f"POST /exec/{exec_id}/start", body, UPGRADE), exec_id

    def exec_create(self, command: list[str], **config: Any) -> str:
        document = {"Cmd": command, "AttachStdout": True, "AttachStderr": True, **config}
        made = self.served.api("POST", f"/containers/{self.id}/exec", document)
        assert made.status == 201, made
        exec_id: str = made.document["Id"]
        return exec_id

    def exec_ended(self, exec_id: str) -> int:
        deadline = time.monotonic() + 5
        while (document := self.served.api("GET", f"/exec/{exec_id}/json").document)["Running"]:
            assert time.monotonic() < deadline
        code: int = document["ExitCode"]
        return code

    def remove(self) -> None:
        self.served.api("DELETE", f"/containers/{self.id}?force=1")


@pytest.fixture
def box(served: Served) -> Iterator[Any]:
    made: list[Box] = []

    def make(command: str, **config: Any) -> Box:
        made.append(Box(served, command, **config))
        return made[-1]

    yield make
    for container in made:
        container.remove()


STDIN = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}


# Attach


@pytest.mark.parametrize(("version", "kind"), [("1.41", RAW), ("1.42", MULTIPLEXED)])
def test_attach_before_the_start_misses_nothing(box: Any, version: str, kind: str) -> None:
    container = box("echo out; echo err >&2")
    with container.attach(version=version) as wire:
        assert wire.head() == (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        container.start()
        got = wire.rest()
    assert (joined(got, 1), joined(got, 2)) == (b"out\n", b"err\n")


def test_attach_as_of_old(box: Any) -> None:
    container = box("echo out")
    with container.attach(headers="") as wire:
        assert wire.head() == f"HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\n\r\n"
        container.start()
        assert joined(wire.rest()) == b"out\n"


def test_input_that_comes_with_the_request_and_the_end_of_input(box: Any) -> None:
    container = box("cat; echo end", **STDIN)
    with container.attach("stream=1&stdin=1&stdout=1") as wire:
        wire.sock.sendall(b"early\n")
        wire.head()
        container.start()
        wire.until(b"early\n")
        wire.sock.sendall(b"late\n")
        wire.sock.shutdown(socket.SHUT_WR)
        assert joined(wire.rest()) == b"late\nend\n"


def test_input_in_the_same_packet(box: Any, served: Served) -> None:
    container = box("cat", **STDIN).start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(served.socket))
        data = bytes(range(256)) * 100
        sock.sendall(
            f"POST /containers/{container.id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            + data
        )
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while piece := sock.recv(65536):
            got += piece
    assert joined(got.partition(b"\r\n\r\n")[2]) == data


def test_a_terminal_is_raw_and_detach_keys_end_the_session(box: Any, served: Served) -> None:
    container = box("cat", Tty=True, OpenStdin=True).start()
    with container.attach("stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,x") as wire:
        assert RAW in wire.head()
        wire.sock.sendall(b"hello\n")
        wire.until(b"hello\r\nhello\r\n")
        wire.sock.sendall(b"\x01x")
        assert wire.rest() == b""
    assert served.api("GET", f"/containers/{container.id}/json").document["State"]["Running"]


def test_logs_come_before_what_is_live(box: Any) -> None:
    container = box("echo before; read line; echo $line", **STDIN).start()
    time.sleep(0.3)
    with container.attach("logs=1&stream=1&stdin=1&stdout=1") as wire:
        wire.until(b"before\n")
        wire.sock.sendall(b"after\n")
        assert joined(wire.rest()) == b"after\n"
    with container.attach("logs=1&stdout=1") as wire:
        wire.head()
        assert joined(wire.rest()) == b"before\nafter\n"


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        ("/containers/none/attach?stream=1", 404, "No such container: none"),
        ("/containers/{id}/attach?stream=1&detachKeys=ctrl-aa", 400, "invalid detach keys"),
        ("/exec/none/start", 404, "No such exec instance: none"),
        ("/containers/{id}/attach?stream=1", 409, "is paused, unpause the container before attach"),
    ],
)
def test_what_cannot_begin_is_an_ordinary_error(
    box: Any, served: Served, target: str, status: int, message: str
) -> None:
    container = box("sleep 60").start()
    if status == 409:
        served.api("POST", f"/containers/{container.id}/pause")
    with Wire(served, "POST " + target.format(id=container.id), b"{}", UPGRADE) as wire:
        found, body = wire.reply()
    assert found == status
    assert message in json.loads(body)["message"]


def test_a_reader_that_does_not_read_loses_nothing(box: Any) -> None:
    container = box("dd if=/dev/zero bs=1M count=8 2>/dev/null")
    with container.attach() as wire:
        wire.head()
        container.start()
        time.sleep(0.5)
        assert len(joined(wire.rest())) == 8 << 20


def test_hundreds_of_idle_sessions(box: Any, served: Served) -> None:
    container = box("cat", OpenStdin=True).start()
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(container.attach("stream=1&stdin=1&stdout=1")) for _ in range(300)]
        for wire in wires:
            wire.head()
        wires[7].sock.sendall(b"all of you\n")
        for wire in wires:
            wire.until(b"all of you\n")
    with container.attach("stream=1&stdin=1&stdout=1") as wire:
        wire.head()
        wire.sock.sendall(b"still there\n")
        wire.until(b"still there\n")


def test_sizes_of_terminals(box: Any, served: Served) -> None:
    container = box("read x; stty size", Tty=True, OpenStdin=True).start()
    assert served.api("POST", f"/containers/{container.id}/resize?h=33&w=99").status == 200
    with container.attach("stream=1&stdin=1&stdout=1") as wire:
        wire.sock.sendall(b"\n")
        wire.until(b"33 99")
    assert served.api("POST", f"/containers/{container.id}/resize?h=a&w=99").status == 400
    assert served.api("POST", "/exec/none/resize?h=1&w=2").status == 404


# Websockets


def test_a_websocket(box: Any, served: Served) -> None:
    container = box("cat", **STDIN).start()
    client = WSConnection(ConnectionType.CLIENT)
    opening = client.send(
        Opening(host="x", target=f"/v1.50/containers/{container.id}/attach/ws?stream=1&stdin=1&stdout=1")
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(served.socket))
        sock.sendall(opening)
        got = b""
        sent = closed = False
        while not closed:
            data = sock.recv(65536)
            client.receive_data(data or None)
            for event in client.events():
                if isinstance(event, AcceptConnection) and not sent:
                    sock.sendall(client.send(BytesMessage(data=b"through a websocket")))
                    sent = True
                elif isinstance(event, BytesMessage):
                    got += bytes(event.data)
                    if got == b"through a websocket":
                        served.api("POST", f"/containers/{container.id}/kill")
                elif isinstance(event, CloseConnection):
                    closed = True
    assert got == b"through a websocket"


def test_what_is_no_websocket(box: Any, served: Served) -> None:
    container = box("cat", **STDIN).start()
    assert served.api("GET", f"/containers/{container.id}/attach/ws?stream=1").status == 400


# Exec


def test_exec_with_streams(box: Any) -> None:
    container = box("sleep 60").start()
    wire, exec_id = container.exec(["sh", "-c", "cat; echo err >&2; exit 5"], AttachStdin=True)
    with wire:
        assert f"101 UPGRADED\r\nContent-Type: {MULTIPLEXED}" in wire.head()
        wire.sock.sendall(b"input")
        wire.sock.shutdown(socket.SHUT_WR)
        got = wire.rest()
    assert (joined(got, 1), joined(got, 2)) == (b"input", b"err\n")
    assert container.exec_ended(exec_id) == 5


def test_exec_detached(box: Any, served: Served) -> None:
    container = box("sleep 60").start()
    exec_id = container.exec_create(["sh", "-c", "exit 3"])
    assert served.api("POST", f"/exec/{exec_id}/start", {"Detach": True}).status == 200
    assert container.exec_ended(exec_id) == 3


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_be_executed_is_told_in_the_stream(box: Any, command: str, code: int) -> None:
    container = box("sleep 60").start()
    wire, exec_id = container.exec([command])
    with wire:
        wire.head()
        told = joined(wire.rest())
    assert told.startswith(b"OCI runtime exec failed: exec failed: unable to start container process: exec: ")
    assert told.endswith(b"\r\n")
    assert container.exec_ended(exec_id) == code


def test_an_exec_runs_once(box: Any, served: Served) -> None:
    container = box("sleep 60").start()
    wire, exec_id = container.exec(["true"])
    with wire:
        wire.head()
        wire.rest()
    with Wire(served, f"POST /exec/{exec_id}/start", b"{}", UPGRADE) as wire:
        status, body = wire.reply()
    assert (status, json.loads(body)["message"]) == (409, f"Error: Exec command {exec_id} has already run")


def test_exec_in_a_terminal_of_the_wanted_size(box: Any) -> None:
    container = box("sleep 60").start()
    wire, _ = container.exec(["stty", "size"], b'{"Tty": true, "ConsoleSize": [21, 77]}', Tty=True)
    with wire:
        assert RAW in wire.head()
        assert wire.rest() == b"21 77\r\n"


@pytest.mark.parametrize(("body", "framed"), [(b"{}", True), (b'{"tty": true}', False)])
def test_the_start_of_an_exec_says_whether_its_output_is_framed(box: Any, body: bytes, framed: bool) -> None:
    container = box("sleep 60").start()
    wire, _ = container.exec(["echo", "hello"], body, Tty=True)
    with wire:
        assert (MULTIPLEXED if framed else RAW) in wire.head()
        got = wire.rest()
    assert (joined(got) if framed else got) == b"hello\r\n"


def test_the_head_is_there_alone_for_a_moment(box: Any) -> None:
    container = box("sleep 60").start()
    wire, _ = container.exec(["echo", "hello"])
    with wire:
        time.sleep(0.03)
        assert wire.sock.recv(65536).endswith(b"\r\n\r\n")
        assert joined(wire.rest()) == b"hello\n"


def test_output_comes_though_the_head_is_not_read(box: Any) -> None:
    container = box("echo hello")
    with container.attach() as wire:
        select.select([wire.sock], [], [], 5)  # attached before the start
        container.start()
        time.sleep(0.3)
        said = b"".join(iter(lambda: wire.sock.recv(65536), b""))
        assert joined(said.partition(b"\r\n\r\n")[2]) == b"hello\n"


def test_starting_at_once_after_an_attach_with_logs(box: Any) -> None:
    for _ in range(5):
        container = box("echo hello")
        with container.attach("logs=1&stream=1&stdout=1") as wire:
            wire.head()
            container.start()
            assert joined(wire.rest()) == b"hello\n"


# Waiting


def test_wait_answers_at_once_and_tells_the_end_later(box: Any, served: Served) -> None:
    container = box("read x; exit 9", OpenStdin=True)
    with Wire(served, f"POST /containers/{container.id}/wait?condition=next-exit") as wire:
        assert wire.head().startswith("HTTP/1.1 200 OK")
        container.start()
        with container.attach("stream=1&stdin=1") as session:
            session.sock.sendall(b"\n")
            wire.until(b'{"StatusCode": 9}\n')
    assert served.api("POST", f"/containers/{container.id}/wait").document == {"StatusCode": 9}


def test_wait_for_the_removal(box: Any, served: Served) -> None:
    container = box("exit 4", HostConfig={"NetworkMode": "none", "AutoRemove": True})
    with Wire(served, f"POST /containers/{container.id}/wait?condition=removed") as wire:
        wire.head()
        container.start()
        wire.until(b'{"StatusCode": 4}\n')
    assert served.api("GET", f"/containers/{container.id}/json").status == 404


def test_wait_for_what_is_not_there(box: Any, served: Served) -> None:
    assert served.api("POST", "/containers/none/wait").status == 404
    container = box("true")
    answer = served.api("POST", f"/containers/{container.id}/wait?condition=sunset")
    assert (answer.status, answer.document["message"]) == (400, 'invalid condition: "sunset"')


# Logs


def test_logs_in_all_their_forms(box: Any, served: Served) -> None:
    container = box("for i in 1 2 3; do echo line $i; done; echo bad >&2").start()
    served.api("POST", f"/containers/{container.id}/wait")

    def logs(query: str, version: str = "1.50") -> bytes:
        answer = served.api.at(version)("GET", f"/containers/{container.id}/logs?{query}")
        assert answer.status == 200, answer
        assert answer.headers["content-type"] == (RAW if version == "1.41" else MULTIPLEXED)
        return answer.body

    assert frames(logs("stdout=1"))[0] == (1, b"line 1\n")
    assert joined(logs("stdout=1&stderr=1", "1.41"), 2) == b"bad\n"
    assert joined(logs("stdout=1&stderr=1&tail=2&follow=1")) == b"line 3\n"
    assert joined(logs("stdout=1&tail=all")) == b"line 1\nline 2\nline 3\n"
    stamped = joined(logs("stdout=1&timestamps=1&tail=4")).split()[0].decode()
    assert len(stamped) == len("2026-01-01T00:00:00.000000000Z")
    assert logs(f"stdout=1&since={time.time() + 60:.3f}") == b""
    assert logs("stdout=1&until=1.5") == b""
    assert served.api("GET", f"/containers/{container.id}/logs").status == 400
    assert served.api("GET", f"/containers/{container.id}/logs?stdout=1&since=noon").status == 400
    assert served.api("GET", "/containers/none/logs?stdout=1").status == 404


def test_following_ends_with_the_container(box: Any, served: Served) -> None:
    container = box("for i in 1 2 3; do echo $i; sleep 0.1; done; printf end").start()
    begin = time.monotonic()
    answer = served.api("GET", f"/containers/{container.id}/logs?stdout=1&follow=1")
    assert joined(answer.body) == b"1\n2\n3\nend"
    assert time.monotonic() - begin < 5


def test_followers_that_leave_are_forgotten(box: Any, served: Served) -> None:
    container = box("while :; do echo x; sleep 0.02; done").start()
    before = _descriptors(served)
    for _ in range(50):
        with Wire(served, f"GET /containers/{container.id}/logs?stdout=1&follow=1") as wire:
            wire.until(b"x\n")
    _until(lambda: _descriptors(served) <= before + 40)  # the threads of the pool keep their databases open for a while


def _descriptors(served: Served) -> int:
    return len(os.listdir(f"/proc/{served._process.pid}/fd"))


# Events, counters


def test_events_are_told_as_they_happen(box: Any, served: Served) -> None:
    container = box("true")
    filters = json.dumps({"container": [container.id], "event": ["start", "die"]})
    with Wire(served, f"GET /events?filters={filters.replace(' ', '')}") as wire:
        assert wire.head().startswith("HTTP/1.1 200 OK")
        container.start()
        wire.until(b'"die"')
    past = served.api("GET", f"/events?since=1&until={time.time() + 0.01:.3f}&filters={filters.replace(' ', '')}").lines
    assert [event["Action"] for event in past] == ["start", "die"]
    assert served.api("GET", "/events?since=x").status == 400


def test_counters(box: Any, served: Served) -> None:
    container = box("sleep 60").start()
    document = served.api("GET", f"/containers/{container.id}/stats?stream=0&one-shot=1").document
    assert document["id"] == container.id
    with Wire(served, f"GET /containers/{container.id}/stats") as wire:
        wire.until(b'"precpu_stats"')
    assert served.api("GET", f"/containers/{container.id}/stats?one-shot=1").status == 400
    assert served.api("GET", "/containers/none/stats").status == 404


# Archives


def test_archives_both_ways(box: Any, served: Served) -> None:
    container = box("sleep 60").start()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("large")
        entry.size = 3_000_000
        tar.addfile(entry, io.BytesIO(bytes(3_000_000)))
    target = f"/containers/{container.id}/archive?path="
    assert served.api("PUT", target + "/tmp", packed.getvalue()).status == 200
    answer = served.api("GET", target + "/tmp/large")
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert [(entry.name, entry.size) for entry in tar] == [("large", 3_000_000)]
    head = served.api("HEAD", target + "/tmp/large")
    stat = json.loads(base64.b64decode(head.headers["x-docker-container-path-stat"]))
    assert (head.status, head.body, stat["name"], stat["size"]) == (200, b"", "large", 3_000_000)
    assert served.api("GET", target + "/none").status == 404
    assert served.api("PUT", target + "/none", packed.getvalue()).status == 404
    assert served.api("GET", target).status == 400


def test_a_client_that_leaves_in_the_middle_of_an_archive(box: Any, served: Served) -> None:
    container = box("sleep 60").start()
    before = threading.active_count()
    for _ in range(5):
        headers = "Content-Length: 100000\r\n"
        with Wire(served, f"PUT /containers/{container.id}/archive?path=/tmp", headers=headers) as wire:
            wire.sock.sendall(bytes(1000))
    assert served.api("GET", f"/containers/{container.id}/json").status == 200
    assert threading.active_count() == before
    assert "Traceback" not in served.log


def test_export(box: Any, served: Served) -> None:
    container = box("true")
    answer = served.api("GET", f"/containers/{container.id}/export")
    assert answer.status == 200
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert "bin/busybox" in {name.removeprefix("./") for name in tar.getnames()}


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
