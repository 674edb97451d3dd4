"""A runtime that isolates nothing: it forks and executes. Enough to test the shim by itself, on any kernel."""

from __future__ import annotations

import os

from dockp.linux.jsonlite import loads
from dockp.linux.process import close_from
from dockp.spi.runtime import RuntimeFailure

_KINDS = {"FileNotFoundError": "not-found", "PermissionError": "not-executable"}


class Runtime:
    def __init__(self, id: str, bundle: str, options: dict[str, str]) -> None:
        with open(bundle + "/config.json", "rb") as file:
            self.spec = loads(file.read())
        self.options = options
        self.pid = 0
        self._go = self._failed = -1
        self._oom = options.get("oom") == "1"
        if options.get("refuse"):
            raise RuntimeFailure(options["refuse"])

    def create(self, stdio, netns):
        wait, self._go = os.pipe2(os.O_CLOEXEC)
        self.pid, self._failed = self._fork(self.spec["process"], stdio, wait)
        os.close(wait)
        return self.pid

    def _fork(self, process, stdio, wait=-1):
        failed, report = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid:
            os.close(report)
            return pid, failed
        try:
            os.setsid()
            if process.get("terminal"):
                import fcntl

                fcntl.ioctl(stdio[0], 0x540E, 0)
            if wait >= 0:
                os.close(self._go)
                if not os.read(wait, 1):
                    os._exit(1)
            high = [os.dup(descriptor) for descriptor in stdio]
            report = os.dup(report)
            while min(high) < 3:
                high = [os.dup(descriptor) for descriptor in high]
            for number, descriptor in enumerate(high):
                os.dup2(descriptor, number)
            os.dup2(report, 3, inheritable=False)
            close_from(4)
            report = 3
            os.chdir(process.get("cwd", "/"))
            env = dict(entry.split("=", 1) for entry in process["env"])
            os.execvpe(process["args"][0], process["args"], env)
        except OSError as failure:
            os.write(report, f"{type(failure).__name__}:{failure}".encode())
        os._exit(127)

    def _result(self, failed):
        text = os.read(failed, 4096).decode()
        os.close(failed)
        if text:
            kind, _, message = text.partition(":")
            raise RuntimeFailure(message, _KINDS.get(kind, "failed"))

    def start(self):
        os.write(self._go, b"+")
        os.close(self._go)
        self._go = -1
        failed, self._failed = self._failed, -1
        self._result(failed)

    def exec(self, process, stdio):
        pid, failed = self._fork(process, stdio)
        try:
            self._result(failed)
        except RuntimeFailure:
            os.waitpid(pid, 0)
            raise
        return pid

    def signal(self, signum, all=False):
        try:
            if all:
                os.killpg(self.pid, signum)
            else:
                os.kill(self.pid, signum)
        except ProcessLookupError:
            pass

    def pause(self):
        os.kill(self.pid, 19)

    def resume(self):
        os.kill(self.pid, 18)

    def update(self, resources):
        return [f"no such resource: {name}" for name in resources]

    def stats(self):
        return {"pids": 1}

    def processes(self):
        return [self.pid]

    def warnings(self):
        return ["nothing is isolated"]

    def oom_killed(self):
        return self._oom

    def remove(self):
        for descriptor in (self._go, self._failed):
            if descriptor >= 0:
                os.close(descriptor)
        self._go = self._failed = -1
        if self.pid:
            try:
                os.killpg(self.pid, 9)
            except ProcessLookupError:
                self.pid = 0
