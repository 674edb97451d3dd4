"""Times as image documents and filters have them: RFC 3339, Go durations, Unix seconds; read here.

Durations are those of `dockp.units`. Points in time are not: a document with a time that is none must still be taken,
and a filter's time without a zone means UTC, as all times in documents do, where `dockp.units` takes the local one.
"""

from __future__ import annotations

import re
import time

from dockp.spi.errors import InvalidArgument

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)?")


def parse_time(text: str) -> float:
    """RFC 3339 as seconds since the epoch; 0 for "" and for what is no time, as old images have it."""
    from datetime import UTC, datetime

    match = _RFC3339.fullmatch(text)
    if match is None:
        return 0.0
    zone = match[4] or "Z"
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{match[2]}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        return 0.0
    # Not moment.timestamp(): year 1, Go's zero time, must stay in range.
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    return max(0.0, seconds + float(f"0.{match[3] or 0}"))


def parse_duration(text: str) -> int:
    """A Go duration (``1h30m``, ``500ms``, ``0``) in nanoseconds. Raises: InvalidArgument."""
    from dockp import units

    try:
        return units.parse_duration(text)
    except InvalidArgument:
        raise InvalidArgument(f"invalid duration {text!r}: expected something like 1m30s") from None


def parse_moment(text: str) -> float:
    """What ``until=`` takes: a duration back from now, Unix seconds, or a date. Raises: InvalidArgument."""
    try:
        return float(text)
    except ValueError:
        pass
    if match := re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        text = f"{match[0]}T00:00:00Z"
    if _RFC3339.fullmatch(text):
        return parse_time(text)
    try:
        return time.time() - parse_duration(text) / 10**9
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid time {text!r}: expected a duration (24h), Unix seconds or a date (2024-01-31T12:00:00Z)"
        ) from None
