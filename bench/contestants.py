"""Who is compared, and how each is called."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.worker import Answer, Worker

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIMIT = 120.0


class Failure(Exception):
    """A command of a contestant did not do what it was asked; the message has the command and what it said."""


class Contestant:
    """An engine in a corner of its own. ``home`` is its directory, ``cgroup`` the name of its cgroup parent."""

    name: str
    shims: str
    """What the kernel calls its per-container processes (/proc/PID/comm)."""

    def __init__(self, home: Path, cgroup: str) -> None:
        self.home = home
        self.cgroup = cgroup
        home.mkdir(parents=True)
        self.env = {"PATH": _PATH, "HOME": str(home), "LC_ALL": "C.UTF-8"}
        self.worker = Worker()

    def prefix(self) -> list[str]:
        """The command with the options that every call needs."""
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError

    def prepare(self, image: Path) -> None:
        """Start what has to run, import ``image`` as busybox."""
        self.ok(*self.import_(image, "busybox"))

    def import_(self, tar: Path, name: str) -> list[str]:
        return ["import", str(tar), name]

    def run(self, *arguments: str) -> list[str]:
        return ["run", *arguments]

    def timed(self, *arguments: str, code: int = 0) -> float:
        """Seconds that one command took. Raises Failure."""
        return float(self._checked(arguments, code)["seconds"])

    def ok(self, *arguments: str) -> str:
        """What it printed. Raises Failure."""
        return str(self._checked(arguments, 0)["output"])

    def _checked(self, arguments: Sequence[str], code: int) -> Answer:
        argv = [*self.prefix(), *arguments]
        answer = self.worker.call("run", argv=argv, env=self.env, timeout=_LIMIT)
        if answer["code"] != code:
            raise Failure(f"{' '.join(argv)}: exit {answer['code']}: {_last(answer)}")
        return answer

    def burst(self, commands: Sequence[Sequence[str]], clients: int) -> float:
        """Seconds that all took, so many at a time. Raises Failure when one failed."""
        argvs = [[*self.prefix(), *command] for command in commands]
        done = self.worker.call("burst", argvs=argvs, clients=clients, env=self.env, timeout=_LIMIT)
        bad = [answer for answer in done["answers"] if answer["code"] != 0]
        if bad:
            first = bad[0]
            raise Failure(f"{len(bad)} of {len(argvs)} × {' '.join(argvs[0])}: exit {first['code']}: {_last(first)}")
        return float(done["seconds"])

    def remove(self, names: Sequence[str]) -> float:
        """Remove containers by force; seconds that took. Raises Failure."""
        return self.timed("rm", "-f", *names)

    def close(self) -> None:
        self.worker.close()


def _last(answer: Answer) -> str:
    lines = str(answer["output"]).strip().splitlines()
    return lines[-1] if lines else "no output"


class Dockp(Contestant):
    """Embedded: no daemon, no zygote."""

    name = "dockp"
    shims = "dockp-shim"

    def __init__(self, home: Path, cgroup: str) -> None:
        super().__init__(home, cgroup)
        self.env |= {
            "DOCKP_DATA_ROOT": str(home / "data"),
            "DOCKP_EXEC_ROOT": "/run/dockp",
            "DOCKP_CACHE_DIR": str(home / "cache"),
            "DOCKP_CGROUP_PARENT": cgroup,
        }

    def prefix(self) -> list[str]:
        return [str(Path(sys.executable).parent / "dockp")]

    def version(self) -> str:
        return f"{self.ok('--version').split()[-1]}, Python {sys.version.split()[0]}"

    def import_(self, tar: Path, name: str) -> list[str]:
        return ["image", "import", str(tar), name]


class Served(Contestant):
    """A daemon, and docker's command, the same program for each of them."""

    SOCKET = "/run/bench.sock"

    def __init__(self, home: Path, cgroup: str) -> None:
        super().__init__(home, cgroup)
        self.env["DOCKER_HOST"] = f"unix://{self.SOCKET}"
        self.env["DOCKER_CONFIG"] = str(home)
        self.pid = 0

    def prefix(self) -> list[str]:
        return ["docker"]

    def daemon(self) -> list[str]:
        """The command that is the daemon."""
        raise NotImplementedError

    def version(self) -> str:
        return self.ok("version", "--format", "{{.Server.Version}}").strip()

    def prepare(self, image: Path) -> None:
        self.start()
        super().prepare(image)

    def start(self) -> Answer:
        """Start the daemon; how many ``seconds`` it took to answer, and ``listed`` to list its containers."""
        log = str(self.home / "daemon.log")
        answer = self.worker.call("serve", argv=self.daemon(), env=self.env, log=log, at=self.SOCKET)
        if "pid" not in answer:
            lines = Path(log).read_text().splitlines()
            raise Failure(f"{self.name} did not start: {lines[-1] if lines else 'no output'}")
        self.pid = int(answer["pid"])
        return answer

    def stop(self) -> None:
        self.worker.call("stop", pid=self.pid)

    def sdk(self, operation: str, **arguments: object) -> Answer:
        """Have something done through docker-py, in the worker. See `bench.sdk`."""
        return self.worker.call(operation, url=self.env["DOCKER_HOST"], **arguments)

    def idle_memory(self) -> float:
        """Proportional set size, in bytes, of the daemon and all that it has started but for containers."""
        return sum(pss(pid) for pid in descendants(self.pid))


