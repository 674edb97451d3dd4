"""``container prune`` and ``system prune``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import FILTER, SWITCH, Flag, Values

_Removed = tuple[str, Sequence[str], int]
"""A headline, what was removed, and the bytes that were freed."""


def container_prune(app: App, values: Values) -> None:
    from dockp.cli.confirming import confirmed
    from dockp.units import human_size

    if not values["force"] and not confirmed("WARNING! This will remove all stopped containers."):
        return
    headline, lines, freed = _containers(app, values.filters())
    if lines:
        print(headline, *lines, "", sep="\n")
    print(f"Total reclaimed space: {human_size(freed)}")


def system_prune(app: App, values: Values) -> None:
    from dockp.cli.confirming import confirmed
    from dockp.units import human_size

    filters = values.filters()
    if values["volumes"] and "until" in filters:
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    if not values["force"] and not confirmed(_warning(values, filters)):
        return
    removed = [_containers(app, filters)]
    if values["volumes"]:
        removed.append(_volumes(app, filters))
    removed.append(_images(app, filters, every=values["all"]))
    for headline, lines, _ in removed:
        if lines:
            print(headline, *lines, "", sep="\n")
    print(f"Total reclaimed space: {human_size(sum(freed for _, _, freed in removed))}")


def _warning(values: Values, filters: Mapping[str, Sequence[str]]) -> str:
    lines = ["all stopped containers"]
    if values["volumes"]:
        lines.append("all anonymous volumes not used by at least one container")
    every = "all images without at least one container associated to them"
    lines.append(every if values["all"] else "all dangling images")
    text = "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    if filters:
        text += "\n  Items to be pruned will be filtered with:\n"
        text += "".join(f"  - {key}={value}\n" for key, found in sorted(filters.items()) for value in sorted(found))
    return text


def _containers(app: App, filters: Mapping[str, Sequence[str]]) -> _Removed:
    report = app.engine.containers.prune(filters)
    return "Deleted Containers:", report["ContainersDeleted"] or (), report["SpaceReclaimed"]


def _volumes(app: App, filters: Mapping[str, Sequence[str]]) -> _Removed:
    report = app.engine.volumes.prune(filters)
    return "Deleted Volumes:", report["VolumesDeleted"] or (), report["SpaceReclaimed"]


def _images(app: App, filters: Mapping[str, Sequence[str]], *, every: bool) -> _Removed:
    report = app.engine.images.prune({**filters, "dangling": ["false" if every else "true"]})
    lines = [f"{what.lower()}: {name}" for row in report["ImagesDeleted"] or () for what, name in row.items()]
    return "Deleted Images:", lines, report["SpaceReclaimed"]


_FORCE = Flag("force", "f", SWITCH, "Do not prompt for confirmation")

CONTAINER_PRUNE = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    container_prune,
    (Flag("filter", "", FILTER, 'Provide filter values (e.g. "until=<timestamp>")'), _FORCE),
    args=(0, 0),
    examples=("dockp container prune -f", "dockp container prune --filter until=24h --filter label!=keep"),
)
SYSTEM_PRUNE = Command(
    "[OPTIONS]",
    "Remove unused data",
    system_prune,
    (
        Flag("all", "a", SWITCH, "Remove all unused images not just dangling ones"),
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "label=<key>=<value>")'),
        _FORCE,
        Flag("volumes", "", SWITCH, "Prune anonymous volumes"),
    ),
    args=(0, 0),
    examples=("dockp system prune -f", "dockp system prune -a --volumes --filter label=scratch"),
)
