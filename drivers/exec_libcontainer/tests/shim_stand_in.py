"""A stand-in for the shim: one single-threaded process that drives `Runtime` as told, one JSON line a request.

Started by ``conftest.Box`` in mount and network namespaces of its own.
"""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import time
from typing import Any

from dockp.spi.runtime import RuntimeFailure
from dockp_exec_libcontainer.runtime import Runtime

runtimes: dict[str, Runtime] = {}
statuses: dict[int, int] = {}
masters: dict[int, int] = {}


def stdio(request: dict[str, Any]) -> tuple[int, int, int]:
    if request.get("terminal"):
        master, replica = pty.openpty()
        masters[replica] = master
        return replica, replica, replica
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    source = os.open(request.get("stdin") or "/dev/null", os.O_RDONLY)
    return source, os.open(request["stdout"], flags, 0o600), os.open(request["stderr"], flags, 0o600)


def drain(master: int, seconds: float) -> str:
    """What the terminal shows until it is silent for a while or its other end closes."""
    output = b""
    while select.select([master], [], [], seconds)[0]:
        try:
            piece = os.read(master, 4096)
        except OSError:  # EIO: no process has the replica any more
            break
        if not piece:
            break
        output += piece
    return output.decode()


def answer(request: dict[str, Any]) -> Any:
    verb = request["verb"]
    if verb == "new":
        runtimes[request["id"]] = Runtime(request["id"], request["bundle"], {"cache": request["cache"]})
        return None
    if verb == "read":
        return sorted(int(name) for name in os.listdir("/proc/self/fd"))
    if verb == "mounts":
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            return file.read().splitlines()
    if verb == "namespaces":
        return {name: os.readlink(f"/proc/{request['pid']}/ns/{name}") for name in os.listdir("/proc/self/ns")}
    if verb == "wait":
        pid, deadline = request["pid"], time.monotonic() + request.get("timeout", 20)
        while pid not in statuses:
            # Every child: init of a pid namespace ends only when all the others in there were reaped.
            found, status = os.waitpid(-1, os.WNOHANG)
            if found:
                statuses[found] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise TimeoutError(f"process {pid} does not end")
            else:
                time.sleep(0.005)
        return statuses[pid]
    if verb == "children":
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        return True
    if verb == "type":
        os.write(masters[request["pid"]], request["text"].encode())
        return drain(masters[request["pid"]], 0.4)
    runtime = runtimes[request["id"]]
    if verb in ("create", "exec"):
        descriptors = stdio(request)
        try:
            if verb == "create":
                netns = os.open(request["netns"], os.O_RDONLY) if request.get("netns") else None
                try:
                    pid = runtime.create(descriptors, netns)
                finally:
                    if netns is not None:
                        os.close(netns)
            else:
                pid = runtime.exec(request["process"], descriptors)
        finally:
            for fd in set(descriptors):
                os.close(fd)
        if request.get("terminal"):
            masters[pid] = masters.pop(descriptors[0])
        return pid
    if verb == "signal":
        return runtime.signal(request["number"], request.get("all", False))
    if verb == "update":
        return runtime.update(request["resources"])
    return getattr(runtime, verb)()


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"value": answer(request)}
        except RuntimeFailure as failure:
            reply = {"failure": str(failure), "kind": failure.kind}
        except BaseException as failure:
            reply = {"error": f"{type(failure).__name__}: {failure}"}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
