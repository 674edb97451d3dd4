"""``-it`` through a real terminal: what the person at the keyboard sees."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pexpect
import pytest
from harness import Dockp, wait_for

PROMPT = r"[#$] $"


@pytest.fixture
def person(debian: Dockp) -> Iterator[Dockp]:
    yield debian
    debian.clear()


def sit_down(dockp: Dockp, *arguments: str, rows: int = 24, columns: int = 80) -> pexpect.spawn:
    child = pexpect.spawn(
        dockp.command[0], [*dockp.globals, *arguments], env=dockp.environment, timeout=20, dimensions=(rows, columns)
    )
    child.delaybeforesend = None
    return child


def say(child: pexpect.spawn, line: str, answer: str) -> str:
    child.sendline(line)
    child.expect(answer)
    return str(child.after.decode())


def test_bash_has_job_control_and_a_window_that_resizes(person: Dockp) -> None:
    child = sit_down(person, "run", "-it", "--rm", "--network", "none", "debian:bookworm", "bash", rows=30, columns=100)
    child.expect(PROMPT)
    assert say(child, "stty size", r"\d+ \d+\r\n") == "30 100\r\n"
    child.setwinsize(40, 120)
    wait_for(lambda: "40 120" in say(child, "stty size", r"\d+ \d+\r\n"), "the size arrives")
    child.expect(PROMPT)
    child.sendline("sleep 100")
    time.sleep(0.3)
    child.send("\x1a")
    child.expect(r"\[1\]\+\s+Stopped")
    child.expect(PROMPT)
    child.sendline("jobs; kill %1; tty")
    child.expect("/dev/pts/0")
    child.expect(PROMPT)
    child.sendline("cat")
    time.sleep(0.3)  # until cat reads: before, readline has the terminal's echo off
    child.sendline("echoed")
    child.expect("echoed\r\nechoed")
    child.send("\x03")
    child.expect(r"\^C")
    child.expect(PROMPT)
    child.sendline("exit 6")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 6
    assert person.ok("ps", "-aq") == ""


def test_detach_with_the_keys_and_come_back(person: Dockp) -> None:
    child = sit_down(person, "run", "-it", "--name", "later", "--network", "none", "debian:bookworm", "bash")
    child.expect(PROMPT)
    child.sendline("MARK=still-here")
    child.expect(PROMPT)
    child.send("\x10")
    time.sleep(0.2)  # the sequence may come in two pieces
    child.send("\x11")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert person.state("later") == "running"
    again = sit_down(person, "attach", "later")
    again.sendline("echo $MARK")
    again.expect("still-here\r\n")
    again.sendline("exit 4")
    again.expect(pexpect.EOF)
    again.close()
    assert again.exitstatus == 4


def test_other_detach_keys_can_be_chosen(person: Dockp) -> None:
    child = sit_down(person, "run", "-it", "--name", "other", "--detach-keys", "ctrl-a,d", "--network", "none",
                     "debian:bookworm", "bash")  # fmt: skip
    child.expect(PROMPT)
    child.send("\x01d")
    child.expect(pexpect.EOF)
    child.close()
    assert person.state("other") == "running"


def test_exec_has_a_terminal_of_its_own(person: Dockp) -> None:
    person.ok("run", "-d", "--name", "host", "--network", "none", "debian:bookworm", "sleep", "100")
    child = sit_down(person, "exec", "-it", "host", "bash", rows=33, columns=77)
    child.expect(PROMPT)
    assert say(child, "stty size", r"\d+ \d+\r\n") == "33 77\r\n"
    child.sendline("exit 3")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


def test_the_terminal_is_as_it_was_afterwards(person: Dockp) -> None:
    shell = pexpect.spawn("bash", ["--norc"], env=person.environment | {"PS1": "host> "}, timeout=20)
    shell.expect("host> ")
    shell.sendline("stty -g")
    shell.expect(r"(?:[0-9a-f]+:)+[0-9a-f]+")
    before = shell.after
    shell.expect("host> ")
    shell.sendline(f"{person.command[0]} run -it --rm --network none debian:bookworm true; stty -g")
    shell.expect(r"(?:[0-9a-f]+:)+[0-9a-f]+")
    assert shell.after == before
    shell.close(force=True)


def test_t_without_a_terminal_is_refused(person: Dockp) -> None:
    done = person("run", "-it", "--rm", "debian:bookworm", "true")
    assert done.returncode == 1 or done.returncode == 125
    assert re.search("the input device is not a TTY", done.stderr)


def test_ctrl_c_without_a_terminal_reaches_the_process(person: Dockp) -> None:
    child = sit_down(person, "run", "--rm", "--name", "loop", "--network", "none", "debian:bookworm", "bash", "-c",
                     "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done")  # fmt: skip
    child.expect("ready")
    child.send("\x03")
    child.expect("caught")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 9
