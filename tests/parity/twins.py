"""Two daemons, Docker's and ours, each in a world of its own, that are asked the same things."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import Daemon, Dockerd, Dockp, image_tar, remove_cgroups

T = TypeVar("T")

API_VERSION = "1.41"
"""What Debian's dockerd speaks. Both are asked in it: otherwise fields differ by version, not by engine."""


@attrs.frozen
class Outcome:
    """What one command said."""

    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        parts = [f"exit code {self.code}", *(f"  {line}" for line in self.stdout.splitlines())]
        return "\n".join([*parts, *(f"! {line}" for line in self.stderr.splitlines())])


class Twin:
    """One daemon with mount and network namespaces of its own, and a directory of its own to work in."""

    def __init__(self, base: Path, kind: type[Daemon], client: str) -> None:
        self.name = "dockerd" if kind is Dockerd else "dockpd"
        self.base = base
        self.place = base / "work"
        self.place.mkdir(parents=True)
        self.world = subprocess.Popen(
            ["unshare", "-m", "-n", "--propagation", "private", "sh", "-c", _WORLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.world.stdout is not None
        assert self.world.stdout.readline() == b"ready\n"
        dockp = Dockp(base, name=f"parity-{self.name}")
        self.daemon = kind(dockp)
        inside = type("Inside", (kind,), {"command": [*self.prefix, *self.daemon.command]})
        self.daemon = inside(dockp)
        (base / "bin").mkdir()
        self.use(client)
        (base / "bin" / "shape").symlink_to(Path(__file__).with_name("shape.py"))

    @property
    def prefix(self) -> list[str]:
        """Before a command that is to run in this world."""
        return ["nsenter", f"--target={self.world.pid}", "--mount", "--net", f"--wd={self.place}"]

    @property
    def environment(self) -> dict[str, str]:
        keep = {key: os.environ[key] for key in ("LANG", "TERM") if key in os.environ}
        return keep | {
            "PATH": f"{self.base}/bin:{os.environ['PATH']}",
            "HOME": str(self.base),
            "DOCKER_HOST": self.daemon.url,
            "DOCKER_API_VERSION": API_VERSION,
        }

    def use(self, client: str) -> None:
        """Have ``docker`` mean this command line."""
        link = self.base / "bin" / "docker"
        link.unlink(missing_ok=True)
        link.symlink_to(client)

    def start(self) -> None:
        Daemon.start(self.daemon, 40)
        self.image = image_tar("busybox")
        self.restore()

    def restore(self) -> None:
        """Have the image busybox, and nothing else."""
        self("docker ps -aq | xargs -r docker rm -fv; docker images -aq | sort -u | xargs -r docker rmi -f")
        self(f"docker import -c 'CMD [\"sh\"]' {self.image} busybox; rm -rf ./*")

    def __call__(self, command: str, timeout: float = 20) -> Outcome:
        """Run one line of shell here."""
        try:
            done = subprocess.run(
                [*self.prefix, "bash", "-c", command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return Outcome(-1, (late.stdout or b"").decode(), f"did not end within {timeout} s")
        return Outcome(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def close(self) -> None:
        self("docker ps -aq | xargs -r docker rm -fv")
        self.daemon.stop()
        assert self.world.stdin is not None
        self.world.stdin.close()
        self.world.wait(10)
        remove_cgroups(self.daemon.dockp.cgroup_parent)

    def normal(self, text: str) -> str:
        """``text`` without what differs from run to run."""
        text = text.replace(str(self.base), "<base>").replace(f"parity-{self.name}-{os.getpid()}", "<parent>")
        for pattern, instead in _NORMAL:
            text = pattern.sub(instead, text)
        # Docker wrote sentences with capital letters once, and does not any more.
        return _SENTENCE.sub(lambda found: found[1] + found[2].lower(), text)


_WORLD = "ip link set lo up && mount -t tmpfs tmpfs /run && echo ready && cat"

_NORMAL = [
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"\b[0-9a-f]{64}\b", "<id>"),
        (r"\b[0-9a-f]{12}\b", "<id>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} \w+", "<time>"),
        (r"(\d+|About an?|Less than a) (second|minute|hour|day)s?( ago)?", "<while>"),
        # Wording that changed after 20.10, and what names the runtime.
        (r"failed to create task for container: |runc create failed: |error during container init: ", ""),
        (r"(?<=OCI runtime )(.*): unknown\b", r"\1"),
        (r"Container (?=<id>)", "container "),
        (r"no such image: [^:]*(:\w+)?: (?=No such image)", ""),
        (r"fe00::0|ff00::0", lambda found: found[0][:-1]),
        # Addresses are given out in another order.
        (r"\b172\.17\.0\.\d+\b(?!/16\")", "172.17.0.<n>"),
        (r"02:42:ac:11:00:[0-9a-f]{2}", "02:42:ac:11:00:<n>"),
        # One counts the lengths of links with an image's size, the other does not.
        (r"1\.98[24]MB", "1.98MB"),
        (r"\b198(2368|4244|4256)\b", "<size>"),
        (r'(?m)^time=.* level=error msg="Can.t (add file|close tar).*\n', ""),
        (r"(registry-1\.docker\.io|[a-z.]+): (lookup .*|no such host)", r"\1: <unreachable>"),
        (r"(?<=Mountpoint\W{4})<base>/(docker|data)|<base>/(docker|data)(?=/(volumes|containers))", "<root>"),
        (r"(?m)^ERRO.*error waiting for container: context canceled.*\n*", ""),
        (r" {2,}", "  "),
        (r" +$", ""),
    )
]


_SENTENCE = re.compile(r"(Error response from daemon: )([A-Z])")


@contextmanager
def twins(base: Path, client: str) -> Iterator[tuple[Twin, Twin]]:
    """Docker's daemon and ours, with the busybox image in them."""
    with ExitStack() as undo:
        pair = []
        for kind in (Dockerd, Daemon):
            twin = Twin(base / kind.__name__.lower(), kind, client)
            undo.callback(twin.close)
            pair.append(twin)
        together(lambda twin: twin.start(), pair)
        yield pair[0], pair[1]


def together(what: Callable[[Twin], T], pair: tuple[Twin, Twin] | list[Twin]) -> list[T]:
    """``what`` for both at the same time; the two results."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(what, pair))


def client(version: str) -> str:
    """Docker's command line of that version, where this machine has it; else ""."""
    for path in ("/usr/local/bin/docker", "/usr/bin/docker"):
        if os.path.exists(path):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            if f"version {version}." in said:
                return path
    return ""
