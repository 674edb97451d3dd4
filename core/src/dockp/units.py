"""Sizes, durations and points in time as Docker writes and reads them.

Sizes follow docker/go-units, durations Go's time package, times RFC 3339 as the Engine API uses it. Times are
counted in integer nanoseconds since the epoch, which a float cannot hold.
"""

from __future__ import annotations

import re
import time

from dockp.spi.errors import InvalidArgument

_DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_POWERS = "bkmgtp"
_MAX = (1 << 63) - 1

SECOND = 1_000_000_000
"""Nanoseconds in a second."""


# -- sizes ----------------------------------------------------------------------------------------------


def _size(size: float, base: int, units: tuple[str, ...], digits: int) -> str:
    unit = 0
    while size >= base and unit < len(units) - 1:
        size /= base
        unit += 1
    return f"{size:.{digits}g}{units[unit]}"


def human_size(size: float, digits: int = 4) -> str:
    """A size in bytes with decimal units, to ``digits`` significant digits: ``7.5kB``, ``1.24MB``."""
    return _size(size, 1000, _DECIMAL_UNITS, digits)


def bytes_size(size: float) -> str:
    """A size in bytes with binary units, to four significant digits: ``1.5GiB``."""
    return _size(size, 1024, _BINARY_UNITS, 4)


def parse_size(text: str, *, base: int = 1024) -> int:
    """Read a size such as ``512m``, ``1.5GiB`` or ``1000`` into bytes.

    Args: ``base`` is 1024 for memory and limits (the unit k is 1024 bytes), 1000 for disk sizes.
    Raises: InvalidArgument.
    """
    from decimal import Decimal

    number, space, suffix = text.partition(" ")
    if not space:
        end = max(text.rfind(digit) for digit in "0123456789.") + 1
        number, suffix = text[:end], text[end:]
    if not number:
        raise InvalidArgument(f"invalid size: '{text}'")
    if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", number, re.ASCII) or Decimal(number) < 0:
        raise InvalidArgument(f"invalid size: '{text}'")
    unit = suffix.lower()
    power = _POWERS.find(unit[:1])
    if power < 0 or unit[1:] not in ("", "b", "ib") or (power == 0 and len(unit) > 1):
        raise InvalidArgument(f"invalid suffix: '{unit}'")
    # Decimal, since 0.1t must not become one byte less, and since 10**400 must be refused and not overflow.
    size = int(Decimal(number) * base**power)
    if size > _MAX:
        raise InvalidArgument(f"invalid size: '{text}': value out of range")
    return size


# -- durations ------------------------------------------------------------------------------------------


def human_duration(seconds: float) -> str:
    """About how long ``seconds`` is: ``Less than a second``, ``About a minute``, ``3 weeks``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, unit, name in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600) // 24 // 365} years"


_DURATION_UNITS = {
    "ns": 1,
    "us": 1000,
    "\u00b5s": 1000,  # U+00B5, micro sign
    "\u03bcs": 1000,  # U+03BC, Greek mu
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_DURATION_PART = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")


def _quoted(text: str) -> str:
    from dockp.golang import quote

    return quote(text)


def parse_duration(text: str) -> int:
    """Read a Go duration (``1h30m``, ``1.5s``, ``-100ms``, ``0``) into nanoseconds.

    Raises: InvalidArgument with the wording of Go's ``time.ParseDuration``.
    """
    invalid = InvalidArgument(f"time: invalid duration {_quoted(text)}")
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise invalid
    total = 0
    while rest:
        match = _DURATION_PART.match(rest)
        assert match is not None
        whole, _, fraction, unit = match.groups()
        if not whole and not fraction:
            raise invalid
        if not unit:
            raise InvalidArgument(f"time: missing unit in duration {_quoted(text)}")
        if unit not in _DURATION_UNITS:
            raise InvalidArgument(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
        if len(whole) > 20:
            raise invalid
        total += int(whole or "0") * _DURATION_UNITS[unit]
        if fraction:
            digits = fraction[:20]
            total += int(digits) * _DURATION_UNITS[unit] // 10 ** len(digits)
        if total > _MAX:
            raise invalid
        rest = rest[match.end() :]
    return -total if negative else total


# -- points in time -------------------------------------------------------------------------------------

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})"
    r"(?:T(\d{2})(?::(\d{2})(?::(\d{2})(?:\.(\d{1,9})\d*)?)?)?)?"
    r"(Z|[+-]\d{2}:\d{2})?",
    re.ASCII,
)
_UNIX = re.compile(r"(-?\d{1,18})(?:\.(\d{1,9})\d*)?", re.ASCII)


def parse_time(text: str, now: int | None = None) -> int:
    """Read a point in time as ``--since`` and ``--until`` take it, into nanoseconds since the epoch.

    Forms: a Go duration before ``now`` (``10m``); RFC 3339, whole or cut after the day, hour, minute or
    second, in local time where it names no zone; Unix seconds with an optional fraction (``1136073600.5``).
    Args: ``now`` in nanoseconds since the epoch, by default the clock's.
    Raises: InvalidArgument.
    """
    match = _UNIX.fullmatch(text)
    if match is not None:
        seconds, fraction = match.groups()
        part = int((fraction or "0").ljust(9, "0"))
        return int(seconds) * SECOND + (-part if seconds.startswith("-") else part)
    match = _RFC3339.fullmatch(text)
    if match is not None:
        return _calendar_time(text, match)
    try:
        before = parse_duration(text)
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid time {_quoted(text)}: give an RFC 3339 time, Unix seconds, or a duration such as 10m"
        ) from None
    return (time.time_ns() if now is None else now) - before


def _calendar_time(text: str, match: re.Match[str]) -> int:
    from calendar import monthrange, timegm

    year, month, day, hour, minute, second = (int(part or "0") for part in match.groups()[:6])
    if not (1 <= month <= 12 and day >= 1 and hour < 24 and minute < 60 and second < 60 and year >= 1):
        raise InvalidArgument(f"invalid time {_quoted(text)}: out of range")
    if day > monthrange(year, month)[1]:
        raise InvalidArgument(f"invalid time {_quoted(text)}: day out of range")
    zone = match[8]
    moment = (year, month, day, hour, minute, second)
    if zone is None:
        try:
            seconds = int(time.mktime((*moment, 0, 0, -1)))
        except OverflowError:
            raise InvalidArgument(f"invalid time {_quoted(text)}: out of range") from None
    else:
        seconds = timegm((*moment, 0, 0, 0))
        if zone != "Z":
            if int(zone[1:3]) > 23 or int(zone[4:]) > 59:
                raise InvalidArgument(f"invalid time {_quoted(text)}: time zone out of range")
            offset = int(zone[1:3]) * 3600 + int(zone[4:]) * 60
            seconds -= offset if zone[0] == "+" else -offset
    return seconds * SECOND + int((match[7] or "0").ljust(9, "0"))


def format_created_at(nanoseconds: int) -> str:
    """A time as ``.CreatedAt`` shows it, in local time to the second: ``2024-05-01 12:00:00 +0200 CEST``."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(nanoseconds // SECOND))


def format_ago(nanoseconds: int, now: int | None = None) -> str:
    """How long ago a time was: ``5 minutes ago``. ``now`` as for `parse_time`."""
    current = time.time_ns() if now is None else now
    return f"{human_duration((current - nanoseconds) / SECOND)} ago"
