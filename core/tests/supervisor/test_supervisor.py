"""Launching, finding and asking shims."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import shimlab
from shimlab import eventually

from dockp.shim.record import start_time
from dockp.spi.errors import FailedPrecondition, NotFound, SystemFault, Unavailable
from dockp.supervisor import TaskState


def test_what_does_not_exist_is_said_plainly(plain):
    with pytest.raises(NotFound):
        plain.supervisor.launch("none")
    with pytest.raises(NotFound):
        plain.supervisor.connect("none")
    assert plain.supervisor.state("none") is None
    assert not plain.supervisor.alive("none")


def test_a_launched_shim_is_alive_from_the_first_moment(plain):
    plain.write("c", ["true"])
    client = plain.supervisor.launch("c")
    plain.clients.append(client)
    assert plain.supervisor.alive("c")
    with pytest.raises(FailedPrecondition, match="has a shim already"):
        plain.supervisor.launch("c")


def test_a_shim_outlives_its_launcher_and_belongs_to_nobody(plain):
    plain.write("c", ["sleep", "60"])
    script = (
        f"import sys; sys.path[:0] = {[*sys.path]!r}\n"
        f"import shimlab, pathlib\nlab = shimlab.Lab(pathlib.Path({str(plain.root)!r}))\n"
        "client = lab.supervisor.launch('c')\nclient.create(); client.start()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, start_new_session=True)
    with plain.supervisor.connect("c") as client:
        state = client.state()
        assert state.status == "running"
        fields = Path(f"/proc/{state.shim_pid}/stat").read_text().rpartition(")")[2].split()
        parent, session, terminal = int(fields[1]), int(fields[3]), int(fields[4])
        assert parent != os.getpid()
        assert session != os.getsid(0)
        assert terminal == 0
        client.claim()


def test_a_shim_cannot_be_overwritten_through_proc(plain):
    client = plain.run("c", ["sleep", "60"])
    with pytest.raises(OSError):
        os.open(f"/proc/{client.state().shim_pid}/exe", os.O_WRONLY)


def test_nothing_of_the_launcher_leaks_into_the_shim(plain, tmp_path):
    read, write = os.pipe()
    os.set_inheritable(write, True)
    before = len(os.listdir("/proc/self/fd"))
    client = plain.run("c", ["sleep", "60"])
    os.close(write)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""
    os.close(read)
    assert "PYTHON" not in Path(f"/proc/{client.state().shim_pid}/environ").read_text()
    client.kill(9)
    client.wait(timeout=10)
    client.release()
    client.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_record_whose_shim_is_dead_is_corrected(plain):
    directory = plain.write("c", ["true"])
    document = {"status": "running", "pid": 4711, "started_at": 5, "exit_code": 0, "from the future": 1}
    (directory / "state.json").write_text(json.dumps(document))
    state = plain.supervisor.state("c")
    assert (state.status, state.exit_code, state.pid, state.started_at) == ("exited", 137, 0, 5)
    assert state.error == "the container's shim was killed"
    assert state.finished_at > 5


def test_a_damaged_record_is_named(plain):
    directory = plain.write("c", ["true"])
    (directory / "state.json").write_text("{")
    with pytest.raises(SystemFault, match=r"state\.json is damaged"):
        plain.supervisor.state("c")
    (directory / "state.json").unlink()


def test_one_connection_serves_many_threads(plain):
    client = plain.run("c", ["sleep", "60"])
    answers = []

    def ask(number):
        for _ in range(50):
            answers.append(client.state().status)
        answers.append(client.wait(timeout=20).exit_code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answers) == 8 * 50)
    client.kill(9)
    for thread in threads:
        thread.join(20)
    assert answers.count("running") == 400
    assert answers.count(137) == 8


def test_a_wait_may_be_limited_and_tried_again(plain):
    client = plain.run("c", ["sleep", "60"])
    with pytest.raises(Unavailable, match="did not answer"):
        client.wait(timeout=0.1)
    assert client.state().status == "running"
    client.kill(signal.SIGKILL)
    assert client.wait(timeout=10).exit_code == 137


def test_waiting_on_a_shim_that_ends_gives_its_last_word(plain):
    client = plain.create("c", "exit 11")
    client.start()
    eventually(lambda: not plain.supervisor.alive("c"))
    assert client.wait(timeout=10).exit_code == 11


def test_a_dead_shim_is_unavailable_at_once(plain):
    client = plain.run("c", ["sleep", "60"])
    state = client.state()
    os.kill(state.shim_pid, signal.SIGKILL)
    with pytest.raises(Unavailable, match="the shim of container c is gone"):
        client.wait(timeout=10)
    os.kill(state.pid, signal.SIGKILL)


def test_closing_a_connection_wakes_who_waits_on_it(plain):
    client = plain.run("c", ["sleep", "60"])
    other = plain.supervisor.connect("c")
    failures = []

    def wait():
        try:
            other.wait(timeout=20)
        except Unavailable as failure:
            failures.append(failure)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    other.close()
    thread.join(5)
    assert failures
    assert client.state().status == "running"


def test_many_shims_start_at_the_same_time(plain):
    clients = {}

    def start(number):
        client = plain.launch(f"c{number}", f"exit {number}")
        client.create()
        client.claim()
        client.start()
        clients[number] = client

    threads = [threading.Thread(target=start, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: client.wait(timeout=20).exit_code for number, client in clients.items()} == {
        number: number for number in range(20)
    }


def test_a_new_zygote_takes_over_and_the_old_one_leaves_its_socket_alone(plain):
    plain.start_zygote()
    old = plain.zygote
    plain.start_zygote()
    old.close()
    time.sleep(0.2)
    assert (plain.root / "zygote.sock").exists()
    began = time.monotonic()
    client = plain.run("c", "exit 3")
    assert client.wait(timeout=10).exit_code == 3
    assert time.monotonic() - began < 1


def test_a_zygote_that_was_killed_is_done_without(plain):
    plain.start_zygote()
    os.kill(zygote_of(plain), signal.SIGKILL)
    eventually(lambda: not plain.processes())
    assert plain.run("c", "exit 3").wait(timeout=10).exit_code == 3


def test_a_zygote_that_hangs_is_killed_and_done_without(plain, monkeypatch):
    monkeypatch.setattr("dockp.supervisor.launch._GREETING", 0.3)
    plain.start_zygote()
    eventually(lambda: len(plain.processes()) == 3)  # itself, its spare, the spare's maker
    hung = plain.processes()
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    assert plain.run("c", "exit 3").wait(timeout=10).exit_code == 3
    for pid in hung:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    eventually(lambda: not set(hung) & set(plain.processes()))


def test_a_zygote_of_other_code_is_done_without(plain, monkeypatch):
    plain.start_zygote()
    monkeypatch.setattr("dockp.shim.wire.code_identity", lambda: "another")
    assert plain.run("c", "exit 3").wait(timeout=10).exit_code == 3
    assert not (plain.root / "zygote.log").exists()


def zygote_of(lab):
    """The first of its processes: what it forks still bears its name for a moment."""
    return min(lab.processes(), key=start_time)


def test_a_zygote_that_cannot_start_says_so(plain):
    with pytest.raises(SystemFault, match="did not start"):
        plain.supervisor.start_zygote(["no_such_module"])
    assert "no_such_module" in (plain.root / "zygote.log").read_text()
    (plain.root / "zygote.log").unlink()


def test_states_are_read_from_documents_of_other_versions():
    assert TaskState.from_json({"status": "exited", "new": 1}) == TaskState(status="exited")
    assert shimlab.PLAIN
