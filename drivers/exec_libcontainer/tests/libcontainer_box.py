"""Containers for tests: a busybox root, a stand-in for the shim in namespaces of its own, cgroups under one parent."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dockp.linux import cgroups
from dockp.spi.runtime import RuntimeFailure

HERE = Path(__file__).parent
DOCKER_CAPABILITIES = """
    CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP
    CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE
""".strip().split()
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware"]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_spec() -> dict[str, Any]:
    """A spec as an engine would write it, with Docker's defaults."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": [PATH],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), DOCKER_CAPABILITIES),
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["ro", "nosuid", "noexec", "nodev"],
            },
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network", "cgroup")],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


class Container:
    """One container in a `Box`. ``spec`` may be changed until `create`."""

    def __init__(self, box: Box, id: str) -> None:
        self.box = box
        self.id = id
        self.bundle = box.directory / id
        self.bundle.mkdir()
        self.rootfs = self.bundle / "rootfs"
        self.stdout = self.bundle / "stdout"
        self.stderr = self.bundle / "stderr"
        self.spec = base_spec()
        self.spec["linux"]["cgroupsPath"] = f"{box.cgroup_parent}/{id}"
        self.pid = 0
        shutil.copytree(box.image, self.rootfs, symlinks=True)

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.spec["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        linux: dict[str, Any] = self.spec["linux"]
        return linux

    def shell(self, script: str) -> Container:
        self.process["args"] = ["sh", "-c", script]
        return self

    def without(self, *kinds: str) -> Container:
        """Use the host's namespaces of these kinds."""
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] not in kinds]
        return self

    def mount(self, destination: str, type: str, source: str, *options: str) -> Container:
        self.spec["mounts"].append(
            {"destination": destination, "type": type, "source": source, "options": list(options)}
        )
        return self

    def ask(self, verb: str, **arguments: Any) -> Any:
        return self.box.ask(verb, id=self.id, **arguments)

    def create(self, netns: str = "") -> int:
        (self.bundle / "config.json").write_text(json.dumps(self.spec))
        self.ask("new", bundle=str(self.bundle), cache=str(self.box.directory / "cache"))
        self.pid = self.ask(
            "create",
            stdout=str(self.stdout),
            stderr=str(self.stderr),
            terminal=self.process.get("terminal", False),
            netns=netns,
        )
        return self.pid

    def start(self) -> None:
        self.ask("start")

    def wait(self, pid: int = 0) -> int:
        return int(self.box.ask("wait", pid=pid or self.pid))

    def run(self, netns: str = "") -> int:
        """Create, start, wait; returns the exit status."""
        self.create(netns)
        self.start()
        return self.wait()

    def output(self, script: str, netns: str = "") -> str:
        """What a shell script prints in it; it must succeed."""
        code = self.shell(script).run(netns)
        assert code == 0, (code, self.stdout.read_text(), self.stderr.read_text())
        return self.stdout.read_text()

    def exec(self, *args: str, **process: Any) -> tuple[int, str]:
        """Run one more process to its end: (exit status, what it printed)."""
        out = self.bundle / f"exec-{os.urandom(4).hex()}"
        pid = self.start_exec(out, *args, **process)
        code = self.wait(pid)
        return code, out.read_text()

    def start_exec(self, out: Path, *args: str, **process: Any) -> int:
        wanted = copy.deepcopy(self.process)
        wanted["args"] = list(args)
        wanted["terminal"] = False
        wanted.update(process)
        pid: int = self.ask(
            "exec", process=wanted, stdout=str(out), stderr=str(out), terminal=wanted.get("terminal", False)
        )
        return pid

    def warnings(self) -> list[str]:
        found: list[str] = self.ask("warnings")
        return found


class Box:
    """The stand-in shim and everything its containers use."""

    def __init__(self, directory: Path, image: Path) -> None:
        self.directory = directory
        self.image = image
        self.cgroup_parent = f"/dockp-test-{os.getpid()}-{os.urandom(3).hex()}"
        self.containers: list[Container] = []
        self.process = subprocess.Popen(
            [
                *("unshare", "--mount", "--net", "--propagation", "private", "--"),
                *(sys.executable, str(HERE / "shim_stand_in.py")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, verb: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        if "failure" in reply:
            raise RuntimeFailure(reply["failure"], reply["kind"])
        assert "error" not in reply, reply["error"]
        return reply["value"]

    def container(self) -> Container:
        made = Container(self, f"c{len(self.containers)}")
        self.containers.append(made)
        return made

    def close(self) -> list[str]:
        """Remove everything; returns what was left behind that should not have been."""
        leaks = []
        for container in self.containers:
            if container.pid and self.process.poll() is None:
                container.ask("signal", number=9)
                container.wait()
                container.ask("remove")
        left = cgroups.children(self.cgroup_parent)
        if left:
            leaks.append(f"cgroups {left}")
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        cgroups.Cgroup(self.cgroup_parent).remove()
        return leaks
