"""A run root of one's own, with containers in it that need no engine, no image and no network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import dockp
from dockp.supervisor import Supervisor

HERE = str(Path(__file__).resolve().parent)
CORE = str(Path(dockp.__file__).resolve().parent.parent)
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CGROUP = f"/dockp-test-shim-{os.getpid()}"
PLAIN = "plain_runtime:Runtime"
LIBCONTAINER = "dockp_exec_libcontainer.runtime:Runtime"


def search_paths():
    import dockp_exec_libcontainer

    return [CORE, str(Path(dockp_exec_libcontainer.__file__).resolve().parent.parent), HERE]


def busybox_tree(target: Path) -> Path:
    """A root file system of busybox alone."""
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp", "root"):
        (target / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", target / "bin/busybox")
    subprocess.run(["/bin/busybox", "--install", "-s", str(target / "bin")], check=True)
    for link in (target / "bin").iterdir():
        if link.is_symlink():
            link.unlink()
            link.symlink_to("busybox")
    (target / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (target / "etc/group").write_text("root:x:0:\napp:x:1000:\naudio:x:29:app\n")
    return target


class Lab:
    """Makes containers under ``root`` and sees to it that nothing of them stays."""

    def __init__(self, root: Path, runtime: str = PLAIN, tree: Path | None = None) -> None:
        self.root = root
        self.runtime = runtime
        self.tree = tree
        self.supervisor = Supervisor(root, search_paths)
        self.clients = []
        self.zygote = None

    def directory(self, id: str) -> Path:
        return self.root / "containers" / id

    def write(self, id, args, *, env=(), options=None, spec=None, **config):
        """Write the bundle and the shim's configuration, as an engine does."""
        if isinstance(args, str):
            args = ["sh", "-c", args]
        directory = self.directory(id)
        bundle = directory / "bundle"
        (bundle / "rootfs").mkdir(parents=True)
        document = {
            "ociVersion": "1.0.2",
            "process": {"args": args, "env": [PATH, *env], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "mounts": [],
            "linux": {},
        }
        mounts = []
        if self.runtime == LIBCONTAINER:
            mounts = [{"type": "bind", "source": str(self.tree), "options": ["rbind"]}]
            document["mounts"] = [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
                },
            ]
            document["linux"] = {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
                "cgroupsPath": f"{CGROUP}/{id}",
                "resources": {},
            }
            capabilities = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
            document["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
        document.update(spec or {})
        (bundle / "config.json").write_text(json.dumps(document))
        wanted = {
            "id": id,
            "bundle": str(bundle),
            "rootfs": {"mounts": mounts, "read_only": False},
            "runtime": {"class": self.runtime, "options": options or {}},
            "log": None,
            "terminal": False,
            "console_size": None,
            "open_stdin": False,
            "stdin_once": False,
            "stop_signal": 15,
            "stop_timeout": 10,
            "user": {"user": "", "groups": []},
            "volumes": [],
            "copy_up": [],
            "restart": {"name": "no", "max": 0},
            "health": None,
            "on_exit": None,
            "env_home": True,
            **config,
        }
        (directory / "shim.json").write_text(json.dumps(wanted))
        return directory

    def log(self, id, **options):
        """A "log" entry for `write`, and where the log will be."""
        return {
            "class": "dockp.logs.json_file_writer:Writer",
            "path": str(self.directory(id) / "json.log"),
            "options": {name.replace("_", "-"): value for name, value in options.items()},
            "info": {"id": id},
        }

    def launch(self, id, *args, **config):
        self.write(id, *args, **config)
        client = self.supervisor.launch(id)
        self.clients.append(client)
        return client

    def create(self, id, *args, **config):
        client = self.launch(id, *args, **config)
        client.create()
        return client

    def run(self, id, *args, **config):
        """A started container whose shim waits for this client's release."""
        client = self.create(id, *args, **config)
        client.claim()
        client.start()
        return client

    def connect(self, id):
        client = self.supervisor.connect(id)
        self.clients.append(client)
        return client

    def start_zygote(self, modules=()):
        self.zygote = self.supervisor.start_zygote([self.runtime.partition(":")[0], *modules])

    def process(self, args, **more):
        """An OCI process for `ShimClient.exec`."""
        if isinstance(args, str):
            args = ["sh", "-c", args]
        return {"args": args, "env": [PATH], "cwd": "/", "user": {"uid": 0, "gid": 0}, **more}

    def processes(self):
        """Pids of this lab's shims and zygote: their command lines name its root."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(word.startswith(os.fsencode(self.root)) for word in words):
                    found.append(int(entry))
        return found

    def close(self):
        """End everything; raises AssertionError with what a shim complained about."""
        complaints = [path.read_text() for path in self.root.glob("containers/*/shim.log")]
        complaints += [path.read_text() for path in self.root.glob("zygote.log")]
        for client in self.clients:
            client.close()
        if self.zygote is not None:
            self.zygote.close()
        for path in self.root.glob("containers/*/state.json"):
            id = path.parent.name
            if self.supervisor.alive(id):
                try:
                    with self.supervisor.connect(id) as client:
                        client.stop(signal.SIGKILL, 0)
                except Exception:  # noqa: S110 - it was ending by itself
                    pass
        deadline = time.monotonic() + 5
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for controller in Path("/sys/fs/cgroup").glob(f"*{CGROUP}"):
            for directory in [*(path for path in controller.rglob("*") if path.is_dir()), controller]:
                os.rmdir(directory)
        assert not complaints, "\n".join(complaints)
        assert not left, f"processes were left: {left}"


def read_all(stream):
    data = b""
    while piece := stream.recv(65536):
        data += piece
    return data


def read_until(stream, wanted: bytes, seconds: float = 10.0) -> bytes:
    """Output up to and with ``wanted``."""
    data = b""
    stream.sock.settimeout(seconds)
    while wanted not in data:
        piece = stream.recv(65536)
        assert piece, f"the stream ended after {data!r}"
        data += piece
    stream.sock.settimeout(None)
    return data


def eventually(check, seconds: float = 5.0):
    """The first true value of ``check()``."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return value
