"""``logs``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dockp.cli.app import App
from dockp.cli.command import Command
from dockp.cli.flags import STRING, SWITCH, Flag, Values

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
        tail=_tail(values["tail"]),
    )
    prefix = _details(document) if values["details"] else b""
    # With a terminal everything came through one device, so it goes to one here too.
    single = document["Config"]["Tty"]
    for entry in entries:
        out = sys.stdout if single or entry.stream == "stdout" else sys.stderr
        out.buffer.write(_line(entry, values["timestamps"], prefix))
        out.buffer.flush()


def _time(text: str) -> int:
    from dockp.units import parse_time

    return parse_time(text) if text else 0


def _tail(text: str) -> int | None:
    """None is everything, as for what is no number in Docker."""
    try:
        count = int(text)
    except ValueError:
        return None
    return count if count >= 0 else None


def _line(entry: LogEntry, timestamps: bool, prefix: bytes) -> bytes:
    if not timestamps:
        return prefix + entry.data
    from time import gmtime, strftime

    seconds, rest = divmod(entry.time, 10**9)
    stamp = f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{rest:09d}Z "
    return stamp.encode() + prefix + entry.data


def _details(document: dict[str, object]) -> bytes:
    """The labels and variables that the log options name, as ``k=v,k=v `` before each line."""
    host, config = document.get("HostConfig"), document.get("Config")
    if not isinstance(host, dict) or not isinstance(config, dict):
        return b" "
    options = (host.get("LogConfig") or {}).get("Config") or {}
    wanted = [name for name in options.get("labels", "").split(",") if name]
    shown = {name: value for name, value in (config.get("Labels") or {}).items() if name in wanted}
    wanted = [name for name in options.get("env", "").split(",") if name]
    for text in config.get("Env") or ():
        name, _, value = text.partition("=")
        if name in wanted:
            shown[name] = value
    return (",".join(f"{name}={value}" for name, value in sorted(shown.items())) + " ").encode()


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