class Docker(Served):
    """Debian's dockerd, warm."""

    name = "docker"
    shims = "containerd-shim"

    def daemon(self) -> list[str]:
        argv = ["dockerd", "--host", self.env["DOCKER_HOST"], "--data-root", str(self.home / "data")]
        argv += ["--exec-root", "/run/docker-exec", "--pidfile", "/run/dockerd.pid"]
        return [*argv, "--cgroup-parent", f"/{self.cgroup}", "--exec-opt", "native.cgroupdriver=cgroupfs"]


class Dockpd(Served):
    """dockpd, with docker's command."""

    name = "dockpd"
    shims = "dockp-shim"

    def __init__(self, home: Path, cgroup: str) -> None:
        super().__init__(home, cgroup)
        self.env["DOCKP_CACHE_DIR"] = str(home / "cache")

    def daemon(self) -> list[str]:
        argv = [str(Path(sys.executable).parent / "dockpd"), "--host", self.env["DOCKER_HOST"]]
        argv += ["--data-root", str(self.home / "data"), "--exec-root", "/run/dockp"]
        return [*argv, "--cgroup-parent", self.cgroup]

    def own(self, *arguments: str) -> float:
        """Seconds that dockp's own command took, with this daemon. Raises Failure."""
        argv = [str(Path(sys.executable).parent / "dockp"), *arguments]
        answer = self.worker.call("run", argv=argv, env=self.env, timeout=_LIMIT)
        if answer["code"] != 0:
            raise Failure(f"{' '.join(argv)}: exit {answer['code']}: {_last(answer)}")
        return float(answer["seconds"])


