"""Times as Docker writes them in its documents."""

from __future__ import annotations

import time

ZERO = "0001-01-01T00:00:00Z"
"""Go's zero time: never."""


def rfc3339_nano(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, trailing zeros cut, in UTC, as Go's ``RFC3339Nano``; `ZERO` for 0."""
    if not nanoseconds:
        return ZERO
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def rfc3339(nanoseconds: int) -> str:
    """RFC 3339 to the second, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // 1_000_000_000))
