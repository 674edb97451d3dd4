"""More processes in a running container."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from shimlab import eventually, read_all, read_until

from dockp.spi.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from dockp.spi.runtime import RuntimeFailure


@pytest.fixture
def client(lab):
    return lab.run("c", ["sleep", "600"])


def test_an_exec_has_its_own_streams_and_exit_code(lab, client):
    stream = client.exec_attached(
        "e", lab.process("cat; echo err >&2; exit 4"), stdin=True, stderr=False, framing="raw"
    )
    with stream:
        stream.send(b"hello")
        assert client.exec_inspect("e")["running"]
        stream.close_stdin()
        assert read_all(stream) == b"hello"
    assert client.exec_wait("e", timeout=10) == 4
    assert client.exec_inspect("e") == {"running": False, "pid": client.exec_inspect("e")["pid"], "exit_code": 4}


def test_an_exec_without_a_stream_reads_nothing_and_goes_on(lab, client):
    client.exec("e", lab.process("cat; sleep 0.1; exit 5"))
    assert client.exec_wait("e", timeout=10) == 5


@pytest.mark.parametrize(
    ("args", "kind"), [(["/no/such"], "not-found"), (["nosuchword"], "not-found"), (["/etc/passwd"], "not-executable")]
)
def test_an_exec_that_cannot_run_says_why(lab, client, args, kind):
    with pytest.raises(RuntimeFailure) as caught:
        client.exec("e", lab.process(args))
    assert caught.value.kind == kind
    with pytest.raises(NotFound):
        client.exec_inspect("e")
    client.exec("e", lab.process(["true"]))
    assert client.exec_wait("e", timeout=10) == 0


def test_an_exec_id_is_used_once(lab, client):
    client.exec("e", lab.process(["sleep", "1"]))
    with pytest.raises(AlreadyExists):
        client.exec("e", lab.process(["true"]))


def test_exec_needs_a_running_container(lab):
    client = lab.create("c", ["sleep", "60"])
    with pytest.raises(FailedPrecondition):
        client.exec("e", lab.process(["true"]))
    client.claim()
    client.start()
    client.pause()
    with pytest.raises(FailedPrecondition, match="is paused, unpause the container before exec"):
        client.exec("e", lab.process(["true"]))
    client.unpause()


def test_an_exec_in_a_terminal_has_job_control_and_a_name_for_it(real):
    client = real.run("c", ["sleep", "600"])
    stream = client.exec_attached(
        "e", real.process(["sh"], env=["PS1=$ ", "PATH=/bin"]), stdin=True, terminal=True, console_size=(20, 60)
    )
    with stream:
        stream.send(b"stty size; tty; sleep 60\r")
        read_until(stream, b"20 60\r\n/dev/pts/0\r\n")
        time.sleep(0.2)
        stream.send(b"\x03")
        client.resize(21, 61, "e")
        stream.send(b"stty size; exit 9\r")
        read_until(stream, b"21 61\r\n")
        read_all(stream)
    assert client.exec_wait("e", timeout=10) == 9


def test_exec_users_are_resolved_inside(real):
    client = real.run("c", ["sleep", "600"])
    with client.exec_attached("e", real.process("id -u; echo $HOME"), user="app", framing="raw") as stream:
        assert read_all(stream) == b"1000\n/home/app\n"
    with pytest.raises(InvalidArgument, match="unable to find user nope: no matching entries in passwd file"):
        client.exec("f", real.process(["true"]), user="nope")


def test_the_detach_keys_leave_an_exec_running(lab, client):
    stream = client.exec_attached(
        "e", lab.process("sleep 0.3; exit 2"), stdin=True, terminal=True, detach_keys=b"\x10q"
    )
    with stream:
        stream.send(b"\x10q")
        read_all(stream)
        assert stream.wait_end() == "detach"
    assert client.exec_wait("e", timeout=10) == 2


def test_an_exec_ends_though_its_child_keeps_the_output_open(lab, client):
    began = time.monotonic()
    with client.exec_attached("e", lab.process("sleep 5 & echo done"), framing="raw") as stream:
        assert read_all(stream) == b"done\n"
    assert client.exec_wait("e", timeout=10) == 0
    assert time.monotonic() - began < 3


def test_execs_end_with_the_container(lab, client):
    with client.exec_attached("e", lab.process(["sleep", "600"])) as stream:
        client.kill(9)
        client.wait(timeout=10)
        if lab.runtime.startswith("dockp"):
            read_all(stream)
            assert client.exec_wait("e", timeout=10) == 137
        else:
            os.kill(client.exec_inspect("e")["pid"], 9)


@pytest.mark.slow
def test_a_thousand_execs_cost_no_memory_and_no_descriptors(lab, client):
    shim = client.state().shim_pid
    after = []
    for batch in range(4):
        for number in range(260):
            with client.exec_attached(f"e{batch}-{number}", lab.process("echo x"), framing="raw") as stream:
                assert read_all(stream) == b"x\n"
            assert client.exec_wait(f"e{batch}-{number}", timeout=10) == 0
        eventually(lambda: "zombie" not in Path(f"/proc/{shim}/status").read_text())
        after.append((private_memory(shim), len(os.listdir(f"/proc/{shim}/fd"))))
    assert after[-1][1] == after[0][1]
    assert after[-1][0] - after[1][0] < 200
    with pytest.raises(NotFound):
        client.exec_inspect("e0-0")
    assert client.exec_inspect("e3-259")["exit_code"] == 0


def private_memory(pid):
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_"):
            total += int(line.split()[1])
    return total


def test_attaching_leaves_no_descriptor_behind(lab, client):
    shim = client.state().shim_pid
    before = len(os.listdir(f"/proc/{shim}/fd"))
    for _ in range(50):
        client.attach().close()
        lab.supervisor.connect("c").close()
    eventually(lambda: len(os.listdir(f"/proc/{shim}/fd")) == before)
