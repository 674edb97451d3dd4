"""``history``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import SWITCH, Flag, Values
from dockp.cli.format.printer import Column, Listing, ellipsis, short_id
from dockp.cli.rendering import LIST_FORMAT

_HUMAN = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
_PLAIN = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
LISTING = Listing(
    "image.historyContext",
    [
        Column("ID", "IMAGE"),
        Column("CreatedSince", "CREATED"),
        Column("CreatedAt", "CREATED AT"),
        Column("CreatedBy", "CREATED BY"),
        Column("Size", "SIZE"),
        Column("Comment", "COMMENT"),
    ],
    default=_HUMAN,
)
_NO_DATE = 946684800  # before the year 2000 a date is taken for a placeholder, as reproducible builds write them


def history(app: App, values: Values) -> None:
    human = values["human"]
    rows = [_row(item, human, not values["no-trunc"]) for item in app.engine.images.history(values.args[0])]
    LISTING.write(
        sys.stdout,
        rows,
        format=values["format"] or None,
        quiet=values["quiet"] and values["format"] in ("", "table"),
        default=_HUMAN if human else _PLAIN,
    )


def _row(item: Mapping[str, Any], human: bool, short: bool) -> dict[str, Any]:
    from time import localtime, strftime

    from dockp.units import format_ago, human_size

    created = item["Created"]
    zone = strftime("%z", localtime(created))
    stamp = strftime("%Y-%m-%dT%H:%M:%S", localtime(created)) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")
    since = "N/A" if created <= _NO_DATE else format_ago(created * 10**9)
    command = item["CreatedBy"].replace("\t", " ")
    return {
        "ID": short_id(item["Id"]) if short else item["Id"],
        "CreatedSince": since if human else stamp,
        "CreatedAt": stamp,
        "CreatedBy": ellipsis(command, 45) if short else command,
        "Size": human_size(item["Size"], 3) if human else str(item["Size"]),
        "Comment": item.get("Comment") or "",
    }


HISTORY = Command(
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    history,
    (
        LIST_FORMAT,
        Flag("human", "H", SWITCH, "Print sizes and dates in human readable format", default=True),
        Flag("no-trunc", "", SWITCH, "Don't truncate output"),
        Flag("quiet", "q", SWITCH, "Only show image IDs"),
    ),
    args=(1, 1),
    aliases="dockp image history, dockp history",
    examples=("dockp history debian:bookworm", "dockp history --no-trunc --human=false debian:bookworm"),
    names="image",
)
