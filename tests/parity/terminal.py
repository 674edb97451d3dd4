"""What a user sees at a terminal: sessions typed by a program, the same against both daemons."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

import pexpect
from twins import Twin

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_PROMPTS = re.compile(r"(\s*/ # )+|\n\s*\n")  # drawn again whenever the size arrives


class Screen:
    """A docker command at a terminal of 24 rows and 80 columns."""

    def __init__(self, twin: Twin, command: str) -> None:
        self.twin = twin
        self.child: pexpect.spawn[str] = pexpect.spawn(
            twin.prefix[0],
            [*twin.prefix[1:], "bash", "-c", f"exec {command}"],
            env=twin.environment,
            encoding="utf-8",
            timeout=15,
            dimensions=(24, 80),
        )
        self.seen = ""

    def type(self, text: str) -> None:
        self.child.send(text)

    def until(self, pattern: str) -> None:
        """Read until ``pattern`` comes."""
        self.child.expect(pattern)
        self.seen += (self.child.before or "") + (self.child.after or "")

    def end(self) -> str:
        """Read to the end; everything seen, and the exit code."""
        self.child.expect(pexpect.EOF)
        self.seen += self.child.before or ""
        self.child.close()
        text = _ESCAPES.sub("", self.seen).replace("\r", "")
        text = _PROMPTS.sub("\n", text)
        code = self.child.exitstatus if self.child.exitstatus is not None else -(self.child.signalstatus or 0)
        return f"{self.twin.normal(text)}\nexit code {code}"


def shell(twin: Twin) -> str:
    screen = Screen(twin, "docker run -it --rm --name tty busybox sh")
    screen.until("# ")
    for line, answer in (("tty", "/dev/pts/0"), ("stty size", "24 80"), ("echo $TERM", "xterm")):
        screen.type(f"{line}\r")
        screen.until(answer)
    screen.type("exit 5\r")
    return screen.end()


def resize(twin: Twin) -> str:
    screen = Screen(twin, "docker run -it --rm busybox sh")
    screen.until("# ")
    time.sleep(1)  # the client listens for new sizes a moment after the start
    screen.child.setwinsize(33, 101)
    time.sleep(0.5)
    screen.type("stty size\r")
    screen.until("33 101")
    screen.until("# ")
    screen.type("exit\r")
    return screen.end()


def interrupt(twin: Twin) -> str:
    screen = Screen(twin, "docker run -it --rm busybox sh")
    screen.until("# ")
    screen.type("sleep 100\r")
    time.sleep(0.5)
    screen.type("\x03")
    time.sleep(0.5)
    screen.type("echo $?\r")
    screen.until("130")
    time.sleep(0.3)
    screen.type("\x04")
    return screen.end()


def jobs(twin: Twin) -> str:
    screen = Screen(twin, "docker run -it --rm busybox sh")
    screen.until("# ")
    screen.type("sleep 100\r")
    time.sleep(0.5)
    screen.type("\x1a")
    screen.until("# ")
    screen.type("jobs\r")
    screen.until("# ")
    screen.type("kill %1\r")
    screen.until("# ")
    screen.type("exit 0\rexit 0\r")
    return screen.end()


def detach(twin: Twin) -> str:
    screen = Screen(twin, "docker run -it --name det busybox sh")
    screen.until("# ")
    screen.type("x=kept\r")
    screen.until("# ")
    screen.type("\x10\x11")
    first = screen.end()
    state = twin("docker inspect -f '{{.State.Running}}' det")
    again = Screen(twin, "docker attach det")
    time.sleep(0.7)
    again.type("echo $x\r")
    again.until("kept\r\n")
    again.until("# ")
    again.type("exit 3\r")
    return f"{first}\n{state}\n{again.end().rpartition('kept')[2]}\n{twin('docker rm det')}"


def own_keys(twin: Twin) -> str:
    screen = Screen(twin, "docker run -it --detach-keys ctrl-x,q --name keys busybox sh")
    screen.until("# ")
    screen.type("\x10echo p\r")
    screen.until("# ")
    screen.type("\x18q")
    return f"{screen.end()}\n{twin('docker rm -f keys')}"


def execute(twin: Twin) -> str:
    twin("docker run -d --name host busybox sleep 100")
    screen = Screen(twin, "docker exec -it host sh")
    screen.until("# ")
    for line, answer in (("tty", "/dev/pts/0"), ("stty size", "24 80")):
        screen.type(f"{line}\r")
        screen.until(answer)
    time.sleep(0.3)
    screen.type("\x10\x11")
    first = screen.end()
    again = Screen(twin, "docker exec -it host sh -c 'exit 4'").end()
    return f"{first}\n{again}\n{twin('docker rm -f host')}"


def missing(twin: Twin) -> str:
    return Screen(twin, "docker run -it --rm busybox nothere").end()


def restarted(twin: Twin) -> str:
    twin("docker create -it --name again busybox sh")
    screen = Screen(twin, "docker start -ai again")
    screen.until("# ")
    screen.type("exit 6\r")
    first = screen.end()
    second = Screen(twin, "docker start -ai again")
    second.until("# ")
    second.type("exit 7\r")
    return f"{first}\n{second.end()}\n{twin('docker logs again | grep -c exit')}\n{twin('docker rm again')}"


def killed(twin: Twin) -> str:
    screen = Screen(twin, "docker run -it --name victim busybox sh")
    screen.until("# ")
    outcome = twin("docker kill victim")
    return f"{outcome}\n{screen.end()}\n{twin('docker rm victim')}"


def signalled(twin: Twin) -> str:
    """Without a terminal of its own the client hands signals on."""
    script = 'trap "echo got; exit 9" INT; echo up; while :; do sleep 0.1; done'
    screen = Screen(twin, f"docker run --rm --name sig busybox sh -c '{script}'")
    screen.until("up")
    screen.type("\x03")
    return screen.end()


def followed(twin: Twin) -> str:
    twin("docker run -d --name talk busybox sh -c 'for i in 1 2 3; do echo $i; sleep 0.3; done'")
    return f"{Screen(twin, 'docker logs -f talk').end()}\n{twin('docker rm -f talk')}"


SESSIONS: Mapping[str, Callable[[Twin], str]] = {
    session.__name__: session
    for session in (
        *(shell, resize, interrupt, jobs, detach, own_keys, execute, missing, restarted, killed, signalled, followed),
    )
}
