"""What a container changed against its image: ``diff``, and the layer that ``commit`` makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from dockp.archive.changes import ADDED, CHANGED, DELETED, Change, between, in_directory
from dockp.containers.views import open_layer, open_view
from dockp.interface import Document

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.record import Container

_KINDS = {CHANGED: 0, ADDED: 1, DELETED: 2}
_MADE_BY_RUNTIME = frozenset(
    (
        *("/.dockerenv", "/dev", "/dev/console", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc", "/sys", "/etc"),
        *("/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf", "/sbin", "/sbin/docker-init"),
    )
)
"""Mount points that a runtime makes in the writable layer where the image has none. Docker has them in a layer of their
own below, so that no diff shows them."""


def changes(context: Context, container: Container) -> Sequence[Document]:
    """See `dockp.interface.Containers.changes`."""
    found, hidden = _compared(context, container)
    return [{"Path": change.path, "Kind": _KINDS[change.kind]} for change in found if change.path not in hidden]


@contextmanager
def layer(context: Context, container: Container) -> Iterator[Iterator[bytes]]:
    """The changes as a layer, in pieces."""
    from dockp.archive import pack
    from dockp.archive.tree import Tree

    assert container.snapshot is not None
    _, hidden = _compared(context, container)
    directories = context.snapshots.changes(container.snapshot)
    with ExitStack() as stack:
        if directories:
            yield pack.layer(directories[0], stack.enter_context(Tree(directories[0].path)), hidden)
            return
        lower, upper = _trees(context, container, stack)
        yield pack.layer((lower, upper), stack.enter_context(Tree(upper)), hidden)


def _compared(context: Context, container: Container) -> tuple[Sequence[Change], set[str]]:
    """All changes, and the paths of those that are the runtime's."""
    assert container.snapshot is not None
    directories = context.snapshots.changes(container.snapshot)
    if directories:
        found = in_directory(directories[0], [directory.path for directory in directories[1:]])
    else:
        with ExitStack() as stack:
            found = between(*_trees(context, container, stack))
    return found, _hidden(found)


def _trees(context: Context, container: Container, stack: ExitStack) -> tuple[int | None, int]:
    """Descriptors of the image's tree and of the container's, for a driver without directories of changes."""
    assert container.snapshot is not None
    parent = context.snapshots.get(container.snapshot).parent
    lower = None if parent is None else stack.enter_context(open_layer(context, parent)).root
    return lower, stack.enter_context(open_view(context, container, volumes=False)).root


def _hidden(found: Sequence[Change]) -> set[str]:
    """Paths of what the runtime made, and of the directories that changed for no other reason."""
    hidden = {change.path for change in found if change.path in _MADE_BY_RUNTIME and change.kind == ADDED}
    touched = {path.rpartition("/")[0] for path in hidden}
    for change in reversed(found):  # what a directory holds comes after it
        if change.path in touched and change.kind != DELETED and change.path in _MADE_BY_RUNTIME:
            hidden.add(change.path)
    shown = {change.path for change in found} - hidden
    return {path for path in hidden if not any(other.startswith(path + "/") for other in shown)}
