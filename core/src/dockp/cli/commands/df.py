"""``system df``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import SWITCH, Flag, Values
from dockp.cli.format.printer import Column, Listing
from dockp.cli.rendering import LIST_FORMAT, write_document

LISTING = Listing(
    "formatter.diskUsageContext",
    [
        Column("Type", "TYPE"),
        Column("TotalCount", "TOTAL"),
        Column("Active", "ACTIVE"),
        Column("Size", "SIZE"),
        Column("Reclaimable", "RECLAIMABLE"),
    ],
    default="table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    raw="type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\n"
    "reclaimable: {{.Reclaimable}}\n",
)
_BUILD_CACHE = Listing(
    "formatter.buildCacheContext",
    [
        Column("ID", "CACHE ID"),
        Column("CacheType", "CACHE TYPE"),
        Column("Size", "SIZE"),
        Column("CreatedSince", "CREATED"),
        Column("LastUsedSince", "LAST USED"),
        Column("UsageCount", "USAGE"),
        Column("Shared", "SHARED"),
    ],
    default="table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}"
    "\t{{.Shared}}",
)
_IMAGES = (
    "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}"
    "\t{{.Containers}}"
)
_CONTAINERS = (
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
)
_VOLUMES = "table {{.Name}}\t{{.Links}}\t{{.Size}}"
_ACTIVE = ("running", "paused", "restarting")


def df(app: App, values: Values) -> None:
    usage = app.engine.system.disk_usage()
    if values["verbose"]:
        _write_verbose(usage, values["format"])
    else:
        LISTING.write(sys.stdout, _rows(usage), format=values["format"] or None)


def _rows(usage: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    images = usage.get("Images") or ()
    used = [image for image in images if image["Containers"] > 0]
    needed = sum(
        image["Size"] - image["SharedSize"] for image in used if -1 not in (image["Size"], image["SharedSize"])
    )
    layers = usage.get("LayersSize") or 0
    yield _row("Images", images, used, layers, layers - needed)

    containers = usage.get("Containers") or ()
    active = [container for container in containers if container["State"] in _ACTIVE]
    size = _total(container.get("SizeRw") for container in containers)
    yield _row("Containers", containers, active, size, size - _total(item.get("SizeRw") for item in active))

    volumes = usage.get("Volumes") or ()
    held = [volume for volume in volumes if volume["UsageData"]["RefCount"] != 0]
    size = _total(volume["UsageData"]["Size"] for volume in volumes)
    yield _row("Local Volumes", volumes, held, size, size - _total(item["UsageData"]["Size"] for item in held))

    cache = usage.get("BuildCache") or ()
    busy = [record for record in cache if record["InUse"]]
    size = _total(record["Size"] for record in cache if not record["Shared"])
    free = _total(record["Size"] for record in cache if not record["Shared"] and not record["InUse"])
    yield _row("Build Cache", cache, busy, size, free) | {"Reclaimable": _human(free)}


def _row(kind: str, all: Sequence[Any], active: Sequence[Any], size: int, reclaimable: int) -> dict[str, Any]:
    share = f" ({reclaimable * 100 // size}%)" if size > 0 else ""
    return {
        "Type": kind,
        "TotalCount": str(len(all)),
        "Active": str(len(active)),
        "Size": _human(size),
        "Reclaimable": f"{_human(reclaimable)}{share}",
    }


def _total(sizes: Iterable[int | None]) -> int:
    """Without those that are not known (-1)."""
    return sum(size for size in sizes if size is not None and size > 0)


def _human(size: int) -> str:
    from dockp.units import human_size

    return human_size(size)


def _write_verbose(usage: Mapping[str, Any], format: str) -> None:
    from dockp.cli.commands import images, ps, volumes

    all_images = [row for document in usage.get("Images") or () for row in images.rows_of(document)]
    # The size of the image is among the images.
    containers = [ps.row({**document, "SizeRootFs": 0}, True) for document in usage.get("Containers") or ()]
    all_volumes = [volumes.row(document) for document in usage.get("Volumes") or ()]
    if format and format != "table":
        write_document(usage, format)
        return
    out = sys.stdout
    out.write("Images space usage:\n\n")
    images.LISTING.write(out, all_images, format=_IMAGES)
    out.write("\nContainers space usage:\n\n")
    ps.LISTING.write(out, containers, format=_CONTAINERS)
    out.write("\nLocal Volumes space usage:\n\n")
    volumes.LISTING.write(out, all_volumes, format=_VOLUMES)
    cache = usage.get("BuildCache") or ()
    size = _total(record["Size"] for record in cache if not record["Shared"])
    out.write(f"\nBuild cache usage: {_human(size)}\n\n")
    _BUILD_CACHE.write(out, [_cache_row(record) for record in cache])


def _cache_row(record: Mapping[str, Any]) -> dict[str, Any]:
    from dockp.units import format_ago, parse_time

    used = record.get("LastUsedAt")
    return {
        "ID": f"{record['ID'][:12]}{'*' if record['InUse'] else ''}",
        "CacheType": record["Type"],
        "Size": _human(record["Size"]),
        "CreatedSince": format_ago(parse_time(record["CreatedAt"])),
        "LastUsedSince": format_ago(parse_time(used)) if used else "",
        "UsageCount": str(record["UsageCount"]),
        "Shared": "true" if record["Shared"] else "false",
    }


DF = Command(
    "[OPTIONS]",
    "Show disk usage of the engine",
    df,
    (LIST_FORMAT, Flag("verbose", "v", SWITCH, "Show detailed information on space usage")),
    args=(0, 0),
    examples=("dockp system df -v", "dockp system df --format '{{.Type}}: {{.Reclaimable}}'"),
)
