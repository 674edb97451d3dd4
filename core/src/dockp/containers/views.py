"""A container's files as descriptors: what cp, diff, export and commit read and write.

A *view* is a descriptor of a root directory, inside of which `dockp.linux.paths.open_in_root` finds every path, and one
of a mount namespace, which keeps the mounts below that root. Nothing is mounted where the host sees it, no process
stays, and closing the two (or being killed) is all the clean-up there is.

* While the container runs, the root is its init's own, ``/proc/<pid>/root``: volumes, tmpfs and what was mounted since
  are all there. Without volumes it is the root file system that the shim has mounted in its namespace.
* Else a short-lived process mounts the snapshot, and the volumes in it, in a namespace of its own, and hands both over
  (`dockp.containers.mounting`). It is another process since unshare(2) is refused to one with threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from dockp.containers import settling
from dockp.containers.context import Context
from dockp.containers.mounts import staged
from dockp.containers.record import Container
from dockp.containers.states import State
from dockp.linux.paths import open_in_root
from dockp.shim import wire
from dockp.spi.errors import Conflict, NotFound, SystemFault, Unavailable
from dockp.spi.values import Mount
from dockp.supervisor.state import TaskState

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_IN_THE_WAY = (State.DEAD, State.REMOVING)


class View:
    """Two descriptors, see above. A context manager, whose end closes them."""

    def __init__(self, root: int, namespace: int) -> None:
        self.root = root
        self._namespace = namespace

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def copy(self) -> View:
        """The same, to be closed on its own."""
        return View(os.dup(self.root), os.dup(self._namespace))

    def close(self) -> None:
        os.close(self.root)
        os.close(self._namespace)


def open_view(context: Context, container: Container, *, volumes: bool = True) -> View:
    """A container's files, to read; without ``volumes`` only those of its root file system.

    Raises: Conflict when it is being removed; SystemFault when its files cannot be mounted.
    """
    view = _of_running(context, container, volumes)
    if view is None:
        with context.exclusive(container.id):
            view = _settled(context, container.id, volumes, writable=False)
    return view


@contextlib.contextmanager
def open_to_write(context: Context, container: Container) -> Iterator[View]:
    """A container's files with volumes, to write; one that does not run cannot be started meanwhile. Raises: as above.

    Waits for others that write to it: the same snapshot must not be mounted for writing twice.
    """
    view = _of_running(context, container, volumes=True)
    if view is not None:
        with view:
            yield view
        return
    with (
        context.exclusive(container.id),
        _settled(context, container.id, volumes=True, writable=True) as view,
    ):
        yield view


def open_layer(context: Context, snapshot: int) -> View:
    """A layer as it is when mounted, to read."""
    # Any directory will do to mount on: nobody else sees it.
    return _assembled(str(context.run_dir("")), context.snapshots.mounts(snapshot, read_only=True))


def _settled(context: Context, container_id: str, volumes: bool, writable: bool) -> View:
    """The view of a container whose lock the caller holds."""
    container = settling.settle(context, container_id)
    if container.task.state in _IN_THE_WAY:
        raise Conflict(f"container {container_id} is being removed")
    view = _of_running(context, container, volumes)
    if view is not None:
        return view
    assert container.snapshot is not None
    shim = _waiting_shim(context, container_id)
    target = str(context.run_dir(container_id) / "rootfs" if shim else context.run_dir(""))
    place = str(context.run_dir(container_id) / "volumes") if shim else f"{target}/volumes"
    records = staged(container.mounts if volumes else (), place, context.volumes)
    wanted: list[list[object]] = [
        [
            "bind",
            mount.source,
            [word for word in mount.options if word in ("bind", "rbind", "ro", "rro")],
            mount.target,
        ]
        for mount in records.mounts
        if mount.type != "tmpfs"
    ]
    # Mount points may have to be made, so that only a view without volumes can do with a snapshot that is read-only.
    mounts = () if shim else context.snapshots.mounts(container.snapshot, read_only=not (writable or wanted))
    return _assembled(
        target,
        mounts,
        volumes=wanted,
        staged=() if shim else records.rows,
        shim=shim,
        read_only=not writable or container.request.host.readonly_rootfs,
    )


def _waiting_shim(context: Context, container_id: str) -> int:
    """The pid of a shim that is about to start the container's process (again); 0 without one.

    It has the files mounted for writing, which nobody else may then do.
    """
    if not context.supervisor.alive(container_id):
        return 0
    try:
        with contextlib.closing(context.supervisor.connect(container_id)) as shim:
            return shim.state().shim_pid
    except (NotFound, Unavailable):
        return 0  # it ends at this moment


def _of_running(context: Context, container: Container, volumes: bool) -> View | None:
    """The view of a container with a process; None when it has none, or ends at this moment."""
    if not container.active:
        return None
    state = context.supervisor.state(container.id)
    if state is None or not state.running:
        return None
    try:
        return _of_process(state) if volumes else _of_shim(context, container, state)
    except OSError:
        return None


def _of_process(state: TaskState) -> View | None:
    with contextlib.ExitStack() as undo:
        view = View(os.open(f"/proc/{state.pid}/root", _DIRECTORY), _namespace(state.pid))
        undo.callback(view.close)
        if _start_time(state.pid) != state.pid_start_time:  # another process by now
            return None
        undo.pop_all()
        return view


def _of_shim(context: Context, container: Container, state: TaskState) -> View | None:
    top = os.open(f"/proc/{state.shim_pid}/root", _DIRECTORY)
    try:
        root = open_in_root(top, str(context.run_dir(container.id) / "rootfs"), os.O_PATH | os.O_DIRECTORY)
    finally:
        os.close(top)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, root)
        view = View(root, _namespace(state.shim_pid))
        undo.pop_all()
    if not context.supervisor.alive(container.id):
        view.close()
        return None
    return view


def _namespace(pid: int) -> int:
    return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def _start_time(pid: int) -> int:
    """In clock ticks since boot. Source: proc_pid_stat(5), field 22."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def _assembled(
    target: str,
    mounts: Sequence[Mount],
    *,
    volumes: Sequence[object] = (),
    staged: Sequence[Mapping[str, object]] = (),
    shim: int = 0,
    read_only: bool = False,
) -> View:
    request = {
        "mounts": [[mount.type, mount.source, list(mount.options)] for mount in mounts],
        "volumes": volumes,
        "staged": staged,
        "shim": shim,
        "read_only": read_only,
        "target": target,
    }
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-I", "-m", "dockp.containers.mounting", json.dumps(request), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        try:
            messages = wire.Receiver(ours).receive()
        finally:
            child.wait()
    if not messages:
        raise SystemFault(f"mounting the container's files ended with status {child.returncode}")
    answer, descriptors = messages[0]
    if "error" in answer:
        raise SystemFault(answer["error"])
    return View(*descriptors)
