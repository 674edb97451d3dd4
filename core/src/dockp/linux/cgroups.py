"""Control groups, version 1, 2 and both at once ("hybrid"): create, limit, join, freeze, kill, count, remove.

One `Cgroup` is one path, present in every hierarchy that has something to do for it. On a hybrid host the controllers
are version 1 and a version 2 tree without controllers is mounted beside them; it is used too, since only there can a
process be born in its cgroup (clone3), and a whole cgroup be frozen or killed at once.

Sources: cgroups(7), kernel doc admin-guide/cgroup-v1/ and admin-guide/cgroup-v2.rst, OCI runtime-spec
config-linux.md "Control groups".
"""

from __future__ import annotations

import errno
import os
import time

from dockp.linux import devices
from dockp.linux.cgroup_files import pairs, read, try_write, write
from dockp.linux.cgroup_limits import Limits, extra_controllers
from dockp.linux.cgroup_stats import collect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Resources = Mapping[str, Any]

# Every container is in these, if the host has them: they are what stats, freeze, kill and device rules need. The
# others are joined only where a limit asks for them, since each joined hierarchy costs time at every start.
_ALWAYS = ("memory", "cpuacct", "cpu", "pids", "devices", "blkio")
_PATIENCE = 10.0  # seconds for a freeze, a kill or a removal to happen


class Layout:
    """What is mounted here.

    Attributes:
        v1: controller (also ``name=systemd`` and the like): mount point of its hierarchy. Only enabled ones.
        unified: mount point of the version 2 hierarchy, or "".
        unified_controllers: what the version 2 hierarchy can control.
    """

    __slots__ = ("unified", "unified_controllers", "v1")

    def __init__(self, v1: dict[str, str], unified: str, unified_controllers: frozenset[str]) -> None:
        self.v1 = v1
        self.unified = unified
        self.unified_controllers = unified_controllers

    def controllers(self) -> frozenset[str]:
        """Every controller that works here, by its version 1 name (``blkio`` for ``io``)."""
        v2 = {"blkio" if name == "io" else name for name in self.unified_controllers}
        return frozenset(v2 | {name for name in self.v1 if not name.startswith("name=")})


def join_self(tasks: Iterable[int]) -> None:
    """Put the calling thread, the only one of its process, into the cgroups behind `Cgroup.open_tasks`.

    A thread that moves just itself is the one case in which the kernel does without its global lock, which costs some
    10 ms when nobody took it lately (cgroup_procs_write_start in kernel/cgroup/cgroup.c).
    """
    for fd in tasks:
        os.write(fd, b"0")


def detect() -> Layout:
    """Read what is mounted from /proc/self/mountinfo. A later mount on the same hierarchy does not hide a former."""
    v1: dict[str, str] = {}
    unified = ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if " - cgroup" not in line:
                continue
            before, _, after = line.partition(" - ")
            point = _unescape(before.split(" ", 5)[4])
            kind, _source, options = after.rstrip("\n").split(" ", 2)
            if kind == "cgroup2":
                unified = unified or point
            elif kind == "cgroup":
                for option in options.split(","):
                    if option not in _NOT_CONTROLLERS:
                        v1.setdefault(option, point)
    controllers = frozenset(read(f"{unified}/cgroup.controllers").split()) if unified else frozenset()
    return Layout(v1, unified, controllers)


# Super block options of a v1 hierarchy that are not its controllers.
_NOT_CONTROLLERS = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"})


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, letter)
    return text


def resolve_path(cgroups_path: str, id: str) -> str:
    """The path below the mount points for an OCI ``cgroupsPath``: "" gives ``/dockp/<id>``.

    The form ``slice:prefix:name`` that systemd's users write becomes ``/slice/prefix-name.scope``. Raises: ValueError
    for a path with ``..`` in it.
    """
    path = cgroups_path or f"/dockp/{id}"
    if path.count(":") == 2 and "/" not in path:
        parent, prefix, name = path.split(":")
        scope = f"{prefix}-{name}.scope" if not name.endswith(".slice") else name
        path = f"{parent or 'system.slice'}/{scope}"
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise ValueError(f"cgroupsPath {cgroups_path!r} is not a path below the cgroup root")
    return "/" + "/".join(parts)


