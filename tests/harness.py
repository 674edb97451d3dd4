"""What the tests of the whole engine stand on: a private world, a command line in it, and a check for leaks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
STANDING_TABLE = "table inet dockp"
"""Made for the predefined network, and left as its bridge is."""
CACHE = Path(os.environ.get("DOCKP_TEST_CACHE", REPOSITORY / ".cache" / "images"))
"""Root file systems as tars, made once by scripts/test-images.sh."""


def enter_private_world() -> None:
    """Give this process mount and network namespaces of its own, with only the loopback interface, which is up.

    Everything that tests start inherits them: whatever goes wrong, the host keeps its mounts, links and rules.
    """
    from dockp.linux import namespaces

    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def chosen() -> str:
    """The engine that the same tests run against, by ``DOCKP_TEST_ENGINE``: in the command's own process ("embedded"),
    "dockpd", or Docker's "dockerd".

    Tests marked ``embedded`` look at what only an engine in the command's process has; those marked ``own`` at what
    Docker does not have, or does otherwise on purpose.
    """
    name = os.environ.get("DOCKP_TEST_ENGINE", "embedded")
    assert name in ("embedded", "dockpd", "dockerd"), f"DOCKP_TEST_ENGINE={name}"
    return name


class Dockp:
    """The ``dockp`` command on roots of its own, with a cgroup parent of its own."""

    def __init__(self, base: Path, *globals_: str, name: str = "dockp-test") -> None:
        self.base = base
        self.kind = chosen()
        self.data_root = base / "data"
        self.exec_root = base / "run"
        self.cgroup_parent = f"{name}-{os.getpid()}"
        self.globals = globals_
        self.settings: dict[str, str] = {}
        """Further environment variables."""
        self.server: Daemon | None = None

    def serve(self) -> None:
        """Have a daemon do the work, when the tests are run against one."""
        if self.kind != "embedded" and self.server is None:
            self.base.mkdir(parents=True, exist_ok=True)
            self.server = (Daemon if self.kind == "dockpd" else Dockerd)(self).start(30)

    def close(self) -> None:
        """Remove every container, and end the daemon."""
        if self.server is not None or self.data_root.exists():
            self.clear()
        if self.server is not None:
            self.server.stop()
            self.server = None

    @property
    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKP_", "DOCKER_"))}
        return clean | {
            "DOCKP_DATA_ROOT": str(self.data_root),
            "DOCKP_EXEC_ROOT": str(self.exec_root),
            "DOCKP_CGROUP_PARENT": self.cgroup_parent,
            "HOME": str(self.base),
            "LC_ALL": "C.UTF-8",
            **({} if self.server is None else {"DOCKP_HOST": self.server.url}),
            **self.settings,
        }

    @property
    def command(self) -> list[str]:
        return [str(Path(sys.executable).parent / "dockp"), *self.globals]

    def __call__(
        self, *arguments: str, input: bytes | str | None = None, timeout: float = 120, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run it; text in, text out (bytes that are not UTF-8 are kept as surrogates)."""
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            [*self.command, *arguments],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            env=self.environment,
            timeout=timeout,
            check=False,
        )
        result = subprocess.CompletedProcess(
            done.args,
            done.returncode,
            done.stdout.decode(errors="surrogateescape"),
            done.stderr.decode(errors="replace"),
        )
        if check and result.returncode != 0:
            raise AssertionError(f"dockp {' '.join(arguments)}: exit code {result.returncode}: {result.stderr}")
        return result

    def ok(self, *arguments: str, input: bytes | str | None = None, timeout: float = 120) -> str:
        """Run it, expect success, give its output without the last newline."""
        return self(*arguments, input=input, timeout=timeout, check=True).stdout.rstrip("\n")

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it and do not wait."""
        return subprocess.Popen([*self.command, *arguments], env=self.environment, **options)

    def inspect(self, ref: str) -> dict[str, Any]:
        return dict(json.loads(self.ok("inspect", ref))[0])

    def state(self, ref: str) -> str:
        return self.ok("inspect", "-f", "{{.State.Status}}", ref)

    def add_image(self, name: str, tar: Path) -> None:
        with tar.open("rb") as stream:
            done = subprocess.run(
                [*self.command, "image", "import", "-c", 'CMD ["sh"]', "-", name],
                stdin=stream,
                capture_output=True,
                env=self.environment,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()

    def clear(self) -> None:
        """Remove every container, by force."""
        ids = self("ps", "-aq", "--no-trunc").stdout.split()
        if ids:
            self("rm", "-f", "-v", *ids)


class Daemon:
    """A ``dockpd`` on the roots of a `Dockp`, listening at ``url``; as a context manager, started and stopped.

    Args: flags: further ones of dockpd. hosts: where to listen besides the unix socket.
    """

    def __init__(self, dockp: Dockp, *flags: str, hosts: Sequence[str] = ()) -> None:
        self.dockp = dockp
        self.flags = flags
        self.hosts = hosts
        self.socket = dockp.base / "dockpd.sock"
        self.url = f"unix://{self.socket}"
        self.log_path = dockp.base / "dockpd.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        hosts = [word for host in (self.url, *self.hosts) for word in ("-H", host)]
        return [str(Path(sys.executable).parent / "dockpd"), *hosts, *self.flags]

    @property
    def environment(self) -> dict[str, str]:
        """For clients: Docker's, or ours."""
        return self.dockp.environment | {"DOCKER_HOST": self.url}

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None, "the daemon was not started"
        return self.process.pid

    @property
    def tcp_port(self) -> int:
        """Where it listens besides, as its log says."""
        lines = wait_for(
            lambda: [line for line in self.log.splitlines() if "API listen on tcp://" in line], "a TCP socket"
        )
        return int(lines[-1].rstrip('"').rpartition(":")[2])

    def start(self, seconds: float = 15.0) -> Daemon:
        """Start it and wait until it answers."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.dockp.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(
            lambda: self.process is None or self.process.poll() is not None or self.answers(), "an answer", seconds
        )
        assert self.process.poll() is None, f"dockpd ended with exit code {self.process.returncode}: {self.log}"
        return self

    def answers(self) -> bool:
        """Whether somebody answers ``GET /_ping``."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.socket))
                client.sendall(b"GET /_ping HTTP/1.1\r\nHost: dockp\r\nConnection: close\r\n\r\n")
                return client.recv(64).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM, and wait; the exit code."""
        return self._end(signal.SIGTERM, seconds)

    def kill(self) -> int:
        """SIGKILL."""
        return self._end(signal.SIGKILL, 10)

    def restart(self) -> Daemon:
        self.stop()
        return self.start()

    def docker(self, *arguments: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        """Docker's own command line against this daemon."""
        return subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )

    def _end(self, number: int, seconds: float) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        self.process = None
        return code

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Dockerd(Daemon):
    """Docker's own daemon, on roots beside those of a `Dockp`."""

    @property
    def command(self) -> list[str]:
        place = self.dockp.base
        return [
            *("dockerd", "-H", self.url, "--pidfile", f"{self.socket}.pid"),
            *("--data-root", f"{place}/docker", "--exec-root", f"{place}/docker-run"),
            *("--cgroup-parent", self.dockp.cgroup_parent, "--storage-driver", "overlay2"),
            # What proxies ports in user space would outlive a failed test.
            "--userland-proxy=false",
            *self.flags,
        ]

    def start(self, seconds: float = 30.0) -> Daemon:
        # Its containerd keeps sockets in /run whatever it is told; the mount namespace is the tests' own.
        if not os.path.ismount("/run"):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        return super().start(seconds)


