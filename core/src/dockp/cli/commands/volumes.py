"""``volume``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dockp.cli import readers
from dockp.cli.app import App, Failure, each
from dockp.cli.command import Command
from dockp.cli.flags import FILTER, STRING, SWITCH, Flag, Kind, Values, listing
from dockp.cli.format.govalues import Method
from dockp.cli.format.printer import Column, Listing, labels_text
from dockp.cli.rendering import INSPECT_FORMAT, LIST_FORMAT, natural, write_documents

LISTING = Listing(
    "formatter.volumeContext",
    [
        Column("Name", "VOLUME NAME"),
        Column("Driver", "DRIVER"),
        Column("Scope", "SCOPE"),
        Column("Mountpoint", "MOUNTPOINT"),
        Column("Labels", "LABELS"),
        Column("Links", "LINKS"),
        Column("Size", "SIZE"),
        Column("Group", "GROUP"),
        Column("Availability", "AVAILABILITY"),
        Column("Status", "STATUS"),
    ],
    default="table {{.Driver}}\t{{.Name}}",
    quiet="{{.Name}}",
    raw="name: {{.Name}}\ndriver: {{.Driver}}\n",
)


def list_(app: App, values: Values) -> None:
    documents = sorted(app.engine.volumes.list(values.filters()), key=lambda document: natural(document["Name"]))
    format = values["format"] or None
    quiet = values["quiet"] and format in (None, "table")
    LISTING.write(sys.stdout, [row(document) for document in documents], format=format, quiet=quiet)


def row(document: Mapping[str, Any]) -> dict[str, Any]:
    """A volume's document as `LISTING` shows it."""
    from dockp.units import human_size

    usage, labels = document.get("UsageData"), document.get("Labels") or {}
    return {
        "Name": document["Name"],
        "Driver": document["Driver"],
        "Scope": document.get("Scope", "local"),
        "Mountpoint": document.get("Mountpoint", ""),
        "Labels": labels_text(labels),
        "Label": Method(lambda name: labels.get(name, "")),
        "Links": str(usage["RefCount"]) if usage else "N/A",
        "Size": human_size(usage["Size"]) if usage else "N/A",
        # Docker's words for what only a cluster's volumes have.
        "Group": "N/A",
        "Availability": "N/A",
        "Status": "N/A",
    }


def create(app: App, values: Values) -> None:
    name = values["name"]
    if values.args:
        if name:
            raise Failure(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
            )
        name = values.args[0]
    labels = dict(readers.pair(text) for text in values["label"])
    document = app.engine.volumes.create(name, driver=values["driver"], options=values["opt"], labels=labels)
    print(document["Name"])


def inspect(app: App, values: Values) -> int:
    return write_documents(values, app.engine.volumes.inspect)


def remove(app: App, values: Values) -> int:
    return each(values.args, lambda name: app.engine.volumes.remove(name, force=values["force"]))


def prune(app: App, values: Values) -> None:
    from dockp.cli.confirming import confirmed
    from dockp.units import human_size

    which = "all local volumes" if values["all"] else "anonymous local volumes"
    warning = f"WARNING! This will remove {which} not used by at least one container."
    filters = values.filters()
    if values["all"]:
        if "all" in filters:
            raise Failure("conflicting options: cannot specify both --all and --filter all=1")
        filters["all"] = ["true"]
    if not values["force"] and not confirmed(warning):
        return
    report = app.engine.volumes.prune(filters)
    if report["VolumesDeleted"]:
        print("Deleted Volumes:")
        print("\n".join(report["VolumesDeleted"]), end="\n\n")
    print(f"Total reclaimed space: {human_size(report['SpaceReclaimed'])}")


LIST = Command(
    "[OPTIONS]",
    "List volumes",
    list_,
    (
        Flag("filter", "f", FILTER, 'Provide filter values (e.g. "dangling=true")'),
        LIST_FORMAT,
        Flag("quiet", "q", SWITCH, "Only display volume names"),
    ),
    args=(0, 0),
    aliases="dockp volume ls, dockp volume list",
    examples=("dockp volume ls -q", "dockp volume ls --filter dangling=true"),
)
CREATE = Command(
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    create,
    (
        Flag("driver", "d", STRING, "Specify volume driver name", default="local"),
        Flag("label", "", listing(readers.label), "Set metadata for a volume"),
        Flag("name", "", STRING, "Specify volume name", hidden=True),
        Flag("opt", "o", Kind("map", readers.pair, None, "map"), "Set driver specific options"),
    ),
    args=(0, 1),
    examples=("dockp volume create data", "dockp volume create --label owner=me -o type=tmpfs -o device=tmpfs scratch"),
)
INSPECT = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    inspect,
    (INSPECT_FORMAT,),
    args=(1, None),
    examples=("dockp volume inspect data", "dockp volume inspect -f '{{.Mountpoint}}' data"),
    names="volume",
)
REMOVE = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes",
    remove,
    (Flag("force", "f", SWITCH, "Force the removal of one or more volumes"),),
    args=(1, None),
    aliases="dockp volume rm, dockp volume remove",
    examples=("dockp volume rm data", "dockp volume rm -f data scratch"),
    names="volume",
)
PRUNE = Command(
    "[OPTIONS]",
    "Remove unused local volumes",
    prune,
    (
        Flag("all", "a", SWITCH, "Remove all unused volumes, not just anonymous ones"),
        Flag("filter", "", FILTER, 'Provide filter values (e.g. "label=<label>")'),
        Flag("force", "f", SWITCH, "Do not prompt for confirmation"),
    ),
    args=(0, 0),
    examples=("dockp volume prune -f", "dockp volume prune -a --filter label=scratch"),
)
