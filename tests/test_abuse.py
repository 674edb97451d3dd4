"""Clients that are many, slow, broken or malicious: the daemon answers the others all along, and forgets them."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from apiclient import Client, Size, answering, request, shell
from harness import Daemon, Dockp, remains, wait_for

pytestmark = pytest.mark.embedded  # the daemon is this module's own


@pytest.fixture
def daemon(dockp: Dockp) -> Iterator[Daemon]:
    daemon = Daemon(dockp)
    daemon.log_path.unlink(missing_ok=True)
    with daemon, answering(daemon, 2.0):
        yield daemon
        dockp.clear()
        assert daemon.answers()
    assert "Traceback" not in daemon.log
    assert remains(dockp) == []


def started(daemon: Daemon, script: str, **wish: object) -> str:
    with Client(daemon.socket) as client:
        box = str(client.ok("POST", "/containers/create", shell(script) | wish)["Id"])
        client.ok("POST", f"/containers/{box}/start")
    return box


def connections(daemon: Daemon) -> int:
    """Open sockets. (Threads that have nothing to do keep files open for a while.)"""
    count = 0
    for entry in os.scandir(f"/proc/{daemon.pid}/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(entry.path).startswith("socket:")
    return count


def test_a_hundred_clients_at_once(daemon: Daemon) -> None:
    def whole_life(number: int) -> bytes:
        with Client(daemon.socket, 120) as client:
            box = client.ok("POST", "/containers/create", shell("sleep 1000"), name=f"abuse{number}")["Id"]
            client.ok("POST", f"/containers/{box}/start")
            wish = {"Cmd": ["echo", str(number)], "AttachStdout": True}
            exec_id = client.ok("POST", f"/containers/{box}/exec", wish)["Id"]
            with Client(daemon.socket, 120) as stream:
                stream.hijack(f"/exec/{exec_id}/start", {})
                said = stream.output()
            client.ok("DELETE", f"/containers/{box}", force=1)
            return said

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(whole_life, range(100))) == [b"%d\n" % number for number in range(100)]


def test_a_thousand_idle_attaches(daemon: Daemon) -> None:
    box = started(daemon, "sleep 1000", OpenStdin=True)
    before = Size.of(daemon)
    clients = []
    for _ in range(1000):
        client = Client(daemon.socket)
        client.hijack(f"/containers/{box}/attach", stream=1, stdout=1)
        clients.append(client)
    during = Size.of(daemon)
    for client in clients:
        client.close()
    assert during.descriptors < before.descriptors + 30  # they are the shim's
    assert during.memory < before.memory + 10_000
    time.sleep(1)
    after = Size.of(daemon)
    assert after.descriptors < before.descriptors + 30
    assert after.others < before.others + 5000, (before, during, after)
    print(before, during, after)


def test_followers_that_never_read(daemon: Daemon) -> None:
    box = started(daemon, "yes")
    idle = connections(daemon)
    clients = []
    for target in (f"/containers/{box}/logs?follow=1&stdout=1", "/events"):
        for _ in range(30):
            client = Client(daemon.socket)
            client.socket.sendall(request("GET", target))
            clients.append(client)
    time.sleep(2)
    size = Size.of(daemon)
    assert size.memory < 100_000, size
    for client in clients:
        client.close()
    wait_for(lambda: connections(daemon) < idle + 30, "they are forgotten")


def test_a_client_that_leaves_at_any_byte(daemon: Daemon) -> None:
    box = started(daemon, "sleep 1000")
    wishes = [
        request("POST", "/containers/create", shell("true")),
        request("POST", f"/containers/{box}/exec", {"Cmd": ["true"]}),
        request("PUT", f"/containers/{box}/archive?path=/tmp", b"\0" * 1024),
        request("POST", f"/containers/{box}/attach?stream=1", None, "Connection: Upgrade\r\nUpgrade: tcp\r\n"),
        request("GET", "/events"),
    ]
    idle = connections(daemon)
    for wish in wishes:
        for end in range(0, len(wish), 3):
            with Client(daemon.socket) as client:
                client.socket.sendall(wish[:end])
    wait_for(lambda: connections(daemon) < idle + 30, "they are forgotten")


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (2 << 20) + b"\r\n\r\n", {431, 400}),
        (request("POST", "/containers/create", {"Image": "x" * (20 << 20)}), {413, 400}),
        (b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
        (b"\0\1\2\3" * 1000 + b"\r\n\r\n", {400}),
    ],
    ids=["header", "body", "chunks", "garbage"],
)
def test_what_is_too_much_or_broken(daemon: Daemon, data: bytes, statuses: set[int]) -> None:
    with Client(daemon.socket) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.socket.sendall(data)
        assert client.head()[0] in statuses


def test_half_open_and_slow_clients(daemon: Daemon) -> None:
    idle = connections(daemon)
    clients = [Client(daemon.socket) for _ in range(300)]
    for client in clients:
        client.socket.sendall(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    for byte in b'"a":1':
        for client in clients:
            client.socket.sendall(bytes([byte]))
    for client in clients[:150]:
        client.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.5)
    for client in clients:
        client.close()
    wait_for(lambda: connections(daemon) < idle + 30, "they are forgotten")


@pytest.mark.parametrize("way", ["/../../../..", "/tmp/top", "/tmp/../../..", "/proc/1/root", "//..//..//"])
def test_paths_stay_in_the_container(daemon: Daemon, way: str) -> None:
    box = started(daemon, "ln -s / /tmp/top; sleep 1000")
    secret = daemon.dockp.base / "secret"
    secret.write_text("of the host")
    with Client(daemon.socket) as client:
        reply = client.ask("GET", f"/containers/{box}/archive", path=f"{way}{secret}")
    secret.unlink()
    assert reply.status == 404, reply.body
