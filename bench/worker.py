"""One contestant's corner: a process in mount and network namespaces of its own that runs and times commands there.

Reads one JSON request a line from standard input and answers with one line each; see `_OPERATIONS`. All contestants'
commands are started and timed by this same loop, so what it costs itself is the same for all.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from dockp.linux import mounts, namespaces, process

Answer = dict[str, Any]

# Where the contestants keep things that no option moves elsewhere; each gets an empty one that vanishes with it. The
# last is where they would load an AppArmor profile, which would stay.
_HIDDEN = (
    "/run",
    "/etc/docker",
    "/etc/cni/net.d",
    "/var/lib/cni",
    "/var/lib/containers",
    "/etc/containers/networks",
    "/sys/kernel/security",
)
_CAPTURED = 4000
_GRACE = 20.0
_READY = 60.0

_daemons: list[subprocess.Popen[bytes]] = []


def enter() -> None:
    """Leave the host's mounts, links and rules behind."""
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
    mounts.set_propagation("/", "rprivate")
    for path in _HIDDEN:
        if Path(path).is_dir():
            mounts.mount("tmpfs", path, "tmpfs", 0, "mode=755")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)


class _Job:
    """A started command, its output caught in an anonymous file."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.output = os.memfd_create("output")
        self.began = time.perf_counter()
        self.pid = os.posix_spawnp(
            argv[0],
            list(argv),
            env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, self.output, 1),
                (os.POSIX_SPAWN_DUP2, self.output, 2),
            ],
        )
        self.pidfd = os.pidfd_open(self.pid)

    def end(self) -> Answer:
        """Reap it (kill it first where it still runs)."""
        late = not select.select([self.pidfd], [], [], 0)[0]
        if late:
            os.kill(self.pid, 9)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        seconds = time.perf_counter() - self.began
        size = os.fstat(self.output).st_size
        text = os.pread(self.output, _CAPTURED, max(0, size - _CAPTURED)).decode(errors="replace")
        os.close(self.output)
        os.close(self.pidfd)
        return {"seconds": seconds, "code": "timeout" if late else code, "output": text}


def run(argv: Sequence[str], env: Mapping[str, str], timeout: float) -> Answer:
    """Run one command to its end."""
    job = _Job(argv, env)
    select.select([job.pidfd], [], [], timeout)
    return job.end()


def burst(argvs: Sequence[Sequence[str]], clients: int, env: Mapping[str, str], timeout: float) -> Answer:
    """Run many, so many at a time; the wall time of all, and what each said."""
    waiting, running, answers = list(reversed(argvs)), list[_Job](), []
    began = time.perf_counter()
    while waiting or running:
        while waiting and len(running) < clients:
            running.append(_Job(waiting.pop(), env))
        left = began + timeout - time.perf_counter()
        ended = select.select([job.pidfd for job in running], [], [], max(0.0, left))[0]
        for job in list(running):
            if job.pidfd in ended or left <= 0:
                running.remove(job)
                answers.append(job.end())
        if left <= 0:
            answers += [{"seconds": 0.0, "code": "timeout", "output": "never started"} for _ in waiting]
            waiting.clear()
    return {"seconds": time.perf_counter() - began, "answers": answers}


def serve(argv: Sequence[str], env: Mapping[str, str], log: str, at: str) -> Answer:
    """Start a daemon that stays until this process is told to end; the seconds until it answered, and until it had
    listed its containers."""
    began = time.perf_counter()
    with open(log, "ab") as stream:
        started = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    _daemons.append(started)
    while not _get(at, "/_ping"):
        if started.poll() is not None or time.perf_counter() - began > _READY:
            return {}
        time.sleep(0.002)
    ready = time.perf_counter()
    _get(at, "/containers/json?all=1")
    return {"pid": started.pid, "seconds": ready - began, "listed": time.perf_counter() - began}


def _get(path: str, target: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_READY)
        try:
            client.connect(path)
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
            reply = client.makefile("rb").read()
        except OSError:
            return False
    return reply.startswith(b"HTTP/1.1 200")


def get(at: str, target: str) -> Answer:
    """Ask the daemon at a socket for something, on a connection of its own; the seconds until all of it was here."""
    began = time.perf_counter()
    if not _get(at, target):
        raise RuntimeError(f"GET {target} failed")
    return {"seconds": time.perf_counter() - began}


def stop(pid: int) -> Answer:
    """End a daemon, and wait for it."""
    for started in _daemons:
        if started.pid == pid:
            _daemons.remove(started)
            started.terminate()
            started.wait(_GRACE)
            break
    return {}


def _within(module: str, name: str) -> Callable[..., Answer]:
    """An operation of another module, which is imported by those that use it."""

    def call(**arguments: Any) -> Answer:
        operation: Callable[..., Answer] = getattr(importlib.import_module(module), name)
        return operation(**arguments)

    return call


_OPERATIONS: Mapping[str, Callable[..., Answer]] = {
    "run": run,
    "burst": burst,
    "serve": serve,
    "get": get,
    "stop": stop,
    "runtime_once": _within("bench.native", "runtime_once"),
    "start_zygote": _within("bench.native", "start_zygote"),
    "shim_once": _within("bench.native", "shim_once"),
    "hold_shims": _within("bench.native", "hold_shims"),
    "sdk_life": _within("bench.sdk", "life"),
    "sdk_create": _within("bench.sdk", "create"),
}


class Worker:
    """The benchmark's end of one corner. Raises RuntimeError with the message of what failed there."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def call(self, operation: str, **arguments: Any) -> Answer:
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        to.write(json.dumps([operation, arguments]).encode() + b"\n")
        to.flush()
        line = back.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self._process.wait()}")
        answer: Answer = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_GRACE + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    for line in requests:
        operation, arguments = json.loads(line)
        try:
            answer = _OPERATIONS[operation](**arguments)
        except Exception as failure:  # told to the benchmark, which decides
            answer = {"failed": f"{operation}: {type(failure).__name__}: {failure}"}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
    for started in _daemons:
        started.terminate()
        try:
            started.wait(_GRACE)
        except subprocess.TimeoutExpired:
            started.kill()


if __name__ == "__main__":
    process.set_name("dockp-bench")
    enter()
    # What the contestants print must not come between the answers.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, channel)
