"""Removing every container that does not run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dockp.containers import describe, removal
from dockp.containers.context import Context
from dockp.containers.record import Container
from dockp.linux.locks import offset_of
from dockp.spi.errors import Conflict, DockpError, InvalidArgument

_log = logging.getLogger(__name__)

_FILTERS = frozenset(("label", "label!", "until"))


def prune(context: Context, containers: Sequence[Container], filters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """See `dockp.interface.Containers.prune`. One that cannot be removed is left out.

    Raises: InvalidArgument for a filter; Conflict while another prune runs.
    """
    wanted = _Wanted(filters)
    try:
        running = context.locks.hold(offset_of("container prune"), wait=False)
    except BlockingIOError:
        raise Conflict("a prune operation is already running") from None
    deleted, freed = [], 0
    with running:
        for container in containers:
            if container.active or not wanted.includes(container):
                continue
            try:
                size = describe.written(context, container)
                removal.remove(context, container, force=False, volumes=False)
            except DockpError as error:  # started, or removed, by somebody else
                _log.warning("failed to prune container %s: %s", container.id[:12], error)
                continue
            deleted.append(container.id)
            freed += size
    context.events.emit("container", "prune", "", {"reclaimed": str(freed)})
    return {"ContainersDeleted": deleted or None, "SpaceReclaimed": freed}


class _Wanted:
    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        for key in filters:
            if key not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        moments = filters.get("until", ())
        if len(moments) > 1:
            raise InvalidArgument("more than one until filter specified")
        self._until: int | None = None
        if moments:
            from dockp.units import parse_time

            self._until = parse_time(moments[0])
        self._labels = filters.get("label", ())
        self._not_labels = filters.get("label!", ())

    def includes(self, container: Container) -> bool:
        if self._until is not None and container.created > self._until:
            return False
        labels = container.request.config.labels
        return _all_of(labels, self._labels) and not (self._not_labels and _all_of(labels, self._not_labels))


def _all_of(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    pairs = (text.partition("=") for text in wanted)
    return all(name in labels and (not separator or labels[name] == value) for name, separator, value in pairs)
