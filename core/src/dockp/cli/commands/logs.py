"""``logs``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values
from dockp.logs import lines

if TYPE_CHECKING:
    from dockp.spi.logs import LogEntry


def logs(app: App, values: Values) -> None:
    containers = app.engine.containers
    document = containers.inspect(values.args[0])
    entries = containers.logs(
        document["Id"],
        follow=values["follow"],
        since=_time(values["since"]),
        until=_time(values["until"]),
        tail=lines.parse_tail(values["tail"]),
    )
    prefix = lines.details(document) if values["details"] else b""
    # With a terminal everything came through one device, so it goes to one here too.
    single = document["Config"]["Tty"]
    for entry in entries:
        out = sys.stdout if single or entry.stream == "stdout" else sys.stderr
        out.buffer.write(_line(entry, values["timestamps"], prefix))
        out.buffer.flush()


def _time(text: str) -> int:
    from dockp.units import parse_time

    return parse_time(text) if text else 0


def _line(entry: LogEntry, timestamps: bool, prefix: bytes) -> bytes:
    return (lines.stamp(entry.time) if timestamps else b"") + prefix + entry.data


LOGS = Command(
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    logs,
    (
        Flag("details", "", SWITCH, "Show extra details provided to logs"),
        Flag("follow", "f", SWITCH, "Follow log output"),
        Flag(
            "since", "", STRING, 'Show logs since timestamp ("2013-01-02T13:23:37Z") or relative ("42m" for 42 minutes)'
        ),
        Flag("tail", "n", STRING, "Number of lines to show from the end of the logs", default="all"),
        Flag("timestamps", "t", SWITCH, "Show timestamps"),
        Flag(
            "until",
            "",
            STRING,
            'Show logs before a timestamp ("2013-01-02T13:23:37Z") or relative ("42m" for 42 minutes)',
        ),
    ),
    args=(1, 1),
    aliases="dockp container logs, dockp logs",
    examples=("dockp logs -f --tail 20 web", "dockp logs -t --since 10m web"),
    names="container",
)