class Cgroup:
    """One cgroup path in all hierarchies it needs.

    Attributes:
        path: below every mount point, starting with "/". directories: of version 1, by controller. unified: the
            version 2 directory, or "".
    """

    __slots__ = ("_delegated", "directories", "layout", "path", "unified")

    def __init__(self, path: str, layout: Layout | None = None) -> None:
        self.path = path
        self.layout = layout or detect()
        self.directories: dict[str, str] = {}
        self.unified = ""
        self._delegated: frozenset[str] = frozenset()
        self._find()

    def _find(self) -> None:
        for controller, point in self.layout.v1.items():
            directory = point + self.path
            if not controller.startswith("name=") and os.path.isdir(directory):
                self.directories[controller] = directory
        if self.layout.unified and os.path.isdir(self.layout.unified + self.path):
            self.unified = self.layout.unified + self.path

    def exists(self) -> bool:
        """Whether any hierarchy has it."""
        return bool(self.directories or self.unified)

    def create(self, resources: Resources) -> None:
        """Make it where ``resources`` and the everyday verbs need it. Raises OSError; EEXIST when it is in use."""
        if self.exists() and self.pids():
            raise OSError(errno.EEXIST, "the cgroup is in use by other processes", self.path)
        v1 = self.layout.v1
        wanted = {*_ALWAYS, *extra_controllers(resources)}
        if not self._can_freeze_unified():
            wanted.add("freezer")
        for controller in wanted:
            if controller in v1:
                directory = v1[controller] + self.path
                if controller == "cpuset":
                    _make_cpuset(v1[controller], self.path)
                else:
                    _make(v1[controller], self.path)
                self.directories[controller] = directory
        if self.layout.unified:
            self._create_unified(wanted)

    def _can_freeze_unified(self) -> bool:
        # cgroup.freeze exists from Linux 5.2 on, in every cgroup but the root.
        return bool(self.layout.unified)

    def _create_unified(self, wanted: Iterable[str]) -> None:
        point = self.layout.unified
        names = {"io" if name == "blkio" else name for name in wanted} & self.layout.unified_controllers
        if names:
            # A controller works in a child only after every ancestor passed it on; one write each, since a write that
            # names one the kernel refuses fails as a whole.
            directory = point
            for part in self.path.split("/")[1:]:
                enabled = set(read(f"{directory}/cgroup.subtree_control").split())
                for name in sorted(names - enabled):
                    try_write(f"{directory}/cgroup.subtree_control", f"+{name}")
                directory = f"{directory}/{part}"
                os.makedirs(directory, exist_ok=True)
        else:
            _make(point, self.path)
        self.unified = point + self.path
        self._delegated = frozenset(read(f"{self.unified}/cgroup.controllers").split()) if names else frozenset()

    # -- processes --

    def open_unified(self) -> int | None:
        """A descriptor for clone3's CLONE_INTO_CGROUP, or None where there is no version 2 tree."""
        if not self.unified:
            return None
        return os.open(self.unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_tasks(self) -> list[int]:
        """Descriptors for `join_self`, one a version 1 hierarchy; the caller closes them. Raises OSError."""
        found: list[int] = []
        try:
            for directory in set(self.directories.values()):  # several controllers may share one hierarchy
                found.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            for fd in found:
                os.close(fd)
            raise
        return found

    def open_unified_of(self, pid: int) -> int | None:
        """Like `open_unified`, but where process ``pid`` is now: that of a container which divided its cgroup further.

        (cgroup v2's "no internal processes" rule keeps newcomers out of the container's own directory then.)
        """
        for line in read(f"/proc/{pid}/cgroup").splitlines() if self.unified else ():
            path = line[3:] if line.startswith("0::") else ""
            if path == self.path or path.startswith(self.path + "/"):
                return os.open(self.layout.unified + path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return None

    def join(self, pid: int) -> None:
        """Put process ``pid`` into it. Slow on an idle host, by a grace period of RCU: see `join_self`."""
        for directory in {*self.directories.values(), self.unified} - {""}:
            write(f"{directory}/cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """Every process in it and below it, by its pid here."""
        directory = self.unified or next(iter(self.directories.values()), "")
        found: set[int] = set()
        for place in _tree(directory):
            for text in read(f"{place}/cgroup.procs").split():
                found.add(int(text))
        return sorted(found)

    def kill(self) -> None:
        """Kill every process in it and wait until all are gone or zombies. Raises: TimeoutError."""
        deadline = time.monotonic() + _PATIENCE
        pause = 0.0005
        while self._populated():
            if not (self.unified and try_write(f"{self.unified}/cgroup.kill", "1")):
                self._kill_one_by_one()
            if not self._populated():
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {self.pids()} in cgroup {self.path} survive SIGKILL")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def _populated(self) -> bool:
        if self.unified:
            return "populated 1" in read(f"{self.unified}/cgroup.events")
        return bool(self.pids())

    def _kill_one_by_one(self) -> None:
        # Frozen, so that nothing forks away between the listing and the signal.
        try:
            self.freeze(patience=0.2)
        except OSError:  # TimeoutError included: the caller's loop then catches what forked away
            frozen = False
        else:
            frozen = True
        for pid in self.pids():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        if frozen:
            self.thaw()

    def freeze(self, patience: float = _PATIENCE) -> None:
        """Stop every process. Raises: TimeoutError; OSError (ENOTSUP without any freezer)."""
        deadline = time.monotonic() + patience
        if self.unified and try_write(f"{self.unified}/cgroup.freeze", "1"):
            self._wait(lambda: "frozen 1" in read(f"{self.unified}/cgroup.events"), deadline, self.thaw)
            return
        directory = self._freezer()

        def frozen() -> bool:
            # kernel doc freezer-subsystem.rst: FREEZING may stay when a task forks just then; asking again helps.
            write(f"{directory}/freezer.state", "FROZEN")
            return read(f"{directory}/freezer.state").strip() == "FROZEN"

        self._wait(frozen, deadline, self.thaw)

    def _wait(self, done: Callable[[], bool], deadline: float, undo: Callable[[], None]) -> None:
        while not done():
            if time.monotonic() > deadline:
                undo()
                raise TimeoutError(f"cgroup {self.path} cannot be frozen: a process is stuck in the kernel")
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let every process go on. Raises: OSError (ENOTSUP without any freezer)."""
        if self.unified and try_write(f"{self.unified}/cgroup.freeze", "0"):
            return
        write(f"{self._freezer()}/freezer.state", "THAWED")

    def frozen(self) -> bool:
        """Whether `freeze` is in force."""
        if self.unified and read(f"{self.unified}/cgroup.freeze").strip() == "1":
            return True
        directory = self.directories.get("freezer", "")
        return bool(directory) and read(f"{directory}/freezer.state").strip() != "THAWED"

    def _freezer(self) -> str:
        if "freezer" not in self.directories:
            raise OSError(errno.ENOTSUP, "this host has no cgroup freezer", self.path)
        return self.directories["freezer"]

    def remove(self) -> None:
        """Kill what is in it and remove it everywhere. Idempotent. Raises OSError, TimeoutError."""
        self._find()
        if not self.exists():
            return
        if self.frozen():
            self.thaw()  # on version 1 a frozen process does not even die
        self.kill()
        deadline = time.monotonic() + _PATIENCE
        for directory in {*self.directories.values(), self.unified} - {""}:
            for place in reversed(_tree(directory)):
                _remove_directory(place, deadline)
        self.directories = {}
        self.unified = ""

    # -- limits --

    def apply(self, resources: Resources) -> list[str]:
        """Set the limits of an OCI ``linux.resources`` object, devices excepted; returns a warning for each refused."""
        notes: list[str] = []
        Limits(self, resources, notes).apply()
        return notes

    def limit_devices(self, rules: Sequence[devices.Rule]) -> list[str]:
        """Let processes use just the devices that ``rules`` allow; returns a warning where that cannot be had."""
        wanted = devices.effective(rules)
        if wanted and devices.everything(wanted[0]) and wanted[0].get("allow") and len(wanted) == 1:
            return []
        directory = self.directories.get("devices")
        try:
            if directory:
                for name, line in devices.v1_lines(rules):
                    write(f"{directory}/{name}", line)
                return []
            if self.unified:
                fd = os.open(self.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    devices.attach(fd, devices.program(rules))
                finally:
                    os.close(fd)
                return []
        except OSError as failure:
            return [f"device rules are not enforced: {failure.strerror}"]
        return ["device rules are not enforced: this host has neither the devices cgroup nor a cgroup v2 tree"]

    def place(self, controller: str) -> tuple[str, int]:
        """The directory where ``controller`` (by its version 1 name) works, and the version; ("", 0) when nowhere."""
        if controller in self.directories:
            return self.directories[controller], 1
        name = "io" if controller == "blkio" else controller
        if self.unified and name in (self._delegated or self._ask_delegated()):
            return self.unified, 2
        return "", 0

    def _ask_delegated(self) -> frozenset[str]:
        if self.layout.unified_controllers:
            self._delegated = frozenset(read(f"{self.unified}/cgroup.controllers").split())
        return self._delegated

    # -- counters --

    def oom_kills(self) -> int:
        """How many processes the kernel killed in it for lack of memory."""
        directory, version = self.place("memory")
        name = "memory.oom_control" if version == 1 else "memory.events"
        return pairs(f"{directory}/{name}").get("oom_kill", 0) if directory else 0

    def stats(self) -> dict[str, Any]:
        """Counters as `dockp.spi.runtime.Runtime.stats` describes them; without a limit its key is absent."""
        return collect(self)


def _make(point: str, path: str) -> None:
    try:
        os.mkdir(point + path)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(point + path, exist_ok=True)


def _make_cpuset(point: str, path: str) -> None:
    # A new version 1 cpuset is empty and takes no process: each level is filled from the one above.
    directory = point
    for part in path.split("/")[1:]:
        above, directory = directory, f"{directory}/{part}"
        _make(above, f"/{part}")
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not read(f"{directory}/{name}").strip():
                write(f"{directory}/{name}", read(f"{above}/{name}").strip())


def _tree(directory: str) -> list[str]:
    """``directory`` and every one below it, parents first."""
    if not directory:
        return []
    found = [directory]
    for place in found:  # grows while it is walked
        try:
            with os.scandir(place) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
    return found


def _remove_directory(directory: str, deadline: float) -> None:
    pause = 0.0005
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as failure:
            # EBUSY lasts until the kernel is done with the processes that just died.
            if failure.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def children(path: str, layout: Layout | None = None) -> set[str]:
    """Names of the cgroups right below ``path``, in any hierarchy."""
    found: set[str] = set()
    layout = layout or detect()
    for point in {*layout.v1.values(), layout.unified} - {""}:
        try:
            with os.scandir(point + "/" + path.strip("/")) as entries:
                found |= {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        except FileNotFoundError:
            continue
    return found
