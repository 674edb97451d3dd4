"""``events``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from dockp.cli.app import App, Failure
from dockp.cli.command import Command
from dockp.cli.flags import FILTER, STRING, Flag, Values

_OLD = {"status": "", "id": "", "from": ""}
"""What templates may ask of every event, and only those of containers and images have."""


def events(app: App, values: Values) -> None:
    show = _shown_by(values["format"])
    stream = app.engine.system.events(
        since=_moment(values["since"]), until=_moment(values["until"]), filters=values.filters()
    )
    for event in stream:
        sys.stdout.write(show(event) + "\n")
        sys.stdout.flush()


def _moment(text: str) -> int | None:
    from dockp.units import parse_time

    return parse_time(text) if text else None


def _shown_by(format: str) -> Callable[[Mapping[str, Any]], str]:
    if not format:
        return _line
    if format in ("json", "{{json .}}"):
        from dockp.cli.format.gojson import to_json

        return to_json
    from dockp.cli.format.gotemplate import TemplateError, compile

    try:
        template = compile(format)
    except TemplateError as error:
        raise Failure(str(error), 64) from None
    return lambda event: template.render({**_OLD, **event}, shape={})


def _line(event: Mapping[str, Any]) -> str:
    """``2024-05-01T12:00:00.000000000+02:00 container start 4f… (image=busybox, name=web)``, in local time."""
    seconds, rest = divmod(event["timeNano"], 1_000_000_000)
    when = time.localtime(seconds)
    zone = time.strftime("%z", when)
    zone = f"{zone[:3]}:{zone[3:]}" if when.tm_gmtoff else "Z"
    actor = event["Actor"]
    pairs = ", ".join(f"{name}={value}" for name, value in sorted((actor.get("Attributes") or {}).items()))
    line = (
        f"{time.strftime('%Y-%m-%dT%H:%M:%S', when)}.{rest:09d}{zone} {event['Type']} {event['Action']} {actor['ID']}"
    )
    return f"{line} ({pairs})" if pairs else line


EVENTS = Command(
    "[OPTIONS]",
    "Get real time events from the engine",
    events,
    (
        Flag("filter", "f", FILTER, "Filter output based on conditions provided"),
        Flag("format", "", STRING, "Format output: 'json', or a Go template"),
        Flag("since", "", STRING, "Show all events created since timestamp"),
        Flag("until", "", STRING, "Stream events until this timestamp"),
    ),
    args=(0, 0),
    aliases="dockp system events, dockp events",
    examples=(
        "dockp events --filter event=die --format '{{.Actor.Attributes.name}}'",
        "dockp events --since 10m --until 0s",
    ),
)
