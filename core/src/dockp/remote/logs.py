"""Log entries out of the daemon's stream."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterable

from dockp.remote.calls import Decoder
from dockp.spi.errors import SystemFault
from dockp.spi.logs import LogEntry

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


class Framed(Decoder[LogEntry]):
    """Each frame is an entry (https://docs.docker.com/reference/api/engine/, "Stream format")."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterable[LogEntry]:
        left, position = self._left + data, 0
        while len(left) - position >= 8:
            number, length = left[position], int.from_bytes(left[position + 4 : position + 8], "big")
            end = position + 8 + length
            if number > 3:
                raise SystemFault("the server's stream of logs has no frames")
            if len(left) < end:
                break
            if number == 3:  # the daemon's own complaint, when reading fails half-way
                raise SystemFault(left[position + 8 : end].decode(errors="replace").strip())
            yield entry("stderr" if number == 2 else "stdout", left[position + 8 : end])
            position = end
        self._left = left[position:]


class Plain(Decoder[LogEntry]):
    """What had a terminal comes as it is, line by line."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterable[LogEntry]:
        *lines, self._left = (self._left + data).split(b"\n")
        return [entry("stdout", line + b"\n") for line in lines]

    def end(self) -> Iterable[LogEntry]:
        rest, self._left = self._left, b""
        return [entry("stdout", rest)] if rest else []


def entry(stream: str, line: bytes) -> LogEntry:
    """An entry of a line that begins with its time. Raises: SystemFault."""
    stamp, _, data = line.partition(b" ")
    return LogEntry(time=_nanoseconds(stamp.decode(errors="replace")), stream=stream, data=data)


def _nanoseconds(stamp: str) -> int:
    """RFC 3339 in UTC, as Docker writes it: ``2024-05-01T10:20:30.123456789Z``."""
    moment, _, fraction = stamp.removesuffix("Z").partition(".")
    try:
        seconds = calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%S"))
        return seconds * 10**9 + int((fraction or "0").ljust(9, "0")[:9])
    except ValueError:
        raise SystemFault(f"the server's logs have no time: {stamp!r}") from None
