"""The shim's half of the driver: one OCI container by direct system calls. See `dockp.spi.runtime` for the contract.

A container is made by one clone3(2) into all new namespaces at once; the child builds its file tree and
waits for the word to execute its command. `channel` draws the conversation of the two.
"""

from __future__ import annotations

import errno
import os
import select

from dockp.linux import cgroups, namespaces, process
from dockp.spi.runtime import RuntimeFailure
from dockp_exec_libcontainer import channel as talk
from dockp_exec_libcontainer import child, hooks, limits, seccomp
from dockp_exec_libcontainer import spec as specs
from dockp_exec_libcontainer.channel import Channel
from dockp_exec_libcontainer.plan import Plan, device_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIGKILL = 9


class Runtime:
    """One container. Single-threaded processes only.

    Options: ``cache``: directory of compiled seccomp profiles. ``siblings``: see `dockp.spi.runtime.Transferable`. For
    `dockp_exec_libcontainer.command`, which is no shim: ``outlive``: "yes" lets the container's processes live on when
    this process ends; ``keyring``: "no" keeps the session keyring; ``preserve-fds``: how many descriptors from 3 on the
    command gets as well.
    """

    def __init__(self, id: str, bundle: str, options: dict[str, str]) -> None:
        self.id = id
        self.bundle = bundle
        self._cache = options.get("cache", "")
        self._tied = options.get("outlive") != "yes"
        self._keyring = options.get("keyring") != "no"
        self._first_closed = 3 + int(options.get("preserve-fds") or 0)
        self._sibling = options.get("siblings") == "yes"
        self._document: dict[str, Any] | None = None
        self._hooks: dict[str, Any] = {}
        self._warnings: list[str] = []
        self._path = ""
        self._cgroup: cgroups.Cgroup | None = None
        self._line: Channel | None = None
        self._pid = 0
        self._pidfd = -1
        self._enter = 0
        self._oom_kills = 0
        self._no_new_devices = False
        self._program = ""

    # -- life --

    def adopt(self, pid: int, handover: dict[str, Any]) -> None:
        """See `dockp.spi.runtime.Runtime.adopt`. What is not in it is what the spec says.

        Raises RuntimeFailure; ProcessLookupError when init is gone.
        """
        self._path = handover.get("cgroup") or self._cgroup_path(self._spec["linux"])
        self._pidfd = namespaces.pidfd_open(pid) if pid else -1
        self._pid, self._enter = pid, handover.get("enter", 0)
        self._warnings = handover.get("warnings", [])
        self._no_new_devices = handover.get("no_new_devices", False)
        self._hooks = handover["hooks"] if "hooks" in handover else self._spec.get("hooks") or {}
        self._program = handover.get("program", "")

    def handover(self) -> dict[str, Any]:
        """See `dockp.spi.runtime.Transferable.handover`: ``enter`` are the namespaces that `exec` enters, ``program``
        is the file of the seccomp program."""
        return {
            "cgroup": self._path,
            "enter": self._enter,
            "warnings": self._warnings,
            "hooks": self._hooks,
            "no_new_devices": self._no_new_devices,
            "program": self._program,
        }

    @property
    def _spec(self) -> dict[str, Any]:
        """Read when it is first needed: one who adopted the container may never need it."""
        if self._document is None:
            self._document = specs.read(self.bundle)
        return self._document

    def _control(self) -> cgroups.Cgroup | None:
        """The cgroup, looked up when it is first needed; None when there is none."""
        if self._cgroup is None and self._path:
            self._cgroup = cgroups.Cgroup(self._path)
        return self._cgroup

    def create(self, stdio: tuple[int, int, int], netns: int | None) -> int:
        """See `dockp.spi.runtime.Runtime.create`."""
        self._warnings = []
        spec = self._spec
        self._hooks = spec.get("hooks") or {}
        if not spec.get("process"):
            raise RuntimeFailure("process is missing in config.json")
        plan = Plan(spec, self.bundle, netns)
        try:
            cgroup = self._make_cgroup(spec["linux"])
            if self._no_new_devices:
                spec["process"] = _without_mknod(spec["process"])
            plan.prepare_tree(cgroup, bool(spec["process"].get("terminal")))
            return self._spawn_init(plan, cgroup, stdio)
        except OSError as failure:
            self._undo_create()
            raise RuntimeFailure(_words(failure)) from failure
        except BaseException:
            self._undo_create()
            raise
        finally:
            plan.close()

    def start(self) -> None:
        """See `dockp.spi.runtime.Runtime.start`."""
        if self._line is None:
            raise RuntimeFailure("the container is not created, or was started already")
        line, self._line = self._line, None
        try:
            line.send(talk.START)
            line.await_message(b"", self._warnings)
        finally:
            line.close()
        self._run_hooks("poststart", "running", must_work=False)

    def exec(self, process: dict[str, Any], stdio: tuple[int, int, int]) -> int:
        """See `dockp.spi.runtime.Runtime.exec`."""
        specs.check_process(process)
        cgroup = self._control()
        if cgroup is None or self._pidfd < 0:
            raise RuntimeFailure("the container is not running")
        if cgroup.frozen():
            raise RuntimeFailure("the container is paused: unpause it before exec")
        if self._no_new_devices:
            given = process.get("capabilities") or (self._spec.get("process") or {}).get("capabilities") or {}
            process = _without_mknod({**process, "capabilities": given})
        job = child.ExecJob(self.id, self.bundle, self._spec, process, stdio, self._filter(), False)
        self._tell(job)
        job.target = self._pidfd
        job.flags = self._enter & ~namespaces.CLONE_NEWPID
        notes: list[str] = []
        try:
            pid, pidfd, line = self._spawn_exec(job, cgroup)
        except ProcessLookupError:
            raise RuntimeFailure("the container is not running") from None
        except OSError as failure:
            raise RuntimeFailure(_words(failure)) from failure
        try:
            _give_limits(line, pid, process, notes)
            line.await_message(b"", notes)
        except BaseException as failure:
            _kill_and_reap(pid, pidfd)
            if isinstance(failure, OSError):
                raise RuntimeFailure(_words(failure)) from failure
            raise
        finally:
            line.close()
            os.close(pidfd)
        return pid

    def remove(self) -> None:
        """See `dockp.spi.runtime.Runtime.remove`."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        pidfd, self._pidfd = self._pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)
        cgroup = self._control()
        self._cgroup, self._path = None, ""
        if cgroup is None:
            return
        self._oom_kills = max(self._oom_kills, cgroup.oom_kills())
        cgroup.remove()
        self._run_hooks("poststop", "stopped", must_work=False)

    # -- verbs on a running container --

    def signal(self, signum: int, all: bool = False) -> None:
        """See `dockp.spi.runtime.Runtime.signal`."""
        cgroup = self._control() if all else None
        if cgroup is not None:
            if signum == _SIGKILL:
                cgroup.kill()
                return
            for pid in cgroup.pids():
                try:
                    os.kill(pid, signum)
                except ProcessLookupError:
                    continue
        elif self._pidfd >= 0:
            namespaces.pidfd_signal(self._pidfd, signum)

    def pause(self) -> None:
        """Freeze every process. Raises RuntimeFailure."""
        self._frozen(lambda cgroup: cgroup.freeze())

    def resume(self) -> None:
        """Undo `pause`. Raises RuntimeFailure."""
        self._frozen(lambda cgroup: cgroup.thaw())

    def _frozen(self, change: Callable[[cgroups.Cgroup], None]) -> None:
        cgroup = self._control()
        if cgroup is None:
            raise RuntimeFailure("the container is not running")
        try:
            change(cgroup)
        except OSError as failure:
            raise RuntimeFailure(_words(failure)) from failure

    def paused(self) -> bool:
        """Whether `pause` is in force, asked of the kernel."""
        cgroup = self._control()
        return cgroup is not None and cgroup.frozen()

    def update(self, resources: dict[str, Any]) -> list[str]:
        """See `dockp.spi.runtime.Runtime.update`."""
        cgroup = self._control()
        if cgroup is None:
            raise RuntimeFailure("the container is not running")
        notes = cgroup.apply(resources)
        if resources.get("devices"):
            notes += cgroup.limit_devices(device_rules({**self._spec["linux"], "resources": resources}))
        return notes

    def stats(self) -> dict[str, Any]:
        """See `dockp.spi.runtime.Runtime.stats`; a limit that is not set is absent."""
        cgroup = self._control()
        return cgroup.stats() if cgroup is not None else {}

    def processes(self) -> list[int]:
        """See `dockp.spi.runtime.Runtime.processes`."""
        cgroup = self._control()
        return cgroup.pids() if cgroup is not None else []

    def warnings(self) -> list[str]:
        """See `dockp.spi.runtime.Runtime.warnings`."""
        return list(self._warnings)

    def oom_killed(self) -> bool:
        """See `dockp.spi.runtime.Runtime.oom_killed`."""
        cgroup = self._control()
        if cgroup is not None:
            self._oom_kills = max(self._oom_kills, cgroup.oom_kills())
        return self._oom_kills > 0

    # -- parts of create --

    def _make_cgroup(self, linux: dict[str, Any]) -> cgroups.Cgroup:
        resources = linux.get("resources") or {}
        path = self._cgroup_path(linux)
        cgroup = cgroups.Cgroup(path)
        if cgroup.exists():
            if cgroup.pids():
                raise RuntimeFailure(f"cgroup {cgroup.path} is in use by other processes")
            cgroup.remove()  # left by a crash, with limits of then
        # From here on remove() has something to remove.
        self._cgroup, self._path = cgroup, path
        cgroup.create(resources)
        self._warnings += cgroup.apply(resources)
        notes = cgroup.limit_devices(device_rules(linux))
        # Where devices cannot be withheld, at least none can be made: the image brings none of the host's.
        self._no_new_devices = bool(notes)
        self._warnings += [f"{note}; CAP_MKNOD is withheld instead" for note in notes]
        return cgroup

    def _cgroup_path(self, linux: dict[str, Any]) -> str:
        try:
            return cgroups.resolve_path(linux.get("cgroupsPath") or "", self.id)
        except ValueError as failure:
            raise RuntimeFailure(str(failure)) from failure

    def _tell(self, job: child.Job) -> None:
        job.tied, job.keyring, job.first_closed = self._tied, self._keyring, self._first_closed

    def _spawn_init(self, plan: Plan, cgroup: cgroups.Cgroup, stdio: tuple[int, int, int]) -> int:
        spec, linux = self._spec, self._spec["linux"]
        job = child.InitJob(self.id, self.bundle, spec, spec["process"], stdio, self._filter(), plan.new_user_namespace)
        self._tell(job)
        job.root = plan.root
        job.steps = plan.steps
        job.late = plan.late
        job.user_namespace = plan.user_namespace
        job.new_cgroup_namespace = plan.new_cgroup_namespace
        job.propagation = linux.get("rootfsPropagation") or ""
        hooks_given = spec.get("hooks") or {}
        job.hooked = bool(hooks_given.get("prestart") or hooks_given.get("createRuntime"))
        job.tasks = [plan.keep(fd) for fd in cgroup.open_tasks()]
        ours, theirs = Channel.pair()
        try:
            with _Born(plan.joins, linux.get("timeOffsets") or {}) as flags:
                place = cgroup.open_unified()
                try:
                    pid, pidfd = _clone(plan.flags & ~flags, place, self._sibling)
                finally:
                    _close(place)
                if pid == 0:
                    ours.close()
                    child.run(job, theirs, child.init)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._pid, self._pidfd, self._line, self._enter = pid, pidfd, ours, plan.enter
        if plan.new_user_namespace:
            namespaces.write_id_maps(
                pid, specs.id_map(linux["uidMappings"]), specs.id_map(linux["gidMappings"]), os.geteuid() == 0
            )
            ours.send(talk.MAPPED)
        if job.hooked:
            ours.await_message(talk.HOOKS, self._warnings)
            self._run_hooks("prestart", "creating")
            self._run_hooks("createRuntime", "creating")
            ours.send(talk.HOOKED)
        _give_limits(ours, pid, spec["process"], self._warnings)
        ours.await_message(talk.READY, self._warnings)
        self._warnings += limits.set_oom_score(str(pid), spec["process"])
        return pid

    def _undo_create(self) -> None:
        pid, self._pid = self._pid, 0
        if pid:
            _kill_and_reap(pid, self._pidfd)
        try:
            self.remove()
        except OSError as failure:
            # The first error is the one to tell; this one says what is left to clean up.
            self._warnings.append(f"left behind: {_words(failure)}")

    def _filter(self) -> tuple[bytes, int] | None:
        profile = self._spec["linux"].get("seccomp")
        if not profile:
            return None
        self._program = self._program or seccomp.place(profile, self._cache)
        return seccomp.program(profile, self._program), seccomp.flags(profile)

    def _run_hooks(self, moment: str, status: str, must_work: bool = True) -> None:
        given = self._hooks.get(moment)
        if not given:
            return
        document = hooks.state(self._spec, self.id, self.bundle, self._pid, status)
        try:
            hooks.run(given, moment, document)
        except RuntimeFailure as failure:
            # runtime.md "Lifecycle": from poststart on a failing hook is reported and changes nothing.
            if must_work:
                raise
            self._warnings.append(str(failure))

    def _spawn_exec(self, job: child.ExecJob, cgroup: cgroups.Cgroup) -> tuple[int, int, Channel]:
        joins = []
        if self._enter & namespaces.CLONE_NEWPID:
            joins.append(("pid", self._pidfd))
        ours, theirs = Channel.pair()
        try:
            job.tasks = cgroup.open_tasks()
            with _Born(joins, {}):
                pid, pidfd = _clone_beside(cgroup, self._pid, self._sibling)
                if pid == 0:
                    ours.close()
                    child.run(job, theirs, child.exec)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            _close(*getattr(job, "tasks", ()))
        return pid, pidfd, ours


def _give_limits(line: Channel, pid: int, process: dict[str, Any], notes: list[str]) -> None:
    """Give a child its limits, when it is ready for them."""
    if process.get("rlimits"):
        line.await_message(talk.LIMITS, notes)
        notes += limits.set_rlimits(pid, process)
        line.send(talk.LIMITED)


class _Born:
    """Have the next child be born in given namespaces, and come back.

    A pid or time namespace can be entered by children only, and a namespace that is not owned by the child's new user
    namespace only before that exists: so the shim goes there for the length of one clone3.
    """

    def __init__(self, joins: list[tuple[str, int]], offsets: dict[str, dict[str, int]]) -> None:
        self._joins = joins
        self._offsets = offsets
        self._back: list[tuple[int, int]] = []

    def __enter__(self) -> int:
        """Returns the clone flags that are taken care of."""
        done = 0
        try:
            for kind, fd in self._joins:
                flag = namespaces.KINDS[kind][0]
                self._remember(kind)
                namespaces.setns(fd, flag)
            if self._offsets:
                self._remember("time")
                namespaces.unshare(namespaces.CLONE_NEWTIME)
                _write_offsets(self._offsets)
                done |= namespaces.CLONE_NEWTIME
        except BaseException:
            self.__exit__()
            raise
        return done

    def _remember(self, kind: str) -> None:
        self._back.append((namespaces.open_own(kind), namespaces.KINDS[kind][0]))

    def __exit__(self, *_: object) -> None:
        back, self._back = self._back, []
        for fd, flag in reversed(back):
            try:
                namespaces.setns(fd, flag)
            finally:
                os.close(fd)


def _write_offsets(offsets: dict[str, dict[str, int]]) -> None:
    fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        for clock, value in offsets.items():
            os.write(fd, f"{clock} {value.get('secs') or 0} {value.get('nanosecs') or 0}\n".encode())
    finally:
        os.close(fd)


def _clone(flags: int, cgroup: int | None, sibling: bool) -> tuple[int, int]:
    """clone3 of a child that nobody in the container can look into (CVE-2016-9962)."""
    dumpable = process.dumpable()
    if dumpable:
        process.set_dumpable(False)  # inherited; execve(2) of the command sets it again
    pid = -1
    try:
        pid, pidfd = namespaces.clone(flags, cgroup, sibling)
        return pid, pidfd
    finally:
        if dumpable and pid != 0:
            process.set_dumpable(True)


def _clone_beside(cgroup: cgroups.Cgroup, init: int, sibling: bool) -> tuple[int, int]:
    """`_clone` into the container's cgroup, or into init's where the container divided its own."""
    place = cgroup.open_unified()
    try:
        return _clone(0, place, sibling)
    except OSError as failure:
        if failure.errno not in (errno.EBUSY, errno.EOPNOTSUPP):
            raise
        _close(place)
        place = cgroup.open_unified_of(init)
        return _clone(0, place, sibling)
    finally:
        _close(place)


def _without_mknod(process: dict[str, Any]) -> dict[str, Any]:
    """An OCI process object whose capabilities lack the one to make device nodes."""
    sets = process.get("capabilities") or {}
    kept = {name: [word for word in words if word != "CAP_MKNOD"] for name, words in sets.items()}
    return {**process, "capabilities": kept}


def _close(*descriptors: int | None) -> None:
    for fd in descriptors:
        if fd is not None:
            os.close(fd)


def _kill_and_reap(pid: int, pidfd: int) -> None:
    namespaces.pidfd_signal(pidfd, _SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        select.select([pidfd], [], [])  # somebody else reaps it: until it is dead


def _words(failure: OSError) -> str:
    where = f": {failure.filename}" if failure.filename else ""
    return f"{failure.strerror or failure}{where}"
