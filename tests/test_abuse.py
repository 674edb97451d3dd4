"""Clients that are many, slow, broken or malicious: the daemon answers the others all along, and forgets them."""

from __future__ import annotations

import contextlib
import io
import os
import random
import socket
import ssl
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from apiclient import Client, Reply, Size, answering, request, shell
from harness import Daemon, Dockp, image_tar, remains, remove_cgroups, wait_for

pytestmark = pytest.mark.embedded  # the daemon is this module's own


@pytest.fixture
def daemon(dockp: Dockp) -> Iterator[Daemon]:
    daemon = Daemon(dockp)
    daemon.log_path.unlink(missing_ok=True)
    with daemon, answering(daemon, 2.0):
        yield daemon
        dockp.clear()
        assert daemon.answers()
    assert_no_faults(daemon)
    assert remains(dockp) == []


def assert_no_faults(daemon: Daemon) -> None:
    """It met nothing that it was not made for."""
    assert "Traceback" not in daemon.log
    assert "a request failed" not in daemon.log


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
    time.sleep(1)  # the zygote has the next shim ready by then, which counts
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


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of (name, type, where a link leads), each of whose files says "trap"."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, target, 0o777
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"trap"))
    return stream.getvalue()


_FILE, _LINK, _HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize("running", [True, False], ids=["running", "created"])
def test_archives_with_traps(daemon: Daemon, running: bool) -> None:
    """Links that lead out, absolute names and ``..``: whatever becomes of them, it is in the container."""
    place = daemon.dockp.base / "outside"
    place.mkdir(exist_ok=True)
    (place / "secret").write_text("of the host")
    up = "../" * 30
    ways = [
        archive((f"{place}/secret", _FILE, "")),
        archive((f"{up}{place}/secret", _FILE, "")),
        archive((f"a/b/../../{up}{place}/new", _FILE, "")),
        archive(("out", _LINK, str(place)), ("out/secret", _FILE, ""), ("out/new", _FILE, "")),
        archive(("out", _LINK, f"{up}{place}"), ("out/secret", _FILE, ""), ("out/new", _FILE, "")),
        archive(("out", _LINK, f"/proc/1/root{place}"), ("out/new", _FILE, "")),
        archive(("one", _LINK, "/"), ("two", _LINK, f"one{place}"), ("two/secret", _FILE, "")),
        archive(("link", _LINK, f"{place}/secret"), ("link", _FILE, "")),
        archive(("hard", _HARD, f"{place}/secret"), ("hard", _FILE, "")),
        archive(("hard", _HARD, f"{up}{place}/secret"), ("hard", _FILE, "")),
        archive((f"{place}", _LINK, "/tmp"), (f"{place}/new", _FILE, "")),
        archive((f"{place}/.wh.secret", _FILE, ""), (f"{place}/.wh..wh..opq", _FILE, "")),
    ]
    with Client(daemon.socket) as client:
        box = client.ok("POST", "/containers/create", shell("ln -s / /tmp/top; sleep 1000"))["Id"]
        if running:
            client.ok("POST", f"/containers/{box}/start")
        for number, data in enumerate(ways):
            for into in ("/tmp", "/", "/tmp/../.."):
                reply = client.ask("PUT", f"/containers/{box}/archive?path={into}", data)
                assert reply.status == 200 or "\n" not in reply.message, (number, into, reply.message)
                assert "internal error" not in str(reply.body), (number, into)
            assert (place / "secret").read_text() == "of the host", (number, into)
            assert os.listdir(place) == ["secret"], (number, into)
            client.send("POST", "/images/create?fromSrc=-&repo=trapped", data)
            with contextlib.suppress(EOFError):
                client.reply()
            assert (place / "secret").read_text() == "of the host", number
            assert os.listdir(place) == ["secret"], number
        assert not Path(f"/tmp/{place}").exists()
        client.ask("DELETE", "/images/trapped", force=1)
        client.ok("POST", "/images/prune")


def test_two_hundred_clients_at_odds(daemon: Daemon) -> None:
    """They want the same twenty containers, each its own way: all is done, or refused in one clear line."""
    until = time.monotonic() + 8

    def behave(number: int) -> list[tuple[int, str]]:
        chosen = random.Random(number)
        refusals = []
        with Client(daemon.socket, 60) as client:
            while time.monotonic() < until:
                name = f"odds{chosen.randrange(20)}"
                for reply in _act(client, chosen, name):
                    if reply.status >= 400:
                        refusals.append((reply.status, reply.message))
        return refusals

    with ThreadPoolExecutor(200) as pool:
        refusals = [refusal for refusals in pool.map(behave, range(200)) for refusal in refusals]
    assert time.monotonic() < until + 17
    unclear = {each for each in refusals if each[0] not in (400, 404, 409) or "internal" in each[1] or "\n" in each[1]}
    assert unclear == set()


