"""``ps`` (``container ls``)."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dockp.cli.app import App, warn
from dockp.cli.command import Command
from dockp.cli.flags import FILTER, INT, SWITCH, Flag, Values, quote
from dockp.cli.format.govalues import Method
from dockp.cli.format.printer import Column, Listing, ellipsis, labels_text, short_id
from dockp.cli.rendering import LIST_FORMAT, familiar

_TABLE = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
_RAW = r"""container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
"""
LISTING = Listing(
    "formatter.ContainerContext",
    [
        Column("ID", "CONTAINER ID"),
        Column("Names", "NAMES"),
        Column("Image", "IMAGE"),
        Column("Command", "COMMAND"),
        Column("CreatedAt", "CREATED AT"),
        Column("RunningFor", "CREATED"),
        Column("Ports", "PORTS"),
        Column("State", "STATE"),
        Column("Status", "STATUS"),
        Column("Size", "SIZE"),
        Column("Labels", "LABELS"),
        Column("Mounts", "MOUNTS"),
        Column("LocalVolumes", "LOCAL VOLUMES"),
        Column("Networks", "NETWORKS"),
        Column("Platform", "PLATFORM"),
    ],
    default=_TABLE,
    raw=_RAW,
)


def ps(app: App, values: Values) -> None:
    format = values["format"] or None
    if format and values["quiet"]:
        warn("WARNING: Ignoring custom format, because both --format and --quiet are set.")
    limit = values["last"]
    if values["latest"] and limit == -1:
        limit = 1
    size = values["size"]
    if format and not values["quiet"] and "size" not in values.given:
        size = LISTING.uses(format, "Size") and format not in ("table", "raw")
    documents = app.engine.containers.list(all=values["all"], limit=max(limit, 0), size=size, filters=values.filters())
    rows = [row(document, not values["no-trunc"]) for document in documents]
    default = _TABLE + "\t{{.Size}}" if size else None
    if format == "raw" and size:
        format = _RAW + "size: {{.Size}}\n"
    LISTING.write(sys.stdout, rows, format=format, quiet=values["quiet"], default=default)


def row(document: Mapping[str, Any], short: bool) -> dict[str, Any]:
    """A container's summary as `LISTING` shows it."""
    from dockp.units import format_ago, format_created_at, human_size

    created = document["Created"] * 10**9
    labels = document.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in document.get("Mounts") or ()]
    writable, whole = document.get("SizeRw") or 0, document.get("SizeRootFs") or 0

    def size() -> str:
        text = human_size(writable, 3)
        return f"{text} (virtual {human_size(whole, 3)})" if whole > 0 else text

    return {
        "ID": short_id(document["Id"]) if short else document["Id"],
        "Names": _names(document.get("Names") or (), short),
        "Image": lambda: _image(document, short),
        "Command": lambda: quote(ellipsis(document["Command"], 20) if short else document["Command"]),
        "CreatedAt": lambda: format_created_at(created),
        "RunningFor": lambda: format_ago(created),
        "Ports": lambda: ports_text(document.get("Ports") or ()),
        "State": document["State"],
        "Status": document["Status"],
        "Size": size,
        "Labels": lambda: labels_text(labels),
        "Label": Method(lambda name: labels.get(name, "")),
        "Mounts": lambda: ",".join(ellipsis(name, 15) if short else name for name in mounts),
        "LocalVolumes": lambda: str(sum(mount.get("Driver") == "local" for mount in document.get("Mounts") or ())),
        "Networks": lambda: ",".join((document.get("NetworkSettings") or {}).get("Networks") or {}),
        "Platform": None,
    }


def _names(names: Sequence[str], short: bool) -> str:
    bare = [name.removeprefix("/") for name in names]
    if short:
        # A name with a slash is a link of the old kind: another name, seen from another container.
        own = [name for name in bare if "/" not in name]
        bare = own[:1] or bare
    return ",".join(bare)


def _image(document: Mapping[str, Any], short: bool) -> str:
    image = str(document["Image"])
    if not image:
        return "<no image>"
    if not short:
        return image
    short_image = short_id(document.get("ImageID") or "")
    if short_image and short_image == short_id(image):
        return short_image
    if "@" not in image:
        return familiar(image)
    return familiar(image.partition("@")[0])


def ports_text(ports: Sequence[Mapping[str, Any]]) -> str:
    """Ports as ``0.0.0.0:8080->80/tcp, 9000-9002/tcp``: runs of neighbours are merged where host and container port
    are the same, or where the port is not published."""
    spans: dict[str, list[int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    for port in sorted(ports, key=_port_order):
        inside, kind, address = port["PrivatePort"], port["Type"], port.get("IP") or ""
        outside = port.get("PublicPort") or 0
        if address and outside != inside:
            mapped.append(f"{_host(address)}:{outside}->{inside}/{kind}")
            continue
        key = f"{address}/{kind}"
        span = spans.get(key)
        if span and inside == span[1] + 1:
            span[1] = inside
            continue
        if span:
            done.append(_span_text(key, *span))
        spans[key] = [inside, inside]
    done.extend(_span_text(key, *span) for key, span in spans.items())
    return ", ".join(done + mapped)


def _port_order(port: Mapping[str, Any]) -> tuple[Any, ...]:
    return (port["PrivatePort"], port.get("IP") or "", port.get("PublicPort") or 0, port["Type"])


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _span_text(key: str, first: int, last: int) -> str:
    address, _, kind = key.rpartition("/")
    span = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{span}->{span}/{kind}" if address else f"{span}/{kind}"


PS = Command(
    "[OPTIONS]",
    "List containers",
    ps,
    (
        Flag("all", "a", SWITCH, "Show all containers (default shows just running)"),
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        LIST_FORMAT,
        Flag("last", "n", INT, "Show n last created containers (includes all states)", default=-1),
        Flag("latest", "l", SWITCH, "Show the latest created container (includes all states)"),
        Flag("no-trunc", "", SWITCH, "Don't truncate output"),
        Flag("quiet", "q", SWITCH, "Only display container IDs"),
        Flag("size", "s", SWITCH, "Display total file sizes"),
    ),
    args=(0, 0),
    aliases="dockp container ls, dockp container list, dockp container ps, dockp ps",
    examples=("dockp ps -a", "dockp ps --filter status=exited --format '{{.ID}} {{.Names}}'"),
)
