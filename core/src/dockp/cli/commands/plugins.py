"""``plugin ls``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dockp.cli.app import App, warn
from dockp.cli.command import Command
from dockp.cli.flags import SWITCH, Flag, Values
from dockp.cli.format.printer import Column, Listing
from dockp.cli.rendering import LIST_FORMAT

LISTING = Listing(
    "plugin",
    [
        Column("Kind", "KIND"),
        Column("Name", "NAME"),
        Column("Default", "DEFAULT"),
        Column("Distribution", "DISTRIBUTION"),
        Column("Version", "VERSION"),
        Column("Supported", "SUPPORTED"),
        Column("Features", "FEATURES"),
        Column("Reason", "REASON"),
        Column("Summary", "SUMMARY"),
        Column("Status", "WORKS HERE"),
    ],
    default="table {{.Kind}}\t{{.Name}}\t{{.Distribution}}\t{{.Version}}\t{{.Default}}\t{{.Status}}",
    quiet="{{.Kind}}/{{.Name}}",
)


def list_(app: App, values: Values) -> None:
    system = app.engine.system
    rows = [_row(document) for document in system.plugins()]
    LISTING.write(sys.stdout, rows, format=values["format"] or None, quiet=values["quiet"])
    if not values["quiet"] and not values["format"]:
        sys.stdout.flush()
        for problem in system.problems():
            warn(f"WARNING: {problem}")


def _row(document: Mapping[str, Any]) -> dict[str, Any]:
    supported, reason = document["Supported"], document.get("Reason") or ""
    features = ",".join(sorted(document.get("Features") or ()))
    return {
        "Kind": document["Kind"],
        "Name": document["Name"],
        "Default": "*" if document.get("Default") else "",
        "Distribution": document["Distribution"],
        "Version": document["Version"],
        "Supported": "yes" if supported else "no",
        "Features": features,
        "Reason": reason,
        "Summary": document.get("Summary") or "",
        "Status": "yes" if supported else f"no: {reason}" if reason else "no",
    }


LIST = Command(
    "[OPTIONS]",
    "List drivers: where each comes from, and whether it works here",
    list_,
    (LIST_FORMAT, Flag("quiet", "q", SWITCH, "Only display kinds and names")),
    args=(0, 0),
    aliases="dockp plugin ls, dockp plugin list",
    examples=("dockp plugin ls", "dockp plugin ls --format '{{.Name}}: {{.Features}}'"),
)
