"""Progress redraws lines in a terminal and prints changes of status elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import termios
from typing import TextIO

from dockp.cli.format.progress import Progress


def test_a_pipe_gets_each_status_once_and_no_numbers() -> None:
    out = io.StringIO()
    with Progress(out) as progress:
        progress.update("a1", "Downloading", 1, 100)
        progress.update("a1", "Downloading", 50, 100)
        progress.update("", "Reading")
        progress.update("a1", "Pull complete")
    assert out.getvalue() == "a1: Downloading\nReading\na1: Pull complete\n"


class Screen:
    """A terminal with rows of text, driven by what was written to it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.stream: TextIO = os.fdopen(follower, "w")

    def read(self) -> str:
        chunks = []
        while select.select([self.leader], [], [], 0)[0]:
            chunks.append(os.read(self.leader, 65536))
        return b"".join(chunks).decode().replace("\r\n", "\n")

    def lines(self) -> list[str]:
        rows = [""]
        row = 0
        for move, count, clear, text, newline in re.findall(
            r"(?:\x1b\[(\d+)([AB]))|(\x1b\[2K)|([^\x1b\n\r]+)|(\n)", self.read()
        ):
            if move:
                row += int(move) if count == "B" else -int(move)
            elif clear:
                rows[row] = ""
            elif text:
                rows[row] = text
            elif newline:
                row += 1
                rows.extend([""] * (row + 1 - len(rows)))
        return rows[:-1]

    def close(self) -> None:
        self.stream.close()
        os.close(self.leader)


def test_a_terminal_shows_the_last_state_of_every_line() -> None:
    screen = Screen(120, 24)
    try:
        with Progress(screen.stream) as progress:
            progress.update("a1", "Downloading", 0, 1000)
            progress.update("b2", "Waiting")
            for done in range(0, 1001, 10):
                progress.update("a1", "Downloading", done, 1000)
            progress.update("b2", "Pull complete")
        assert screen.lines() == [f"a1: Downloading [{'=' * 50}>] 1kB/1kB", "b2: Pull complete"]
    finally:
        screen.close()


def test_mere_numbers_are_drawn_only_now_and_then() -> None:
    screen = Screen(80, 24)
    try:
        with Progress(screen.stream) as progress:
            for done in range(2000):
                progress.update("a1", "Downloading", done, 2000)
        text = screen.read()
        assert text.count("Downloading") < 50
        assert text.endswith("a1: Downloading 1.999kB/2kB\x1b[1B\r")
    finally:
        screen.close()


def test_a_line_never_wraps_and_never_reaches_above_the_screen() -> None:
    screen = Screen(20, 5)
    try:
        with Progress(screen.stream) as progress:
            for number in range(10):
                progress.update(f"layer{number}", "Waiting for something long")
            for number in range(10):
                progress.update(f"layer{number}", "Done")
        text = screen.read()
        assert max(map(int, re.findall(r"\x1b\[(\d+)A", text))) < 5
        assert all(len(line) < 20 for line in re.split(r"\n|\x1b\[\d*[ABK]|\r", text))
    finally:
        screen.close()


def test_a_total_that_is_unknown_or_wrong_shows_what_is_done() -> None:
    screen = Screen(80, 24)
    try:
        with Progress(screen.stream) as progress:
            progress.update("a", "Importing", 1500)
            progress.update("b", "Importing", 2500, 1000)
        assert screen.lines() == ["a: Importing 1.5kB", "b: Importing 2.5kB"]
    finally:
        screen.close()
