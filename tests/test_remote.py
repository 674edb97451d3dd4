"""dockpd through dockp's own client: the command line by every way to a host, the library, asyncio."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Daemon, Dockp

import dockp.aio
from dockp.containers.model import Config, CreateRequest, ExecConfig, HostConfig
from dockp.remote import connect
from dockp.remote.engine import RemoteEngine
from dockp.spi.errors import NotFound, StartFailure

pytestmark = pytest.mark.embedded  # it starts its own daemon


@pytest.fixture(scope="module")
def daemon(home: Dockp) -> Iterator[Daemon]:
    with Daemon(home) as daemon:
        yield daemon


@pytest.fixture
def engine(daemon: Daemon) -> Iterator[RemoteEngine]:
    with connect(daemon.url) as engine:
        yield engine
        daemon.dockp.clear()


def test_a_command_by_the_daemon_and_one_in_its_own_process_see_the_same(daemon: Daemon) -> None:
    dockp = daemon.dockp
    dockp.ok("-H", daemon.url, "run", "-d", "--name", "shared", "--network", "none", "busybox", "sleep", "60")
    assert dockp.ok("-H", "embedded", "ps", "--format", "{{.Names}}") == "shared"
    dockp.ok("rm", "-f", "shared")
    assert dockp.ok("-H", daemon.url, "ps", "-aq") == ""


def test_version_has_both_sides(daemon: Daemon) -> None:
    document = json.loads(daemon.dockp.ok("-H", daemon.url, "version", "--format", "json"))
    assert document["Client"]["ApiVersion"] == document["Server"]["ApiVersion"] == "1.50"
    assert document["Client"]["Context"] == "default"


def test_a_context_leads_to_the_daemon(daemon: Daemon) -> None:
    dockp = daemon.dockp
    assert dockp.ok("context", "create", "near", "--docker", f"host={daemon.url}") == "near"
    assert dockp.ok("-c", "near", "version", "-f", "{{.Client.Context}} {{.Server.Platform.Name}}") == "near dockp"
    assert "near" in dockp.ok("context", "ls", "-q").split()
    dockp.ok("context", "rm", "near")


def test_ssh_leads_to_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    # An ssh that goes nowhere: what would run on the other side runs here.
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nfor last; do :; done\nDOCKP_HOST={daemon.url} exec sh -c "$last"\n')
    ssh.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*daemon.dockp.command, "-H", "ssh://far", "run", "-i", "--rm", "--network", "none", "busybox", "cat"],
        input=b"through" * 50_000,
        capture_output=True,
        env=daemon.dockp.environment | {"PATH": path},
        timeout=60,
        check=True,
    )
    assert done.stdout == b"through" * 50_000


def test_the_storage_driver_of_a_command_goes_through_the_daemon(daemon: Daemon) -> None:
    dockp = daemon.dockp
    dockp.ok("-H", daemon.url, "--storage-driver", "vfs", "create", "--name", "copied", "busybox", "true")
    assert dockp.ok("-H", daemon.url, "inspect", "-f", "{{.Driver}}", "copied") == "vfs"
    dockp.ok("rm", "copied")


def test_what_a_run_by_a_daemon_does_not_import(daemon: Daemon) -> None:
    words = ["-H", daemon.url, "run", "--rm", "--network", "none", "busybox", "true"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *daemon.dockp.command, *words],
        capture_output=True,
        text=True,
        env=daemon.dockp.environment,
        timeout=60,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "dockp.remote.engine" in imported
    heavy = {"asyncio", "http.client", "ssl", "sqlite3", "click", "pluggy", "subprocess", "logging", "dockp.engine"}
    assert imported & heavy == set()


def test_the_interface_over_a_socket(engine: RemoteEngine) -> None:
    result = engine.containers.run("busybox", ["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in" * 100_000)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"in" * 100_000, b"err\n")
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        engine.containers.run("nosuch")
    with pytest.raises(StartFailure) as failure:
        engine.containers.run("busybox", ["nosuch"], network="none")
    assert failure.value.kind == "not-found"

    script = "echo one; echo two >&2; sleep 60"
    box = engine.containers.run("busybox", ["sh", "-c", script], detach=True, network="none").id
    entries = engine.containers.logs(box, follow=True)
    assert {(entry.stream, entry.data) for entry in (next(entries), next(entries))} == {
        ("stdout", b"one\n"),
        ("stderr", b"two\n"),
    }
    entries.close()  # type: ignore[attr-defined]
    config = ExecConfig(attach_stdin=True, attach_stdout=True, cmd=("cat",))
    exec_id = engine.containers.exec_create(box, config)
    stream = engine.containers.exec_start(exec_id)
    assert stream is not None
    stream.send(b"hello")
    stream.close_stdin()
    out = b""
    while piece := stream.recv(100):
        out += piece
    stream.close()
    assert out == b"\1\0\0\0\0\0\0\5hello"
    assert engine.containers.exec_wait(exec_id) == 0

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as writer:
        member = tarfile.TarInfo("file")
        member.size = 4
        writer.addfile(member, io.BytesIO(b"data"))
    tar.seek(0)
    engine.containers.archive_put(box, "/tmp", tar)
    assert engine.containers.archive_stat(box, "/tmp/file")["size"] == 4
    file, stat = engine.containers.archive_get(box, "/tmp/file")
    with file, tarfile.open(fileobj=file, mode="r|") as reader:
        assert [member.name for member in reader] == ["file"]
    assert stat["name"] == "file"
    assert {"Path": "/tmp/file", "Kind": 1} in engine.containers.changes(box)
    with engine.containers.export(box) as exported:
        assert len(exported.read()) > 1 << 20
    assert next(engine.containers.stats(box, stream=False, one_shot=True))["id"] == box
    assert engine.containers.top(box).titles


def test_detaching_is_told_from_ending(engine: RemoteEngine) -> None:
    request = CreateRequest(
        config=Config(image="busybox", cmd=("cat",), tty=True, open_stdin=True), host=HostConfig(network_mode="none")
    )
    box = engine.containers.create(request).id
    stream = engine.containers.attach(box, stdin=True, stdout=True, stderr=True)
    engine.containers.start(box)
    stream.send(b"x\r")
    out = b""
    while b"x\r\nx\r\n" not in out:
        out += stream.recv(100)
    stream.send(b"\x10")
    stream.send(b"\x11")
    while stream.recv(100):
        pass
    assert stream.wait_end() == "detach"
    assert engine.containers.inspect(box)["State"]["Running"]
    stream.close()


def test_events_arrive_as_they_happen(engine: RemoteEngine) -> None:
    seen: list[str] = []
    events = engine.system.events(filters={"type": ["container"]})

    def watch() -> None:
        for event in events:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    engine.containers.run("busybox", ["true"], network="none")
    watcher.join(10)
    assert [action for action in seen if action in ("create", "start", "die", "destroy")] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


def test_asyncio_over_a_socket(daemon: Daemon) -> None:
    async def main() -> None:
        async with dockp.aio.connect(daemon.url) as engine:
            results = await asyncio.gather(
                *(engine.containers.run("busybox", ["echo", str(number)], network="none") for number in range(10))
            )
            assert [result.stdout for result in results] == [f"{number}\n".encode() for number in range(10)]
            result = await engine.containers.run("busybox", ["cat"], stdin=b"in" * 100_000, network="none")
            assert result.stdout == b"in" * 100_000
            assert await engine.containers.list(all=True) == []

    asyncio.run(main())
