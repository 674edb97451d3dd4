"""The engine as a library: no daemon, no command line."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from harness import Dockp, wait_for

import dockp as package
from dockp.containers.model import Config, CreateRequest, ExecConfig, HostConfig
from dockp.engine import LocalEngine
from dockp.spi.errors import NotFound, StartFailure


@pytest.fixture
def engine(dockp: Dockp) -> Iterator[LocalEngine]:
    with package.Engine(
        data_root=str(dockp.data_root), exec_root=str(dockp.exec_root), cgroup_parent=dockp.cgroup_parent
    ) as engine:
        yield engine


def test_run_gives_output_and_exit_code(engine: LocalEngine) -> None:
    result = engine.containers.run("busybox", ["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in" * 100_000)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"in" * 100_000, b"err\n")
    assert engine.containers.list(all=True) == []


def test_errors_are_classes(engine: LocalEngine) -> None:
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        engine.containers.run("nosuch")
    with pytest.raises(StartFailure) as failure:
        engine.containers.run("busybox", ["nosuch"])
    assert failure.value.kind == "not-found"
    with pytest.raises(NotFound, match="No such container: nosuch"):
        engine.containers.inspect("nosuch")


def test_many_threads_share_one_engine(engine: LocalEngine) -> None:
    results: list[bytes] = []

    def one(number: int) -> None:
        results.append(engine.containers.run("busybox", ["echo", str(number)], network="none").stdout)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"{number}\n".encode() for number in range(12))


def test_the_whole_interface(engine: LocalEngine) -> None:
    request = CreateRequest(
        name="whole", config=Config(image="busybox", cmd=("sleep", "60")), host=HostConfig(network_mode="none")
    )
    created = engine.containers.create(request)
    engine.containers.start("whole")
    exec_id = engine.containers.exec_create("whole", ExecConfig(cmd=("echo", "hi"), attach_stdout=True))
    stream = engine.containers.exec_start(exec_id)
    assert stream is not None
    assert stream.recv(100)[8:] == b"hi\n"
    assert engine.containers.exec_wait(exec_id) == 0
    stream.close()
    assert engine.containers.inspect(created.id)["State"]["Running"]
    assert engine.containers.top("whole").processes[0][-1] == "sleep 60"
    engine.containers.stop("whole", timeout=0)
    assert engine.containers.wait("whole").exit_code == 137
    engine.containers.remove("whole")


def test_logs_are_read_back(engine: LocalEngine) -> None:
    result = engine.containers.run("busybox", "echo one; echo two >&2", remove=False)
    entries = list(engine.containers.logs(result.id))
    assert {(entry.stream, entry.data) for entry in entries} == {("stdout", b"one\n"), ("stderr", b"two\n")}
    engine.containers.remove(result.id)


def test_an_engine_that_stays_has_a_zygote_again_and_again(dockp: Dockp, engine: LocalEngine) -> None:
    place = dockp.exec_root / "zygote.sock"

    def zygote() -> int:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(place))
                return struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        except OSError:
            return 0

    with engine.keep_warm():
        first = wait_for(zygote, "a zygote listens")
        assert engine.containers.run("busybox", ["echo", "one"]).stdout == b"one\n"
        os.kill(first, signal.SIGKILL)
        assert engine.containers.run("busybox", ["echo", "two"], network="none").stdout == b"two\n"
        wait_for(lambda: zygote() not in (0, first), "another listens")
        assert engine.containers.run("busybox", ["echo", "three"]).stdout == b"three\n"
    wait_for(lambda: not place.exists(), "it ends with its keeper")


def test_attach_begins_with_the_logs(engine: LocalEngine) -> None:
    config = Config(image="busybox", cmd=("sh", "-c", "echo before; read line; echo $line"), open_stdin=True)
    container = engine.containers.create(CreateRequest(config=config, host=HostConfig(network_mode="none")))
    engine.containers.start(container.id)
    wait_for(lambda: list(engine.containers.logs(container.id)), "the first line")
    stream = engine.containers.attach(container.id, stdin=True, stdout=True, stderr=True, logs=True)
    frame = struct.pack(">BxxxI", 1, 7) + b"before\n"
    received = b""
    while len(received) < len(frame):
        received += stream.recv(65536)
    stream.send(b"after\n")
    while piece := stream.recv(65536):
        received += piece
    assert received == frame + struct.pack(">BxxxI", 1, 6) + b"after\n"
    assert stream.wait_end() == "exit"
    stream.close()
    engine.containers.remove(container.id, force=True)