def _act(client: Client, chosen: random.Random, name: str) -> Iterator[Reply]:
    action = chosen.choice(["create", "start", "exec", "stop", "remove", "remove", "inspect"])
    match action:
        case "create":
            yield client.ask("POST", "/containers/create", shell("sleep 1000"), name=name)
        case "start":
            yield client.ask("POST", f"/containers/{name}/start")
        case "exec":
            reply = client.ask("POST", f"/containers/{name}/exec", {"Cmd": ["true"]})
            yield reply
            if reply.status == 201:
                yield client.ask("POST", f"/exec/{reply.document['Id']}/start", {"Detach": True})
        case "stop":
            yield client.ask("POST", f"/containers/{name}/stop", t=0)
        case "remove":
            yield client.ask("DELETE", f"/containers/{name}", force=1)
        case _:
            yield client.ask("GET", f"/containers/{name}/json")


def test_tls_handshakes_that_stall(dockp: Dockp, certificates: Path) -> None:
    flags = [f"--tls{name}={certificates}/{file}" for name, file in _TLS_FILES.items()]
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
    words = hello.read()
    daemon = Daemon(dockp, "--tlsverify", *flags, hosts=["tcp://127.0.0.1:0"])
    daemon.log_path.unlink(missing_ok=True)
    with daemon, answering(daemon):
        port = daemon.tcp_port
        idle = connections(daemon)
        stalled = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(50)]
        for number, client in enumerate(stalled):
            client.sendall(words[: number * len(words) // 49])  # nothing; a part; all, and no more
        for _ in range(5):
            asked = time.monotonic()
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/_ping", context=context, timeout=10) as answer:
                assert answer.read() == b"OK"
            assert time.monotonic() - asked < 1
        for client in stalled:
            client.close()
        wait_for(lambda: connections(daemon) < idle + 5, "they are forgotten")
    assert_no_faults(daemon)


_TLS_FILES = {"cacert": "ca.pem", "cert": "server.pem", "key": "server.key"}


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose data root has 24 MiB."""
    dockp = Dockp(tmp_path, name="dockp-cramped")
    dockp.data_root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", dockp.data_root], check=True)
    try:
        dockp.add_image("busybox", image_tar("busybox"))
        daemon = Daemon(dockp)
        with daemon, answering(daemon):
            yield daemon
            (dockp.data_root / "filler").unlink(missing_ok=True)
            dockp.clear()
        assert_no_faults(daemon)
        assert remains(dockp) == []
    finally:
        subprocess.run(["umount", dockp.data_root], check=True)
        remove_cgroups(dockp.cgroup_parent)


def test_a_full_disk(cramped: Daemon) -> None:
    """What cannot be done is refused in one line, whether the very last byte is used or none is left for data only."""
    box = started(cramped, "yes | head -c 2000000 > /much; sleep 1000")
    talker = started(cramped, "i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done")
    ending = started(cramped, "sleep 1; exit 7")
    root_files = image_tar("busybox").read_bytes()
    wishes: list[tuple[str, dict[str, Any] | bytes | None]] = [
        (f"POST /commit?container={box}&repo=made", None),
        ("POST /images/create?fromSrc=-&repo=more", root_files),
        (f"PUT /containers/{box}/archive?path=/tmp", root_files),
    ]
    records: list[tuple[str, dict[str, Any] | bytes | None]] = [
        ("POST /containers/create", shell("true")),
        (f"POST /containers/{box}/exec", {"Cmd": ["true"]}),
        (f"POST /containers/{box}/rename?name=other", None),
        (f"DELETE /containers/{talker}?force=1", None),
    ]
    filler = cramped.dockp.data_root / "filler"
    for left, refused in ((1 << 20, wishes), (0, wishes + records)):
        fill(filler, left)
        for target, body in refused:
            with Client(cramped.socket) as client:
                reply = client.ask(*target.split(), body)
            said = reply.body.decode().lower()
            assert " full: " in said or "no space left on" in said, (target, left, reply.status, said)
            assert reply.status == 500 or target.startswith("POST /images"), (target, left, reply.status, said)
            assert said.count("\n") == 1 or target.startswith("POST /images"), (target, left, said)
        with Client(cramped.socket) as client:
            assert len(client.ok("GET", "/containers/json", all=1)) == 3
            client.ok("GET", f"/containers/{talker}/logs", stdout=1, tail=1)
    with Client(cramped.socket) as client:
        client.ok("POST", f"/containers/{talker}/stop", t=0)
        assert client.ok("GET", f"/containers/{talker}/json")["State"]["Status"] == "exited"
    time.sleep(1)
    filler.unlink()

    with Client(cramped.socket) as client:
        assert client.ok("POST", f"/containers/{ending}/wait")["StatusCode"] == 7
        for target, body in wishes:
            client.ok(*target.split(), body)
        client.ok("POST", f"/containers/{talker}/restart", t=0)
        client.ok("GET", f"/containers/{talker}/json")
        assert started(cramped, "true")
        for image in ("made", "more"):
            client.ok("DELETE", f"/images/{image}", force=1)


def fill(path: Path, left: int) -> None:
    """Make a file that leaves ``left`` bytes of its file system."""
    path.write_bytes(b"")
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while stream.write(bytes(1 << 12)):
            pass
    os.truncate(path, path.stat().st_size - left)
