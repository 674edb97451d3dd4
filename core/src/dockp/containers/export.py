"""A container's root file system as one tar: ``export``. Volumes are not part of it, as in Docker."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

from dockp.archive.pack import Packer, PackStream
from dockp.archive.tree import Tree
from dockp.containers.telling import tell
from dockp.containers.views import open_view

if TYPE_CHECKING:
    from dockp.containers.context import Context
    from dockp.containers.record import Container


def export(context: Context, container: Container) -> BinaryIO:
    """See `dockp.interface.Containers.export`."""
    view = open_view(context, container, volumes=False)
    tree = Tree(view.root)
    tell(context, container, "export")

    def done() -> None:
        with tree, view:
            pass

    return cast(BinaryIO, PackStream(Packer(tree, whole_seconds=True).tree(), done))