class Podman(Contestant):
    """Debian's podman, with the network it chooses itself, and the runtime too where that works."""

    name = "podman"
    shims = "conmon"

    def __init__(self, home: Path, cgroup: str) -> None:
        super().__init__(home, cgroup)
        # Its default asks for more open files than a machine without CAP_SYS_RESOURCE may give.
        files, processes = (resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        limits = [f"nofile={files}:{files}", f"nproc={processes}:{processes}"]
        config = f'[containers]\ndefault_ulimits = {json.dumps(limits)}\n[engine]\nevents_logger = "file"\n'
        (home / "containers.conf").write_text(config)
        self.env["CONTAINERS_CONF"] = str(home / "containers.conf")
        self._runtime: list[str] = []

    def prefix(self) -> list[str]:
        places = ["--root", str(self.home / "data"), "--runroot", "/run/podman"]
        return ["podman", *places, "--cgroup-manager", "cgroupfs", *self._runtime]

    def prepare(self, image: Path) -> None:
        super().prepare(image)
        trial = self.run("--rm", "--network", "none", "busybox", "true")
        try:
            self.ok(*trial)
        except Failure:  # crun refuses cgroup v1 beside a v2 hierarchy that has controllers
            self._runtime = ["--runtime", "runc"]
            self.ok(*trial)

    def version(self) -> str:
        info = json.loads(self.ok("info", "--format", "json"))
        return f"{info['version']['Version']} with {info['host']['ociRuntime']['name']}"

    def run(self, *arguments: str) -> list[str]:
        return ["run", "--cgroup-parent", f"/{self.cgroup}", *arguments]

    def remove(self, names: Sequence[str]) -> float:
        return self.timed("rm", "-f", "-t", "0", *names)


class Bundles:
    """OCI bundles of one busybox, with and without a seccomp profile, for runc and for dockp's runtime."""

    def __init__(self, home: Path, image: Path, cgroup: str) -> None:
        self.home = home
        self._cgroup = cgroup
        rootfs = home / "rootfs"
        rootfs.mkdir(parents=True)
        subprocess.run(["tar", "-C", rootfs, "-xf", image], check=True, timeout=60)
        subprocess.run(["runc", "spec"], cwd=home, check=True, timeout=20)
        self._spec = json.loads((home / "config.json").read_text())

    def make(self, who: str, seccomp: bool) -> Path:
        """``runc spec``'s document with Docker's capabilities and, if so, its seccomp profile, running ``true``."""
        from dockp.containers.seccomp import default_profile
        from dockp.containers.security import DEFAULT

        spec = json.loads(json.dumps(self._spec))
        granted = list(DEFAULT)
        spec["process"] |= {"terminal": False, "args": ["true"], "noNewPrivileges": False}
        spec["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), granted)
        spec["process"].pop("rlimits", None)
        spec["root"] = {"path": "rootfs", "readonly": False}
        spec["linux"]["cgroupsPath"] = f"/{self._cgroup}/{who}"
        if seccomp:
            spec["linux"]["seccomp"] = default_profile(frozenset(granted))
        bundle = self.home / f"{who}{'-seccomp' if seccomp else ''}"
        bundle.mkdir()
        shutil.copytree(self.home / "rootfs", bundle / "rootfs", symlinks=True)
        (bundle / "config.json").write_text(json.dumps(spec))
        return bundle


class Runc(Contestant):
    """``runc run`` on a bundle."""

    name = "runc"

    def prefix(self) -> list[str]:
        return ["runc", "--root", "/run/runc-bench"]

    def version(self) -> str:
        return self.ok("--version").splitlines()[0].split()[-1]

    def once(self, bundle: Path) -> float:
        return self.timed("run", "--bundle", str(bundle), "alone")


def shim_memory(comm: str = "", pids: Iterable[int] = ()) -> list[float]:
    """Proportional set sizes, in bytes, of these processes, and of every process here with this name."""
    wanted = set(pids)
    if comm:
        wanted |= {pid for pid in _processes() if _line(pid, "comm") == comm}
    found = [size for size in map(pss, wanted) if size]
    if not found:
        raise Failure(f"no process {comm or sorted(wanted)} to measure")
    return found


def pss(pid: int) -> float:
    """Bytes; 0 when it has ended."""
    match = re.search(r"^Pss:\s+(\d+) kB", _line(pid, "smaps_rollup"), re.MULTILINE)
    return int(match[1]) * 1024.0 if match else 0.0


def descendants(pid: int) -> set[int]:
    """This process and those that it or they have started."""
    parents = {each: _line(each, "stat").rpartition(")")[2].split() for each in _processes()}
    found = {pid}
    while more := {each for each, words in parents.items() if words and int(words[1]) in found} - found:
        found |= more
    return found


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _line(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text().strip()
    except OSError:  # it has ended
        return ""
