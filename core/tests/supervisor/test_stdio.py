"""Between a terminal, or pipes, and an attached stream."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

import dockp
from dockp.supervisor.stdio import Demultiplexer, pump

CORE = str(Path(dockp.__file__).resolve().parent.parent)


def frame(stream, data):
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class FakeStream:
    """The attached end of a socketpair, as `AttachStream` behaves."""

    def __init__(self):
        self.sock, self.far = socket.socketpair()

    def fileno(self):
        return self.sock.fileno()

    def recv(self, size):
        return self.sock.recv(size)

    def send(self, data):
        return self.sock.send(data, socket.MSG_NOSIGNAL)

    def close_stdin(self):
        self.sock.shutdown(socket.SHUT_WR)

    def wait_end(self):
        return "exit"


@pytest.fixture
def stream():
    stream = FakeStream()
    yield stream
    stream.sock.close()
    stream.far.close()


def test_frames_are_taken_apart_however_they_are_cut():
    data = frame(1, b"one") + frame(2, b"") + frame(2, b"two" * 1000) + frame(1, b"x")
    for size in (1, 3, 7, 8, 9, 1000, len(data)):
        frames = Demultiplexer()
        found = {1: b"", 2: b""}
        for start in range(0, len(data), size):
            for number, piece in frames.feed(data[start : start + size]):
                found[number] += piece
        assert found == {1: b"onex", 2: b"two" * 1000}


def test_what_is_no_frame_is_refused():
    with pytest.raises(ValueError, match="not a stream frame"):
        Demultiplexer().feed(b"no frame at all")


def test_output_is_parted_and_input_goes_through_to_its_end(stream, tmp_path):
    stdin_read, stdin_write = os.pipe()
    out, err = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("out", "err"))
    ends = []
    thread = threading.Thread(
        target=lambda: ends.append(pump(stream, stdin=stdin_read, stdout=out, stderr=err, tty=False))
    )
    thread.start()
    os.write(stdin_write, b"question")
    assert stream.far.recv(100) == b"question"
    os.close(stdin_write)
    assert stream.far.recv(100) == b""
    stream.far.sendall(frame(1, b"to out ") + frame(2, b"to err") + frame(1, b"again"))
    stream.far.close()
    thread.join(10)
    assert ends == ["exit"]
    assert (tmp_path / "out").read_bytes() == b"to out again"
    assert (tmp_path / "err").read_bytes() == b"to err"
    for descriptor in (stdin_read, out, err):
        os.close(descriptor)


def test_streams_that_are_not_wanted_are_left_alone(stream, tmp_path):
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    stream.far.sendall(frame(2, b"err") + frame(1, b"out"))
    stream.far.close()
    assert pump(stream, stdin=None, stdout=out, stderr=None, tty=False) == "exit"
    assert (tmp_path / "out").read_bytes() == b"out"
    os.close(out)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_circle_of_pipes_does_not_lock_up(stream, blocking):
    """Whoever feeds us reads our output only after it wrote everything, and the container echoes at once."""
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    os.set_blocking(stdout_write, blocking)
    os.set_blocking(stdin_read, blocking)
    data = os.urandom(500_000)

    def echo():
        while piece := stream.far.recv(65536):
            stream.far.sendall(piece)
        stream.far.close()

    pumping = threading.Thread(
        target=lambda: (
            pump(stream, stdin=stdin_read, stdout=stdout_write, stderr=None, tty=True),
            os.close(stdout_write),
        )
    )
    echoing = threading.Thread(target=echo)
    pumping.start()
    echoing.start()
    view = memoryview(data)
    while view:
        view = view[os.write(stdin_write, view[:65536]) :]
    os.close(stdin_write)
    got = b""
    while piece := os.read(stdout_read, 65536):
        got += piece
    pumping.join(10)
    echoing.join(10)
    assert got == data
    assert os.get_blocking(stdout_read)
    os.close(stdin_read)
    os.close(stdout_read)


def test_a_reader_that_went_away_is_an_error(stream):
    read, write = os.pipe()
    os.close(read)
    stream.far.sendall(b"anything")
    with pytest.raises(BrokenPipeError):
        pump(stream, stdin=None, stdout=write, stderr=None, tty=True)
    os.close(write)


def test_a_process_that_ended_while_input_was_left_is_no_error(stream):
    stdin_read, stdin_write = os.pipe()
    os.write(stdin_write, b"x" * 60000)
    stream.far.send(b"bye")
    stream.far.close()
    read, write = os.pipe()
    assert pump(stream, stdin=stdin_read, stdout=write, stderr=None, tty=True) == "exit"
    assert os.read(read, 10) == b"bye"
    for descriptor in (stdin_read, stdin_write, read, write):
        os.close(descriptor)


def test_signals_are_handed_on_where_asked(stream):
    got = []

    def far():
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
        stream.far.close()

    thread = threading.Thread(target=far)
    thread.start()
    pump(stream, stdin=None, stdout=None, stderr=None, tty=False, on_signal=got.append)
    thread.join()
    assert sorted(got) == sorted([signal.SIGTERM, signal.SIGUSR1])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# --- a real terminal. The session runs in a process of its own, whose terminal the test holds.

SESSION = f"""
import os, signal, socket, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests were started with nohup
sys.path.insert(0, {CORE!r})
from dockp.supervisor.client import AttachStream
from dockp.supervisor.stdio import pump
class Client:
    def why_ended(self, name): return "detach"
