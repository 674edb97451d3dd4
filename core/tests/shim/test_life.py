"""A container from its launch to its end, as its shim sees it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import shimlab
from shimlab import eventually, read_all, read_until

from dockp.spi.errors import FailedPrecondition, InvalidArgument, NotFound, NotModified, SystemFault, Unavailable
from dockp.spi.runtime import RuntimeFailure


@pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
def test_the_exit_code_is_kept_exactly(plain, code):
    client = plain.run("c", f"exit {code}")
    assert client.wait(timeout=10).exit_code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_death_by_signal_is_128_and_its_number(plain, number):
    client = plain.run("c", ["sleep", "60"])
    client.kill(number)
    assert client.wait(timeout=10).exit_code == 128 + number


def test_output_arrives_whole_and_apart(lab):
    client = lab.create("c", "echo out; echo err >&2; exit 3")
    with client.attach(stderr=False, framing="raw") as out, client.attach(stdout=False, framing="raw") as err:
        client.claim()
        client.start()
        assert read_all(out) == b"out\n"
        assert read_all(err) == b"err\n"
        assert out.wait_end() == "exit"
    assert client.wait(timeout=10).exit_code == 3


def test_output_of_pipes_is_framed_as_docker_does(plain):
    client = plain.create("c", "printf abc")
    with client.attach() as stream:
        client.start()
        assert stream.framed
        assert read_all(stream) == b"\1\0\0\0\0\0\0\3abc"


def test_the_end_of_input_reaches_the_process(lab):
    client = lab.create("c", ["cat"], open_stdin=True, stdin_once=True)
    with client.attach(stdin=True, framing="raw") as stream:
        client.start()
        stream.send(b"one\ntwo")
        stream.close_stdin()
        assert read_all(stream) == b"one\ntwo"
    assert client.wait(timeout=10).exit_code == 0


def test_input_sent_before_the_start_is_not_lost(plain):
    client = plain.launch("c", ["cat"], open_stdin=True, stdin_once=True)
    with client.attach(stdin=True, framing="raw") as stream:
        stream.send(b"early")
        stream.close_stdin()
        client.create()
        client.start()
        assert read_all(stream) == b"early"


def test_a_container_that_keeps_its_stdin_outlives_a_session(plain):
    client = plain.run("c", ["cat"], open_stdin=True)
    for word in (b"first", b"second"):
        with client.attach(stdin=True, framing="raw") as stream:
            stream.send(word)
            assert read_until(stream, word) == word
            stream.close_stdin()
            assert read_all(stream) == b""
            assert stream.wait_end() == "detach"
    assert client.state().status == "running"


def test_a_big_input_goes_through_whole(plain):
    client = plain.create("c", "cksum", open_stdin=True, stdin_once=True)
    data = os.urandom(1 << 20) * 20
    with client.attach(stdin=True, framing="raw") as stream:
        client.start()
        view = memoryview(data)
        while view:
            view = view[stream.send(view) :]
        stream.close_stdin()
        assert read_all(stream).split()[1] == str(len(data)).encode()


def test_a_process_that_reads_nothing_does_not_hold_up_its_output(plain):
    client = plain.create("c", "exec 0<&-; sleep 0.2; echo done", open_stdin=True, stdin_once=True)
    with client.attach(stdin=True, framing="raw") as stream:
        client.start()
        stream.sock.settimeout(10)
        for _ in range(16):
            stream.sock.sendall(bytes(65536))
        assert read_all(stream) == b"done\n"


def test_a_client_that_does_not_read_stops_the_process_and_not_the_shim(plain, tmp_path):
    counter = tmp_path / "count"
    script = f"i=0; while :; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > {counter}; done"
    client = plain.create("c", script)
    with client.attach(framing="raw") as stream:
        client.start()
        eventually(lambda: counter.exists() and int(counter.read_text() or 0) > 16)
        time.sleep(0.5)
        first = int(counter.read_text() or 0)
        time.sleep(0.3)
        assert int(counter.read_text() or 0) == first < 64
        assert client.state().status == "running"
        for _ in range(200):
            stream.recv(65536)
        eventually(lambda: int(counter.read_text() or 0) > first)
    second = int(counter.read_text() or 0)
    eventually(lambda: int(counter.read_text() or 0) > second + 64)


@pytest.mark.slow
def test_a_hundred_megabytes_reach_a_slow_reader_and_the_log(plain):
    line = b"0123456789abcdef" * 4 + b"\n"
    count = 100_000_000 // len(line)
    client = plain.create("c", f"yes {line[:-1].decode()} | head -n {count}", log=plain.log("c", max_size="-1"))
    total = 0
    with client.attach(framing="raw") as stream:
        client.claim()
        client.start()
        while piece := stream.recv(1 << 20):
            assert piece in (line * (len(piece) // len(line) + 2))
            total += len(piece)
            if total % 7 == 0:
                time.sleep(0.001)
    assert total == count * len(line)
    assert client.wait(timeout=30).exit_code == 0
    records = 0
    with open(plain.directory("c") / "json.log", "rb") as file:
        for record in file:
            assert record.startswith(b'{"log":"' + line[:-1] + b'\\n","stream":"stdout","time":"')
            records += 1
    assert records == count


def test_what_was_written_before_the_end_is_in_the_log_when_wait_returns(plain):
    client = plain.run("c", "seq 1 20000; printf last", log=plain.log("c", max_size="-1"))
    client.wait(timeout=10)
    texts = [json.loads(line)["log"] for line in (plain.directory("c") / "json.log").read_text().splitlines()]
    assert "".join(texts) == "".join(f"{n}\n" for n in range(1, 20001)) + "last"


def test_killing_a_client_in_the_middle_changes_nothing(plain):
    client = plain.create("c", "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); sleep 0.002; done",
                          log=plain.log("c", max_size="-1"))  # fmt: skip
    client.claim()
    child = os.fork()
    if child == 0:
        try:
            other = plain.supervisor.connect("c")
            stream = other.attach(framing="raw")
            client.start()
            stream.recv(1)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:  # never back into pytest
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert client.wait(timeout=20).exit_code == 0
    texts = [json.loads(line)["log"] for line in (plain.directory("c") / "json.log").read_text().splitlines()]
    assert texts == [f"{n}\n" for n in range(200)]


def test_stop_asks_first_and_kills_after_the_timeout(plain):
    polite = plain.run("polite", 'trap "exit 5" TERM; echo up; while :; do sleep 0.01; done')
    time.sleep(0.2)
    began = time.monotonic()
    assert polite.stop(timeout=10).exit_code == 5
    assert time.monotonic() - began < 5
    deaf = plain.run("deaf", 'trap "" TERM; while :; do sleep 0.01; done')
    time.sleep(0.2)
    began = time.monotonic()
    assert deaf.stop(timeout=0.5).exit_code == 137
    assert 0.45 < time.monotonic() - began < 5
    with pytest.raises(NotModified):
        deaf.stop()


def test_a_paused_container_stands_still_and_can_be_stopped(lab):
    client = lab.run("c", "trap 'exit 4' TERM; while :; do sleep 0.01; done")
    time.sleep(0.2)
    client.pause()
    assert client.state().status == "paused"
    with pytest.raises(FailedPrecondition, match="already paused"):
        client.pause()
    client.unpause()
    assert client.state().status == "running"
    client.pause()
    assert client.stop(timeout=5).exit_code == 4


def test_waiting_means_what_it_says(plain):
    client = plain.create("c", ["sleep", "60"])
    assert client.wait("not-running", timeout=5).status == "created"
    answers = []
    threads = [
        threading.Thread(target=lambda how=how: answers.append(client.wait(how, timeout=20).exit_code))
        for how in ("not-running", "next-exit", "removed")
    ]
    client.claim()
    client.start()
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert not answers
    client.kill(9)
    eventually(lambda: len(answers) == 2)
    client.release()
    for thread in threads:
        thread.join()
    assert answers == [137, 137, 137]


def test_signals_to_the_shim_are_survived(plain):
    client = plain.run("c", ["sleep", "60"])
    shim = client.state().shim_pid
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGUSR1):
        os.kill(shim, number)
    time.sleep(0.1)
    assert client.state().status == "running"


def test_the_container_inherits_nothing_odd(plain):
    script = "grep -E 'SigIgn|SigBlk' /proc/self/status; ls -l /proc/self/fd | grep -v proc | wc -l; umask"
    client = plain.create("c", script)
    with client.attach(framing="raw") as stream:
        client.start()
        words = read_all(stream).split()
    internal = 0x180000000  # signals 32 and 33, which glibc's posix_spawn ignores in every child
    assert int(words[1], 16) == int(words[3], 16) & ~internal == 0
    assert words[5] == b"0022"


def test_a_second_shim_for_one_container_is_refused(plain):
    plain.run("c", ["sleep", "60"])
    with pytest.raises(FailedPrecondition):
        plain.supervisor.launch("c")


def test_a_shim_that_is_killed_takes_its_container_along_and_is_noticed(real):
    client = real.run("c", ["sleep", "60"])
    state = client.state()
    os.kill(state.shim_pid, signal.SIGKILL)
    eventually(lambda: not real.supervisor.alive("c"))
    found = real.supervisor.state("c")
    assert (found.status, found.exit_code, found.pid) == ("exited", 137, 0)
    assert found.error == "the container's shim was killed"
    eventually(lambda: not os.path.exists(f"/proc/{state.pid}"))
    with pytest.raises(Unavailable):
        client.state()
    with pytest.raises(NotFound):
        real.supervisor.connect("c")


@pytest.mark.parametrize(
    ("args", "kind", "code"),
    [(["/no/such/command"], "not-found", 127), (["/etc/passwd"], "not-executable", 126)],
)
def test_a_command_that_cannot_run_says_why(lab, args, kind, code):
    client = lab.launch("c", args)

    def begin():
        client.create()
        client.start()

    with pytest.raises(RuntimeFailure) as caught:
        begin()
    assert caught.value.kind == kind
    state = client.state()
    assert (state.status, state.exit_code) == ("exited", code)
    assert state.error == str(caught.value)
    client.release()
    eventually(lambda: not lab.supervisor.alive("c"))


def test_a_root_that_cannot_be_mounted_is_the_answer_to_create(plain):
    client = plain.launch(
        "c", ["true"], rootfs={"mounts": [{"type": "bind", "source": "/no/such", "options": []}], "read_only": False}
    )
    with pytest.raises(Exception, match="/no/such"):
        client.create()
    assert client.state().exit_code == 128
    client.close()
    eventually(lambda: not plain.supervisor.alive("c"))


def test_a_log_that_cannot_be_opened_is_the_answer_to_create(plain):
    log = {**plain.log("c"), "path": "/no/such/directory/log"}
    client = plain.launch("c", ["true"], log=log)
    with pytest.raises(SystemFault, match="/no/such/directory/log"):
        client.create()
    client.release()
    eventually(lambda: not plain.supervisor.alive("c"))


def test_an_unknown_user_is_refused_in_dockers_words(real):
    client = real.launch("c", ["true"], user={"user": "nobodyhere", "groups": []})
    with pytest.raises(InvalidArgument, match="unable to find user nobodyhere: no matching entries in passwd file"):
        client.create()


def test_the_user_is_the_images_own(real):
    client = real.create("c", "id; echo $HOME", user={"user": "app", "groups": ["29"]})
    with client.attach(framing="raw") as stream:
        client.start()
        output = read_all(stream).decode()
    assert output.startswith("uid=1000(app) gid=1000(app) groups=29(audio),1000(app)\n")
    assert output.endswith("/home/app\n")


def test_no_mount_of_a_container_shows_on_the_host(real):
    before = Path("/proc/self/mountinfo").read_text()
    client = real.run("c", ["sleep", "60"])
    assert Path("/proc/self/mountinfo").read_text() == before
    client.kill(9)
    client.wait(timeout=10)
    assert Path("/proc/self/mountinfo").read_text() == before


# --- who cleans up


def test_the_claimant_hears_of_the_exit_and_the_shim_waits_for_its_release(plain, tmp_path):
    ran = tmp_path / "ran"
    client = plain.run("c", "exit 9", on_exit=["/bin/sh", "-c", f"echo yes > {ran}"])
    event = client.next_event(10)
    assert event["event"] == "exit"
    assert event["state"]["exit_code"] == 9
    assert plain.supervisor.alive("c")
    client.release()
    eventually(lambda: not plain.supervisor.alive("c"))
    time.sleep(0.1)
    assert not ran.exists()


def test_a_claimant_that_vanishes_is_replaced_by_on_exit(plain, tmp_path):
    ran = tmp_path / "ran"
    client = plain.run("c", "sleep 0.2; exit 9", on_exit=["/bin/sh", "-c", f"ls -l /proc/self/ns/mnt > {ran}"])
    client.close()
    eventually(lambda: ran.exists() and ran.read_text())
    assert os.readlink("/proc/self/ns/mnt") in ran.read_text()
    assert plain.supervisor.state("c").exit_code == 9
    assert not plain.supervisor.alive("c")


def test_without_a_claim_on_exit_runs_at_once_and_its_words_are_kept(plain):
    client = plain.create("c", "exit 0", on_exit=["/bin/sh", "-c", "echo cleaned; echo loudly >&2"])
    client.start()
    path = plain.directory("c") / "on_exit.log"
    eventually(lambda: path.exists() and path.read_text() == "cleaned\nloudly\n")


def test_whoever_creates_and_dies_before_the_start_leaves_nothing(lab):
    client = lab.create("c", ["sleep", "60"])
    pid = client.state().pid
    client.close()
    eventually(lambda: not lab.supervisor.alive("c"))
    assert lab.supervisor.state("c").status == "exited"
    assert not os.path.exists(f"/proc/{pid}")


def test_a_launcher_that_dies_before_create_leaves_no_shim(plain):
    client = plain.launch("c", ["sleep", "60"])
    client.state()
    client.close()
    eventually(lambda: not plain.supervisor.alive("c"))


def test_a_shim_lets_go_of_the_run_folder_while_a_slow_reader_has_output_left(plain):
    client = plain.create("c", "head -c 300000 /dev/zero")
    stream = client.attach(framing="raw")
    client.start()
    client.wait(timeout=10)
    eventually(lambda: not plain.supervisor.alive("c"))
    assert len(read_all(stream)) == 300000
    stream.close()


def test_ports_and_namespace_are_held_until_the_end(plain):
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    client = plain.launch("c", ["sleep", "60"])
    client.create(netns, [listener.fileno()])
    os.close(netns)
    listener.close()
    client.claim()
    client.start()
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    client.kill(9)
    client.wait(timeout=10)
    socket.create_server(("127.0.0.1", port)).close()


def test_six_hundred_ports_fit_in_one_request(plain):
    pairs = [os.pipe() for _ in range(300)]
    client = plain.launch("c", ["sleep", "60"])
    client.create(ports=[end for pair in pairs for end in pair])
    for pair in pairs:
        for end in pair:
            os.close(end)
    assert len(os.listdir(f"/proc/{client.state().shim_pid}/fd")) > 600


# --- restarts


def test_on_failure_tries_as_often_as_allowed(plain, tmp_path):
    mark = tmp_path / "mark"
    client = plain.run("c", f"date +%s.%N >> {mark}; exit 3", restart={"name": "on-failure", "max": 3})
    assert client.next_event(20)["state"]["restart_count"] == 3
    times = [float(line) for line in mark.read_text().split()]
    assert len(times) == 4
    gaps = [after - before for before, after in itertools.pairwise(times)]
    for gap, expected in zip(gaps, (0.1, 0.2, 0.4), strict=True):
        assert expected <= gap < expected + 0.2


def test_on_failure_does_not_repeat_success(plain):
    client = plain.run("c", "exit 0", restart={"name": "on-failure", "max": 0})
    assert client.next_event(10)["state"]["restart_count"] == 0


def test_a_container_that_is_stopped_stays_stopped(plain):
    for number, end in enumerate((lambda c: c.stop(timeout=1), lambda c: c.kill(signal.SIGKILL))):
        client = plain.run(f"c{number}", ["sleep", "60"], restart={"name": "always", "max": 0})
        end(client)
        assert client.next_event(10)["state"]["restart_count"] == 0


def test_a_harmless_signal_is_no_stop(plain):
    client = plain.run("c", ["sleep", "60"], restart={"name": "always", "max": 0})
    client.kill(signal.SIGUSR1)
    eventually(lambda: client.state().restart_count == 1)


def test_stop_ends_the_wait_between_restarts(plain):
    client = plain.run("c", "exit 1", restart={"name": "always", "max": 0})
    eventually(lambda: (state := client.state()).status == "restarting" and state.restart_count >= 3)
    state = client.stop()
    assert (state.status, state.exit_code) == ("exited", 1)
    assert client.next_event(5)["event"] == "exit"


def test_a_restarted_container_keeps_root_log_and_policy_updates(lab):
    client = lab.run("c", "echo again; exit 1", restart={"name": "always", "max": 0}, log=lab.log("c"))
    eventually(lambda: client.state().restart_count >= 2)
    client.update(restart={"name": "no", "max": 0})
    event = client.next_event(10)
    lines = (lab.directory("c") / "json.log").read_text().count("again")
    assert lines == event["state"]["restart_count"] + 1


# --- bookkeeping


def test_every_change_is_announced_to_watchers(plain):
    client = plain.launch("c", "exit 2", restart={"name": "on-failure", "max": 1})
    client.watch()
    client.create()
    client.claim()
    client.start()
    actions = []
    while (event := client.next_event(10))["event"] != "exit":
        actions.append(event["action"])
    assert actions == ["create", "start", "die", "start", "restart", "die"]


def test_an_oom_kill_is_on_record(plain):
    client = plain.run("c", ["true"], options={"oom": "1"})
    assert client.wait(timeout=10).oom_killed


def test_malformed_requests_are_refused_and_the_shim_goes_on(plain):
    client = plain.run("c", ["sleep", "60"])
    for operation, fields in (
        ("nonsense", {}),
        ("kill", {"signal": "TERM"}),
        ("resize", {"rows": "x", "cols": 1}),
        ("exec", {"exec_id": 5}),
        ("wait", {"condition": "tomorrow"}),
    ):
        with pytest.raises(InvalidArgument):
            client._call(operation, **fields)
    with pytest.raises(NotFound):
        client.exec_inspect("none")
    assert client.state().status == "running"
    log = plain.directory("c") / "shim.log"
    log.unlink(missing_ok=True)


def test_a_client_that_sends_rubbish_is_dropped(plain):
    client = plain.run("c", ["sleep", "60"])
    other = plain.connect("c")
    other._sock.send(b"\xff\xfe{{{\n")
    with pytest.raises(Unavailable):
        other.state()
    assert client.state().status == "running"


def test_shims_are_small(plain):
    client = plain.run("c", ["sleep", "60"], log=plain.log("c"))
    assert shim_pss(client) < 12_000
    plain.start_zygote(["dockp.logs.json_file_writer"])
    clients = [plain.run(f"z{n}", ["sleep", "60"], log=plain.log(f"z{n}")) for n in range(10)]
    assert sum(map(shim_pss, clients)) / 10 < 3_000


def shim_pss(client):
    for line in Path(f"/proc/{client.state().shim_pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("no Pss")


def test_the_zygote_forks_shims_that_work_and_ends_with_its_keeper(lab):
    lab.start_zygote()
    for number in range(3):
        client = lab.create(f"c{number}", f"echo {number}; exit {number}")
        with client.attach(framing="raw") as stream:
            client.claim()
            client.start()
            assert read_all(stream) == f"{number}\n".encode()
        assert client.wait(timeout=10).exit_code == number
        client.release()
    lab.zygote.close()
    eventually(lambda: not (lab.root / "zygote.sock").exists())
    client = lab.run("after", "exit 6")
    assert client.wait(timeout=10).exit_code == 6


def test_a_run_root_with_a_long_path_works(tmp_path):
    root = tmp_path / ("x" * 100) / ("y" * 100)
    (root / "containers").mkdir(parents=True)
    lab = shimlab.Lab(root)
    try:
        lab.start_zygote()
        assert lab.run("c", "exit 2").wait(timeout=10).exit_code == 2
        assert lab.connect("c").state().exit_code == 2
    finally:
        lab.close()
