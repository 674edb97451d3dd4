"""The engine behind a socket: what it sends, what it makes of answers, and how it treats connections."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from peer import Peer, answer, chunks

from dockp.containers.model import Config, CreateRequest, ExecConfig, HostConfig
from dockp.remote import connect
from dockp.remote.endpoint import Endpoint
from dockp.remote.engine import RemoteEngine
from dockp.spi import errors
from dockp.spi.logs import LogEntry

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
RAW, FRAMED = b"application/vnd.docker.raw-stream", b"application/vnd.docker.multiplexed-stream"


def test_the_newest_version_that_both_know_is_used(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("GET /info", answer(b'{"ID": "x"}'))
    assert engine.system.info() == {"ID": "x"}
    assert [target for _, target, _ in peer.requests] == ["/_ping", "/v1.44/info"]
    peer.on("HEAD /_ping", answer(b"", "200 OK", "Api-Version: 1.99"))
    peer.on("GET /info", answer(b"{}"))
    with connect(peer.host) as newer:
        newer.system.info()
    assert peer.requests[-1][1] == "/v1.50/info"


def test_a_version_that_was_asked_for_needs_no_ping(peer: Peer) -> None:
    peer.on("GET /info", answer(b"{}"))
    with connect(peer.host, api_version="1.30") as engine:
        engine.system.info()
    assert [target for _, target, _ in peer.requests] == ["/v1.30/info"]


def test_a_server_that_is_too_old_is_refused(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("HEAD /_ping", answer(b"", "200 OK", "Api-Version: 1.12"))
    with pytest.raises(errors.InvalidArgument, match=r"API version 1\.12; the oldest supported is 1\.24"):
        engine.system.info()


def test_one_connection_serves_call_after_call(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("GET /containers/json", *[answer(b"[]")] * 3)
    for _ in range(3):
        engine.containers.list()
    assert peer.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("GET /info", lambda connection: connection.sendall(answer(b"{}")), answer(b'{"ID": "second"}'))
    engine.system.info()
    time.sleep(0.1)
    assert engine.system.info() == {"ID": "second"}


@pytest.mark.parametrize(
    ("status", "header", "error"),
    [
        ("304 Not Modified", "", errors.NotModified),
        ("400 Bad Request", "", errors.InvalidArgument),
        ("403 Forbidden", "", errors.Forbidden),
        ("404 Not Found", "", errors.NotFound),
        ("409 Conflict", "", errors.Conflict),
        ("409 Conflict", "X-Dockp-Error: AlreadyExists", errors.AlreadyExists),
        ("409 Conflict", "X-Dockp-Error: Exception", errors.Conflict),
        ("500 Internal Server Error", "", errors.SystemFault),
        ("501 Not Implemented", "", errors.NotImplemented),
        ("503 Service Unavailable", "", errors.Unavailable),
    ],
)
def test_errors_come_back_as_the_classes_they_were(
    peer: Peer, engine: RemoteEngine, status: str, header: str, error: type[Exception]
) -> None:
    body = b"" if status.startswith("304") else b'{"message": "it is so"}'
    peer.on("POST /containers/box/stop", answer(body, status, *([header] if header else [])))
    with pytest.raises(error) as raised:
        engine.containers.stop("box")
    assert type(raised.value) is error
    if body:
        assert str(raised.value) == "it is so"


@pytest.mark.parametrize(
    ("header", "message", "kind"),
    [
        ("X-Dockp-Error: StartFailure/not-executable", "no", "not-executable"),
        ("", 'exec: "x": executable file not found in $PATH', "not-found"),
        ("", 'exec: "/etc": permission denied', "not-executable"),
    ],
)
def test_why_a_command_did_not_start_is_known(
    peer: Peer, engine: RemoteEngine, header: str, message: str, kind: str
) -> None:
    body = json.dumps({"message": message}).encode()
    peer.on("POST /containers/box/start", answer(body, "400 Bad Request", *([header] if header else [])))
    with pytest.raises(errors.StartFailure) as raised:
        engine.containers.start("box")
    assert raised.value.kind == kind


def test_what_is_not_set_is_not_sent(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("POST /containers/create", answer(b'{"Id": "abc", "Warnings": null}', "201 Created"))
    request = CreateRequest(name="box", config=Config(image="busybox", cmd=("true",)), host=HostConfig(memory=1 << 30))
    assert engine.containers.create(request).id == "abc"
    _, target, body = peer.requests[-1]
    assert target == "/v1.44/containers/create?name=box"
    document = json.loads(body)
    assert (document["Image"], document["Cmd"]) == ("busybox", ["true"])
    assert document["HostConfig"]["Memory"] == 1 << 30
    assert "StorageDriver" not in document["HostConfig"]


def test_a_storage_driver_is_not_passed_over_by_another_engine(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("GET /version", answer(b'{"Platform": {"Name": "Docker Engine"}}'))
    with pytest.raises(errors.NotImplemented, match="Docker Engine does not know it"):
        engine.containers.create(CreateRequest(host=HostConfig(storage_driver="vfs")))


def test_names_and_parameters_are_quoted(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("GET /containers/a%2F..%3Fb/json", answer(b"{}"))
    engine.containers.inspect("a/..?b")
    peer.on("POST /images/create", chunks(b'{"status":"sha256:1"}\r\n'))
    assert engine.images.import_(io.BytesIO(b"tar"), changes=["CMD a&b", "ENV x=1"]) == "sha256:1"
    _, target, body = peer.requests[-1]
    assert target == "/v1.44/images/create?fromSrc=-&changes=CMD%20a%26b&changes=ENV%20x%3D1"
    assert body == b"3\r\ntar\r\n0\r\n\r\n"


def test_progress_is_told_and_failure_raised(peer: Peer, engine: RemoteEngine) -> None:
    peer.on(
        "POST /images/create",
        chunks(
            b'{"status":"Downloading","id":"abc","progressDetail":{"current":5,"to', b'tal":10}}\r\n',
            b'{"errorDetail":{"message":"no such host"},"error":"no such host"}\r\n',
        ),
    )  # fmt: skip
    told: list[tuple[str, int, int | None]] = []
    with pytest.raises(errors.SystemFault, match="no such host"):
        engine.images.pull("busybox", progress=lambda *what: told.append(what))
    assert told == [("abc: Downloading", 5, 10)]
    assert peer.requests[-1][1] == "/v1.44/images/create?fromImage=busybox&tag=latest"


def test_logs_are_entries(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("GET /containers/box/json", answer(b'{"Config": {"Tty": false}}'))
    first, second = b"2024-01-02T03:04:05.5Z out\n", b"1970-01-01T00:00:01Z err"
    frame = b"\1\0\0\0\0\0\0" + bytes([len(first)]) + first + b"\2\0\0\0\0\0\0" + bytes([len(second)]) + second
    peer.on("GET /containers/box/logs", chunks(frame[:5], frame[5:20], frame[20:]))
    assert list(engine.containers.logs("box", since=1_500_000_000)) == [
        LogEntry(time=1704164645_500000000, stream="stdout", data=b"out\n"),
        LogEntry(time=1_000_000_000, stream="stderr", data=b"err"),
    ]
    assert "since=1.500000000" in peer.requests[-1][1]


def test_a_stream_of_events_ends_by_close_in_another_thread(peer: Peer, engine: RemoteEngine) -> None:
    wait = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(chunks(b'{"Action": "start"}\n').removesuffix(b"0\r\n\r\n"))
        wait.wait(10)

    peer.on("GET /events", talk)
    events = engine.system.events()
    assert next(events) == {"Action": "start"}
    threading.Timer(0.1, events.close).start()  # type: ignore[attr-defined]
    assert list(events) == []
    wait.set()


def test_an_answer_that_is_cut_short_is_an_error(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("GET /info", lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"))
    with pytest.raises(errors.SystemFault, match="cut short"):
        engine.system.info()


def test_what_is_no_http_is_an_error(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("HEAD /_ping", lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n"))
    with pytest.raises(errors.SystemFault, match="no HTTP"):
        engine.system.info()


def test_attach_is_a_stream_that_can_be_half_closed_and_polled(peer: Peer, engine: RemoteEngine) -> None:
    def talk(connection: socket.socket) -> None:
        # Output right behind the headers must not get stuck in a buffer that poll(2) does not see.
        connection.sendall(UPGRADED % FRAMED + b"early")
        received = b""
        while piece := connection.recv(100):
            received += piece
        connection.sendall(b" got " + received)

    peer.on("POST /containers/box/attach", talk)
    stream = engine.containers.attach("box", stdin=True, stdout=True, stderr=True)
    assert stream.send(b"input\x10\x11") == 7  # the detach keys mean nothing without a terminal
    stream.close_stdin()
    with socket.socket(fileno=socket.dup(stream.fileno())) as polled:
        assert polled.recv(5, socket.MSG_PEEK) == b"early"
    out = b""
    while piece := stream.recv(100):
        out += piece
    assert out == b"early got input\x10\x11"
    assert stream.wait_end() == "exit"
    stream.close()


def test_the_detach_keys_end_the_stream_of_a_terminal(peer: Peer, engine: RemoteEngine) -> None:
    received: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(UPGRADED % RAW)
        while piece := connection.recv(100):
            received.append(piece)

    peer.on("POST /containers/box/attach", talk)
    stream = engine.containers.attach("box", stdin=True, stdout=True, stderr=True)
    for typed in (b"ls\x10", b"x", b"\x10", b"\x11"):
        assert stream.send(typed) == len(typed)
    assert stream.recv(100) == b""
    assert stream.wait_end() == "detach"
    time.sleep(0.05)
    assert b"".join(received) == b"ls\x10x"
    stream.close()


def test_a_refused_attach_is_an_error(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("POST /containers/box/attach", answer(b'{"message": "No such container: box"}', "404 Not Found"))
    with pytest.raises(errors.NotFound, match="No such container: box"):
        engine.containers.attach("box", stdin=False, stdout=True, stderr=True)


def test_the_end_of_an_exec_is_waited_for(peer: Peer, engine: RemoteEngine) -> None:
    peer.on("POST /containers/box/exec", answer(b'{"Id": "e"}', "201 Created"))
    peer.on("GET /exec/e/json", answer(b'{"Running": true, "ExitCode": null}'), answer(b'{"ExitCode": 4}'))
    assert engine.containers.exec_wait(engine.containers.exec_create("box", ExecConfig(cmd=("true",)))) == 4


def test_a_wait_begins_before_it_is_awaited(peer: Peer, engine: RemoteEngine) -> None:
    peer.on(
        "POST /containers/box/wait",
        lambda connection: (
            connection.sendall(chunks(b'{"StatusCode": 3}').removesuffix(b'11\r\n{"StatusCode": 3}\r\n0\r\n\r\n')),
            time.sleep(0.1),
            connection.sendall(b'11\r\n{"StatusCode": 3}\r\n0\r\n\r\n'),
        )[-1],
    )
    end = engine.containers.begin_wait("box", "next-exit")
    assert peer.requests[-1][1] == "/v1.44/containers/box/wait?condition=next-exit"
    assert end().exit_code == 3


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(
        errors.Unavailable, match=r"Cannot connect to the Docker daemon at unix:///.*Is the docker daemon"
    ):
        connect(f"unix://{tmp_path}/nothing").system.info()


def test_headers_of_the_endpoint_go_with_every_request(peer: Peer) -> None:
    heard: list[bytes] = []
    peer.on("HEAD /_ping", lambda connection: None)
    endpoint = Endpoint(host=peer.host, headers={"X-Meta": "yes"})
    from dockp.remote import verbs
    from dockp.remote.http import Conversation

    heard.append(Conversation(endpoint).head(verbs.info(), (1, 50)))
    assert b"X-Meta: yes\r\n" in heard[0]
    assert heard[0].startswith(b"GET /v1.50/info HTTP/1.1\r\n")