stream = AttachStream(Client(), socket.socket(fileno=int(sys.argv[1])), ("attach", 1), False)
def resized(rows, columns):
    os.write(int(sys.argv[2]), f"{{rows}}x{{columns}} ".encode())
print("ended:", pump(stream, stdin=0, stdout=1, stderr=2, tty=True, on_resize=resized))
"""


class Session:
    def __init__(self):
        self.master, peer = pty.openpty()
        termios.tcsetwinsize(self.master, (24, 80))
        self.before = termios.tcgetattr(peer)
        self.far, near = socket.socketpair()
        self.sizes, sizes = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SESSION, str(near.fileno()), str(sizes)],
            stdin=peer, stdout=peer, stderr=peer, start_new_session=True, pass_fds=[near.fileno(), sizes],
        )  # fmt: skip
        near.close()
        os.close(sizes)
        self.peer = peer

    def read(self, wanted):
        data = b""
        while wanted not in data:
            assert select.select([self.master], [], [], 10)[0], data
            data += os.read(self.master, 65536)
        return data

    def close(self):
        self.process.kill()
        self.process.wait()
        self.far.close()
        for descriptor in (self.master, self.peer, self.sizes):
            os.close(descriptor)


@pytest.fixture
def session():
    session = Session()
    yield session
    session.close()


def test_a_terminal_is_raw_for_the_session_and_itself_again_after(session):
    assert os.read(session.sizes, 100) == b"24x80 "
    os.write(session.master, b"\x03\x04\x1a\r")
    assert session.far.recv(100) == b"\x03\x04\x1a\r"
    session.far.sendall(b"one\r\n")
    assert session.read(b"one\r\n").endswith(b"one\r\n")
    assert not termios.tcgetattr(session.peer)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    session.far.close()
    session.read(b"ended: detach")
    session.process.wait(10)
    assert termios.tcgetattr(session.peer) == session.before


def test_a_new_window_size_is_told(session):
    assert os.read(session.sizes, 100) == b"24x80 "
    termios.tcsetwinsize(session.master, (50, 132))
    session.process.send_signal(signal.SIGWINCH)
    assert os.read(session.sizes, 100) == b"50x132 "


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_deadly_signal_restores_the_terminal_first(session, number):
    os.read(session.sizes, 100)
    session.process.send_signal(number)
    assert session.process.wait(10) == -number
    assert termios.tcgetattr(session.peer) == session.before


def test_a_terminal_that_hangs_up_ends_the_input(session):
    os.read(session.sizes, 100)
    os.close(session.peer)
    os.close(session.master)
    session.master, session.peer = os.pipe()
    assert session.far.recv(100) == b""
