"""Containers with a terminal: job control, sizes, detaching and coming back."""

from __future__ import annotations

import signal
import time

from shimlab import eventually, read_all, read_until

from dockp.shim.streams import DetachKeys

KEYS = b"\x10\x11"


def shell(lab, id="c", **config):
    client = lab.create(id, ["sh"], terminal=True, open_stdin=True, stdin_once=True, env=["PS1=$ "], **config)
    stream = client.attach(stdin=True, detach_keys=KEYS)
    client.claim()
    client.start()
    assert not stream.framed
    read_until(stream, b"$ ")
    return client, stream


def test_a_shell_echoes_runs_and_ends_lines_as_a_terminal_does(lab):
    client, stream = shell(lab)
    stream.send(b"echo $((40+2))\r")
    assert b"echo $((40+2))\r\n42\r\n" in read_until(stream, b"\n42\r\n")
    stream.send(b"exit 3\r")
    read_all(stream)
    assert stream.wait_end() == "exit"
    assert client.wait(timeout=10).exit_code == 3


def test_control_c_interrupts_the_foreground_and_not_the_shell(lab):
    client, stream = shell(lab)
    stream.send(b"sleep 60; echo interrupted=$?\r")
    read_until(stream, b"=$?\r\n")
    time.sleep(0.2)
    stream.send(b"\x03")
    assert b"=130" in read_until(stream, b"$ ") or b"130" in read_until_status(stream)
    assert client.state().status == "running"


def read_until_status(stream):
    stream.send(b"echo status=$?\r")
    return read_until(stream, b"status=130")


def test_jobs_can_be_stopped_and_continued(lab):
    _, stream = shell(lab)
    stream.send(b"sleep 60\r")
    read_until(stream, b"sleep 60\r\n")
    time.sleep(0.2)
    stream.send(b"\x1a")
    assert b"topped" in read_until(stream, b"$ ")
    stream.send(b"kill %1; fg; echo back\r")
    read_until(stream, b"\nback\r\n")


def test_the_window_size_is_set_before_the_start_and_after(lab):
    client = lab.create(
        "c", "stty size; trap 'stty size' WINCH; while :; do sleep 0.05; done", terminal=True, console_size=[33, 77]
    )
    with client.attach() as stream:
        client.claim()
        client.start()
        assert read_until(stream, b"\r\n") == b"33 77\r\n"
        time.sleep(0.2)
        client.resize(40, 100)
        assert read_until(stream, b"\r\n") == b"40 100\r\n"


def test_detaching_leaves_the_shell_and_attaching_finds_it_again(lab):
    client, stream = shell(lab)
    stream.send(b"word=kept\r")
    read_until(stream, b"$ ")
    stream.send(b"\x10")
    time.sleep(0.05)
    stream.send(b"\x11")
    read_all(stream)
    assert stream.wait_end() == "detach"
    stream.close()
    assert client.state().status == "running"
    with client.attach(stdin=True, detach_keys=KEYS) as again:
        again.send(b"echo still $word\r")
        read_until(again, b"\nstill kept\r\n")


def test_the_terminal_has_a_name_inside_after_a_restart_too(real):
    client = real.create("c", "tty; tty </dev/console", terminal=True, restart={"name": "on-failure", "max": 1})
    with client.attach() as stream:
        client.claim()
        client.start()
        assert read_all(stream) == b"/dev/pts/0\r\n/dev/console\r\n"


def test_half_of_the_detach_keys_is_input(lab):
    client = lab.create("c", "head -c 3 | od -c", terminal=True, open_stdin=True, stdin_once=True)
    stream = client.attach(stdin=True, detach_keys=KEYS)
    client.start()
    stream.send(b"a\x10")
    time.sleep(0.05)
    stream.send(b"b\r")
    read_until(stream, b"020   b")


def test_two_sessions_see_the_same_terminal(lab):
    client, stream = shell(lab)
    with client.attach(stdin=True) as second:
        second.send(b"echo both\r")
        read_until(second, b"\nboth\r\n")
        read_until(stream, b"\nboth\r\n")


def test_all_output_comes_before_the_end_of_a_terminal(lab):
    client = lab.create("c", "seq 1 5000", terminal=True)
    with client.attach() as stream:
        client.start()
        assert read_all(stream) == b"".join(b"%d\r\n" % n for n in range(1, 5001))


def test_a_vanished_session_leaves_the_container_running(lab):
    client, stream = shell(lab)
    stream.close()
    time.sleep(0.1)
    assert client.state().status == "running"
    with client.attach(stdin=True) as again:
        again.send(b"exit 0\r")
        read_all(again)
    assert client.wait(timeout=10).exit_code == 0


def test_a_hangup_of_the_terminal_ends_its_processes_with_the_container(real):
    client, stream = shell(real)
    stream.send(b"(trap '' HUP; sleep 600) &\r")
    read_until(stream, b"$ ")
    client.kill(signal.SIGKILL)
    assert client.wait(timeout=10).exit_code == 137
    eventually(lambda: read_all(stream) is not None)


def test_detach_keys_are_found_however_the_input_is_cut():
    text = b"some\x10thing\x10\x10\x11rest"
    for size in range(1, len(text)):
        keys = DetachKeys(KEYS)
        seen = b""
        for start in range(0, len(text), size):
            data, found = keys.feed(text[start : start + size])
            seen += data
            if found:
                break
        assert found
        assert seen == b"some\x10thing\x10"
    assert DetachKeys(b"").feed(text) == (text, False)
