"""The child's half: from the first instruction in new namespaces to execve(2). See `channel` for the conversation.

The order is runc's (standard_init), with reasons where it matters. Nothing here returns to the caller's code: a child
ends in execve or in _exit.
"""

from __future__ import annotations

import os

from dockp.linux import cgroups, mounts, namespaces, process, seccomp
from dockp.spi.runtime import RuntimeFailure
from dockp_exec_libcontainer import channel as talk
from dockp_exec_libcontainer import hooks, identity, limits, lookup
from dockp_exec_libcontainer.rootfs import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dockp_exec_libcontainer.channel import Channel
    from dockp_exec_libcontainer.rootfs import Step

_SIGKILL = 9


class Job:
    """What both kinds of children, init and exec, are told.

    Attributes:
        process: the OCI process object. stdio: descriptors to become 0, 1, 2. spec: the container's whole spec.
        id: the container's. new_user_namespace: whether ids must be taken after the maps are written.
        filter: seccomp program and flags, or None. tasks: what `cgroups.join_self` takes.
        tied: whether to die with the shim. keyring: whether to get a session keyring of its own.
        first_closed: descriptors from this one on are closed on execve; those from 3 up to it are passed on.
    """

    __slots__ = (
        "bundle",
        "filter",
        "first_closed",
        "id",
        "keyring",
        "new_user_namespace",
        "process",
        "spec",
        "stdio",
        "tasks",
        "tied",
    )

    tasks: list[int]
    tied: bool
    keyring: bool
    first_closed: int

    def __init__(
        self,
        id: str,
        bundle: str,
        spec: dict[str, Any],
        process: dict[str, Any],
        stdio: tuple[int, int, int],
        filter: tuple[bytes, int] | None,
        new_user_namespace: bool,
    ) -> None:
        self.id = id
        self.bundle = bundle
        self.spec = spec
        self.process = process
        self.stdio = stdio
        self.filter = filter
        self.new_user_namespace = new_user_namespace


class InitJob(Job):
    """The container's first process.

    Attributes:
        root: detached mount of the root file system. steps: in order; those in ``late`` come after the hooks.
        user_namespace: descriptor of a user namespace to join, or -1.
        new_cgroup_namespace: whether to make one, which is possible only once the cgroups are joined.
        propagation: of the finished root. hooked: whether prestart or createRuntime hooks run in the shim.
    """

    __slots__ = ("hooked", "late", "new_cgroup_namespace", "propagation", "root", "steps", "user_namespace")

    root: int
    steps: list[Step]
    late: list[Step]
    user_namespace: int
    new_cgroup_namespace: bool
    propagation: str
    hooked: bool


class ExecJob(Job):
    """One more process. Attributes: target: pidfd of init. flags: namespaces of init to enter."""

    __slots__ = ("flags", "join_user", "target")

    target: int
    flags: int


def run(job: Job, line: Channel, body: Callable[[Any, Channel], None]) -> None:
    """Run a child to its end. Never returns."""
    try:
        body(job, line)
    except RuntimeFailure as failure:
        line.fail(str(failure), failure.kind)
    except OSError as failure:
        where = f": {failure.filename}" if failure.filename else ""
        line.fail(f"{failure.strerror}{where}", "failed")
    except BaseException as failure:  # a mistake in this code must end the child too, and be told
        line.fail(f"internal error: {type(failure).__name__}: {failure}", "failed")
    finally:
        os._exit(1)


def init(job: InitJob, line: Channel) -> None:
    """The life of a container's first process up to its execve."""
    begin(job, line)
    identity.take_stdio(job.stdio)
    writers = _labels(job)
    os.setsid()
    if job.process.get("terminal"):
        identity.take_terminal()
    umask = os.umask(0)  # modes of made directories and nodes are meant literally
    tree = _build_tree(job, line)
    os.umask(umask)
    _change_root(tree)
    if job.propagation:
        mounts.set_propagation("/", job.propagation)
    settle(job, line, writers)
    line.send(talk.READY)
    line.expect(talk.START)
    hooks.run(
        (job.spec.get("hooks") or {}).get("startContainer"),
        "startContainer",
        hooks.state(job.spec, job.id, job.bundle, os.getpid(), "created"),
    )
    execute(job)


def exec(job: ExecJob, line: Channel) -> None:
    """The life of an additional process up to its execve. It was made in init's pid namespace."""
    identity.forget_signals()
    identity.take_stdio(job.stdio)
    writers = _labels(job)  # through the host's /proc, the container's could be forged
    _keyring(job)
    for note in limits.set_oom_score("self", job.process):  # likewise
        line.warn(note)
    # In the cgroup before in the namespaces, so that nothing ever runs in there unlimited.
    cgroups.join_self(job.tasks)
    namespaces.setns(job.target, job.flags)
    if job.flags & namespaces.CLONE_NEWUSER:
        _become_root()
    os.setsid()
    if job.process.get("terminal"):
        identity.take_terminal()
    settle(job, line, writers)
    line.require()
    execute(job)


def begin(job: InitJob, line: Channel) -> None:
    """Signals, cgroups, user namespace, keyring."""
    identity.forget_signals()
    cgroups.join_self(job.tasks)
    if job.user_namespace >= 0:
        namespaces.setns(job.user_namespace, namespaces.CLONE_NEWUSER)
        _become_root()
    elif job.new_user_namespace:
        line.expect(talk.MAPPED)
        _become_root()
    if job.new_cgroup_namespace:
        # Only now, with the cgroups joined, does it get the right root; and only here does its owner come out right.
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    _keyring(job)