def wait_for(condition: Any, what: str, seconds: float = 15.0) -> Any:
    """Poll until ``condition()`` is true; its value. Fails naming what did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s this did not happen: {what}")
        time.sleep(0.02)


class Leaks:
    """What a test may not leave behind: taken before, compared after.

    Args: served: a daemon stays, whatever the tests are run against; its processes come and go.
    """

    def __init__(self, base: Path, cgroup_parent: str, *, served: bool = False) -> None:
        self._base = str(base)
        self._parent = cgroup_parent
        self._served = served
        self._before = self._look()

    def found(self) -> list[str]:
        """One line for each thing that is there now and was not before. Gives dying things two seconds to go."""
        deadline = time.monotonic() + 5
        while True:
            lines = self._compare(self._look())
            if not lines or time.monotonic() > deadline:
                return lines
            time.sleep(0.05)

    def _compare(self, after: dict[str, set[str]]) -> list[str]:
        return sorted(f"{kind}: {item}" for kind, items in after.items() for item in items - self._before[kind])

    def _look(self) -> dict[str, set[str]]:
        return {
            "mount": _mounts(),
            "link": links(),
            "nft table": _output_lines("nft", "list", "tables") - {STANDING_TABLE},
            "published port": published_ports(),
            "loop device": _loops(),
            "volume": set(_entries(Path(self._base) / "data" / "volumes")),
            "cgroup": cgroups_under(self._parent),
            "process": {
                f"{pid} {name}"
                for pid, name in processes_naming(self._base).items()
                if not _is_spare(name, self._served)
            },
        }


def _is_spare(name: str, served: bool = False) -> bool:
    """The daemon that the tests run against, its zygote, or what that has forked ahead of time."""
    return (served or chosen() == "dockpd") and ("dockp.shim.zygote" in name or "bin/dockpd" in name)


def links() -> set[str]:
    """The network interfaces here, but for the bridge of the predefined network, which stays as docker0 does."""
    return {name for name in _output_lines("ip", "-o", "link") if not re.fullmatch(r"dockp\d+", name)}


def published_ports() -> set[str]:
    """What the nft table of this network namespace leads to containers: ``tcp . 8080``."""
    text = "\n".join(_output_lines("nft", "list", "ruleset"))
    return set(re.findall(r'((?:[0-9a-f.:]+ \. )?(?:tcp|udp|sctp) \. \d+) comment "', text))


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join(line.split()[3:5]) for line in lines}


def _output_lines(*command: str) -> set[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {line.split(":")[1].strip() if command[0] == "ip" else line for line in done.stdout.splitlines()}


def _loops() -> set[str]:
    return {path.parent.parent.name for path in Path("/sys/block").glob("loop*/loop/backing_file")}


def remains(dockp: Dockp) -> list[str]:
    """Everything an engine without containers should not have: one line each. Waits a moment for what is dying."""
    deadline = time.monotonic() + 5
    while True:
        lines = everything(dockp)
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.01)


def everything(dockp: Dockp) -> list[str]:
    """What belongs to containers, at this moment: ``kind: which``, one line each."""
    return [*_records(dockp), *_strays(dockp)]


_QUERIES = {
    "container": "SELECT id, name, details FROM containers",
    "exec": "SELECT id FROM execs",
    "journal entry": "SELECT kind, object FROM journal",
    "snapshot": "SELECT id, state, owner FROM snapshots WHERE owner IS NOT NULL OR state != 'ready'",
    "endpoint": "SELECT id, container FROM endpoints",
    "address": "SELECT address, endpoint FROM endpoint_addresses",
    "reserved port": "SELECT host_port, endpoint FROM published_ports",
    "volume user": "SELECT volume, container FROM volume_users",
    "anonymous volume": "SELECT name FROM volumes WHERE anonymous",
    "lease": "SELECT id FROM leases",
}


def _records(dockp: Dockp) -> list[str]:
    connection = sqlite3.connect(dockp.data_root / "state.db")
    try:
        return [
            f"{what}: {' '.join(map(str, row))}"
            for what, query in _QUERIES.items()
            for row in connection.execute(query)
        ]
    finally:
        connection.close()


def _strays(dockp: Dockp) -> list[str]:
    """What is on the host, against what the records know."""
    connection = sqlite3.connect(dockp.data_root / "state.db")
    try:
        known = {(driver, str(id)) for driver, id in connection.execute("SELECT driver, id FROM snapshots")}
        volumes = {name for (name,) in connection.execute("SELECT name FROM volumes")}
    finally:
        connection.close()
    found = []
    for driver in _entries(dockp.data_root / "storage"):
        held = _entries(dockp.data_root / "storage" / driver)
        found += [f"stored snapshot: {driver}/{name}" for name in held if (driver, name) not in known]
    found += [f"stored volume: {name}" for name in _entries(dockp.data_root / "volumes") if name not in volumes]
    for kind, place in (("directory", dockp.data_root), ("run directory", dockp.exec_root)):
        found += [f"{kind}: {name}" for name in _entries(place / "containers")]
    found += [f"link: {name}" for name in links() if name.startswith("dk")]
    found += [f"published port: {port}" for port in published_ports()]
    found += [f"cgroup: {path}" for path in cgroups_under(dockp.cgroup_parent)]
    living = processes_naming(str(dockp.base))
    found += [f"process: {pid} {name}" for pid, name in living.items() if not _is_spare(name)]
    return found


def _entries(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def cgroups_under(parent: str) -> set[str]:
    """Every group directly below ``parent``, in every hierarchy."""
    found = set()
    for top in ("/sys/fs/cgroup", *(f"/sys/fs/cgroup/{name}" for name in _entries(Path("/sys/fs/cgroup")))):
        place = Path(top) / parent
        if place.is_dir():
            found |= {str(child) for child in place.iterdir() if child.is_dir()}
    return found


def processes_naming(text: str) -> dict[int, str]:
    """Living processes, this one excepted, with ``text`` in their arguments or environment: pid and the arguments."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if text.encode() in command + environment and status != "Z":
            found[int(pid)] = repr(command[:200])
    return found


def shim_pid(dockp: Dockp, container_id: str) -> int:
    """The pid of a container's shim. ``container_id`` in full."""
    return int(json.loads((dockp.exec_root / "containers" / container_id / "state.json").read_text())["shim_pid"])


def remove_cgroups(parent: str) -> None:
    """Remove the (empty) cgroups of a test session."""
    for top in ("/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").iterdir())):
        directory = Path(top) / parent
        if directory.is_dir():
            for child in sorted(directory.rglob("*"), reverse=True):
                if child.is_dir():
                    child.rmdir()
            directory.rmdir()


def image_tar(name: str) -> Path:
    """A root file system from the cache. Fails naming the command that makes it."""
    path = CACHE / f"{name}.tar"
    if not path.exists():
        raise AssertionError(f"{path} is missing: run scripts/test-images.sh")
    return path


__all__ = [
    "CACHE",
    "REPOSITORY",
    "Daemon",
    "Dockerd",
    "Dockp",
    "Leaks",
    "cgroups_under",
    "chosen",
    "enter_private_world",
    "everything",
    "image_tar",
    "links",
    "processes_naming",
    "published_ports",
    "remains",
    "remove_cgroups",
    "shim_pid",
    "wait_for",
]
