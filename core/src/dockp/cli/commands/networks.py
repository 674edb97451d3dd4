"""``network``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import FILTER, SWITCH, Flag, Values
from dockp.cli.format.govalues import Method
from dockp.cli.format.printer import Column, Listing, labels_text, short_id
from dockp.cli.rendering import INSPECT_FORMAT, LIST_FORMAT, natural, write_documents

LISTING = Listing(
    "network.networkContext",
    [
        Column("ID", "NETWORK ID"),
        Column("Name", "NAME"),
        Column("Driver", "DRIVER"),
        Column("Scope", "SCOPE"),
        Column("IPv4", "IPV4"),
        Column("IPv6", "IPV6"),
        Column("Internal", "INTERNAL"),
        Column("Labels", "LABELS"),
        Column("CreatedAt", "CREATED AT"),
    ],
    default="table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    raw="network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
)


def list_(app: App, values: Values) -> None:
    documents = sorted(app.engine.networks.list(values.filters()), key=lambda document: natural(document["Name"]))
    format = values["format"] or None
    rows = [_row(document, not values["no-trunc"]) for document in documents]
    LISTING.write(sys.stdout, rows, format=format, quiet=values["quiet"] and format in (None, "table"))


def _row(document: Mapping[str, Any], short: bool) -> dict[str, Any]:
    labels = document.get("Labels") or {}
    return {
        "ID": short_id(document["Id"]) if short else document["Id"],
        "Name": document["Name"],
        "Driver": document["Driver"],
        "Scope": document["Scope"],
        "IPv4": "true" if document.get("EnableIPv4", True) else "false",
        "IPv6": "true" if document.get("EnableIPv6") else "false",
        "Internal": "true" if document.get("Internal") else "false",
        "Labels": labels_text(labels),
        "Label": Method(lambda name: labels.get(name, "")),
        "CreatedAt": lambda: _created(document["Created"]),
    }


def _created(text: str) -> str:
    """A time of the API (RFC 3339) as Go prints times: ``2024-05-01 10:00:00.5 +0000 UTC``."""
    date, _, rest = text.partition("T")
    if rest.endswith("Z"):
        return f"{date} {rest[:-1]} +0000 UTC"
    sign = max(rest.rfind("+"), rest.rfind("-"))
    zone = rest[sign:].replace(":", "")
    return f"{date} {rest[:sign]} {zone} {zone}"


def inspect(app: App, values: Values) -> int:
    return write_documents(values, app.engine.networks.inspect)


LIST = Command(
    "[OPTIONS]",
    "List networks",
    list_,
    (
        Flag("filter", "f", FILTER, 'Provide filter values (e.g. "driver=bridge")'),
        LIST_FORMAT,
        Flag("no-trunc", "", SWITCH, "Do not truncate the output"),
        Flag("quiet", "q", SWITCH, "Only display network IDs"),
    ),
    args=(0, 0),
    aliases="dockp network ls, dockp network list",
    examples=("dockp network ls", "dockp network ls --no-trunc --filter driver=bridge"),
)
INSPECT = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    inspect,
    (INSPECT_FORMAT,),
    args=(1, None),
    examples=("dockp network inspect bridge", "dockp network inspect -f '{{json .IPAM}}' bridge"),
    names="network",
)