def _become_root() -> None:
    # The ids from outside are not mapped: root of the namespace is who its capabilities are for.
    identity.set_groups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _keyring(job: Job) -> None:
    if not job.keyring:
        return
    # A keyring of its own, or the command would see the keys of whoever started the shim.
    try:
        process.join_session_keyring(f"_ses.{job.id}")
    except OSError:
        return  # the kernel has no keys, or no quota for one more: nothing is shared in either case


def _labels(job: Job) -> list[tuple[int, bytes]]:
    wanted = (
        identity.label_writer(job.process.get("apparmorProfile") or "", apparmor=True),
        identity.label_writer(job.process.get("selinuxLabel") or "", apparmor=False),
    )
    return [writer for writer in wanted if writer is not None]


def _build_tree(job: InitJob, line: Channel) -> Tree:
    # First of all, or every mount below would appear on the host too.
    mounts.set_propagation("/", "rslave")
    # The root goes on top of "/": that place can be reached even where the path of the root file system cannot, as in
    # a user namespace, and pivot_root(2) takes the old one away together with it.
    mounts.attach(job.root, "/")
    os.fchdir(job.root)
    tree = Tree(job.root, job.new_user_namespace or job.user_namespace >= 0)
    _execute(job.steps, tree)
    _network(job.spec)
    _names(job.spec)
    if job.hooked:
        line.send(talk.HOOKS)
        line.expect(talk.HOOKED)
    hooks.run(
        (job.spec.get("hooks") or {}).get("createContainer"),
        "createContainer",
        hooks.state(job.spec, job.id, job.bundle, os.getpid(), "creating"),
    )
    _execute(job.late, tree)
    return tree


def _execute(steps: list[Step], tree: Tree) -> None:
    for step in steps:
        try:
            step.execute(tree)
        except OSError as failure:
            where = f": {failure.filename}" if failure.filename else ""
            raise RuntimeFailure(f"cannot {step.describe()}: {failure.strerror}{where}") from failure


def _network(spec: dict[str, Any]) -> None:
    for entry in spec["linux"].get("namespaces") or ():
        if entry["type"] == "network" and not entry.get("path"):
            # A new namespace has its loopback down; what listens on 127.0.0.1 should be reached there.
            namespaces.loopback_up()


def _names(spec: dict[str, Any]) -> None:
    if spec.get("hostname"):
        process.set_host_name(spec["hostname"])
    if spec.get("domainname"):
        process.set_domain_name(spec["domainname"])


def _change_root(tree: Tree) -> None:
    os.fchdir(tree.root)
    # Both names are ".", pivot_root(2) "NOTES": the old root then lies over the new one, and is taken off.
    mounts.pivot_root(".", ".")
    mounts.unmount(".", mounts.MNT_DETACH)
    os.chdir("/")


def settle(job: Job, line: Channel, writers: list[tuple[int, bytes]]) -> None:
    """Everything about the process that needs the container's files but not its command."""
    wanted = job.process
    user = wanted.get("user") or {}
    identity.write_labels(writers)
    if wanted.get("noNewPrivileges"):
        process.set_no_new_privileges()
    identity.apply_scheduling(wanted)
    persona = job.spec["linux"].get("personality")
    if persona:
        process.set_personality(process.PERSONALITIES[persona["domain"]])
    if job.filter and not wanted.get("noNewPrivileges"):
        # Needs CAP_SYS_ADMIN now, which the next lines give up; the rest of the way is allowed by any sane profile.
        seccomp.load(*job.filter)
    if isinstance(job, InitJob):
        identity.make_working_directory(wanted["cwd"])
    identity.own_stdio(user.get("uid") or 0)
    given = wanted.get("capabilities")
    if given is None:
        given = (job.spec.get("process") or {}).get("capabilities") or {}
    env = identity.environment(wanted.get("env"), user.get("uid") or 0)
    if wanted.get("rlimits"):
        # Before the ids change: the shim may lack CAP_SYS_RESOURCE, and then only equal ids let it set limits
        # (prlimit(2)). From here on no new descriptor is needed, in case there may be none.
        line.send(talk.LIMITS)
        line.expect(talk.LIMITED)
    take_capabilities = identity.take_ids(user, given, line.warn)
    # As the user, and without capabilities: a directory that only root may enter is an error, not a way in.
    identity.enter_directory(wanted["cwd"])
    take_capabilities()
    os.umask(identity.DEFAULT_UMASK if user.get("umask") is None else user["umask"])
    job.process = {**wanted, "env": env, "file": lookup.find_command(wanted["args"][0], env.get("PATH", ""))}
    # After the last change of ids, which clears it. A shim that died before this line is noticed at the next
    # expect() or require().
    if job.tied:
        process.set_parent_death_signal(_SIGKILL)


def execute(job: Job) -> None:
    """execve(2). The seccomp filter comes as late as possible, so that it need not allow what this code does."""
    process.close_on_exec_from(job.first_closed)
    if job.filter and job.process.get("noNewPrivileges"):
        seccomp.load(*job.filter)
    path = job.process["file"]
    try:
        os.execve(path, job.process["args"], job.process["env"])
    except OSError as failure:
        raise lookup.execution_failure(path, failure) from failure
