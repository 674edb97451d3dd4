"""What the tests of the whole engine stand on: a private world, a command line in it, and a check for leaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
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


class Dockp:
    """The ``dockp`` command on roots of its own, with a cgroup parent of its own."""

    def __init__(self, base: Path, *globals_: str, name: str = "dockp-test") -> None:
        self.base = base
        self.data_root = base / "data"
        self.exec_root = base / "run"
        self.cgroup_parent = f"{name}-{os.getpid()}"
        self.globals = globals_

    @property
    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKP_", "DOCKER_"))}
        return clean | {
            "DOCKP_DATA_ROOT": str(self.data_root),
            "DOCKP_EXEC_ROOT": str(self.exec_root),
            "DOCKP_CGROUP_PARENT": self.cgroup_parent,
            "HOME": str(self.base),
            "LC_ALL": "C.UTF-8",
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
            done.args, done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace")
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
    """What a test may not leave behind: taken before, compared after."""

    def __init__(self, base: Path, cgroup_parent: str) -> None:
        self._base = str(base)
        self._parent = cgroup_parent
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
            "link": _output_lines("ip", "-o", "link"),
            "nft table": _output_lines("nft", "list", "tables"),
            "loop device": _loops(),
            "cgroup": self._cgroups(),
            "process": self._processes(),
        }

    def _cgroups(self) -> set[str]:
        found = set()
        for top in Path("/sys/fs/cgroup").iterdir() if Path("/sys/fs/cgroup").is_dir() else ():
            for parent in (top / self._parent, top) if top.name == self._parent else (top / self._parent,):
                if parent.is_dir():
                    found |= {str(child) for child in parent.iterdir() if child.is_dir()}
        return found

    def _processes(self) -> set[str]:
        """Processes that name this test's directory in their arguments or environment, except the test itself."""
        found = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) == os.getpid():
                continue
            try:
                text = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
                status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if self._base.encode() in text and status != "Z":
                found.add(f"{pid} {text[:200]!r}")
        return found


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join(line.split()[3:5]) for line in lines}


def _output_lines(*command: str) -> set[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {line.split(":")[1].strip() if command[0] == "ip" else line for line in done.stdout.splitlines()}


def _loops() -> set[str]:
    return {path.parent.parent.name for path in Path("/sys/block").glob("loop*/loop/backing_file")}


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
    "Dockp",
    "Leaks",
    "enter_private_world",
    "image_tar",
    "remove_cgroups",
    "wait_for",
]
