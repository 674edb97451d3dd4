"""The log driver "json-file": Docker's format, kept bounded, read back from either end.

The reading half. `dockp.logs.json_file_writer` writes.
"""

from __future__ import annotations

import calendar
import gzip
import io
import json
import os
import re
import select
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import BinaryIO, ClassVar

from dockp.linux.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from dockp.spi.errors import InvalidArgument
from dockp.spi.logs import LogDriver, LogEntry, LogFeed

_TAG_FIELD = re.compile(r"\{\{\s*(.*?)\s*\}\}")
_TAG_FIELDS = (".ID", ".FullID", ".Name", ".ImageName", ".ImageID", ".ImageFullID", ".DaemonName")
_FREE = ("labels", "labels-regex", "env", "env-regex", "tag")
_DEFAULT_SIZE = 100_000_000
_DEFAULT_FILES = 3
_BLOCK = 1 << 16
_PULSE = 1.0
"""Seconds between two looks at whether a followed log is still written, when nothing is."""


class JsonFileLog(LogDriver):
    """Docker's json-file log, with a bound where Docker has none: 100 MB in each of 3 files."""

    name: ClassVar[str] = "json-file"
    summary: ClassVar[str] = "Docker's JSON lines in rotated files"
    writer: ClassVar[str] = "dockp.logs.json_file_writer:Writer"

    @classmethod
    def validate(cls, options: Mapping[str, str]) -> Mapping[str, str]:
        """``max-size`` (bytes with a decimal suffix, -1: no bound), ``max-file``, ``compress``, and what each record
        carries: ``labels``, ``labels-regex``, ``env``, ``env-regex``, ``tag``."""
        for name in options:
            if name not in ("max-size", "max-file", "compress", *_FREE):
                raise InvalidArgument(f"unknown log opt '{name}' for json-file log driver")
        size = _bytes(options["max-size"]) if "max-size" in options else _DEFAULT_SIZE
        files = _files(options.get("max-file", str(_DEFAULT_FILES)))
        if size < 0 and int(options.get("max-file", 1)) > 1:
            raise InvalidArgument("max-file cannot be used without max-size")
        compress = options.get("compress", "false").lower()
        if compress not in ("true", "false", "1", "0", "t", "f"):
            raise InvalidArgument(f'invalid value for compress: "{options["compress"]}": use true or false')
        if compress in ("true", "1", "t") and (size < 0 or files < 2):
            raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
        for name in ("labels-regex", "env-regex"):
            try:
                re.compile(options.get(name, ""))
            except re.error as failure:
                raise InvalidArgument(f"invalid {name} {options[name]!r}: {failure}") from failure
        for field in _TAG_FIELD.findall(options.get("tag", "")):
            if field not in _TAG_FIELDS:
                raise InvalidArgument(f"unknown field {field} in the log tag: use one of {', '.join(_TAG_FIELDS)}")
        plain = {name: options[name] for name in _FREE if options.get(name)}
        if "tag" in plain:
            plain["tag"] = _TAG_FIELD.sub(r"{{\1}}", plain["tag"])
        return {
            "max-size": str(size),
            "max-file": str(files),
            "compress": "true" if compress in ("true", "1", "t") else "false",
            **plain,
        }

    @classmethod
    def read(
        cls,
        path: str,
        options: Mapping[str, str],
        *,
        follow: Callable[[], bool] | None,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
    ) -> Iterator[LogEntry]:
        """See the contract. A record that is not whole (yet) is not shown; one that makes no sense is skipped."""
        reader = _Reader(path)
        try:
            for line in reader.existing(since, tail):
                entry = parse(line)
                if entry is None or entry.time < since:
                    continue
                if until and entry.time > until:
                    return
                yield entry
            if follow is None:
                return
            for line in reader.coming(follow, until):
                entry = parse(line)
                if entry is None or entry.time < since:
                    continue
                if until and entry.time > until:
                    return
                yield entry
        finally:
            reader.close()

    @classmethod
    def feed(
        cls, path: str, options: Mapping[str, str], *, since: int = 0, until: int = 0, tail: int | None = None
    ) -> LogFeed:
        return _Feed(path, since, until, tail)


class _Feed:
    """See `LogFeed`."""

    def __init__(self, path: str, since: int, until: int, tail: int | None) -> None:
        self.directory = os.path.dirname(path) or "."
        self.over = False
        self._reader = _Reader(path)
        self._lines = self._reader.existing(since, tail)
        self._since = since
        self._until = until
        self._guard = threading.Lock()  # it may be closed while somebody's thread still takes

    def take(self, most: int) -> list[LogEntry]:
        with self._guard:
            return self._take(most)

    def _take(self, most: int) -> list[LogEntry]:
        found: list[LogEntry] = []
        while len(found) < most and not self.over:
            line = next(self._lines, None)
            if line is None:
                self._lines = self._reader.growth()
                line = next(self._lines, None)
                if line is None:
                    self.over = bool(self._until) and time.time_ns() > self._until
                    break
            entry = parse(line)
            if entry is None or entry.time < self._since:
                continue
            if self._until and entry.time > self._until:
                self.over = True
                break
            found.append(entry)
        return found

    def close(self) -> None:
        with self._guard:
            self.over = True
            self._lines.close()
            self._reader.close()


def _bytes(text: str) -> int:
    if text == "-1":
        return -1
    from dockp.units import parse_size

    try:
        size = parse_size(text.strip(), base=1000)  # decimal, as Docker's FromHumanSize: "10m" is 10,000,000
    except InvalidArgument:
        size = 0
    if size <= 0:
        raise InvalidArgument(f"invalid max-size {text!r}: use a number of bytes such as 10m, or -1 for no bound")
    return size


def _files(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InvalidArgument(f"max-file cannot be less than 1: {text!r}")
    return int(text)


def parse(line: bytes) -> LogEntry | None:
    """The entry in one line of the file; None when it is none."""
    try:
        record = json.loads(line)
        return LogEntry(time=parse_time(record["time"]), stream=record["stream"], data=_data(record["log"]))
    except (ValueError, KeyError, TypeError):
        return None


def _data(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time. Raises ValueError."""
    whole, _, rest = text.partition(".")
    fraction = "0"
    if rest:
        fraction = rest.rstrip("Zz")
        zone = ""
        for sign in "+-":
            if sign in fraction:
                fraction, _, zone = fraction.partition(sign)
                zone = sign + zone
        whole += zone
    elif whole[-1:] in "Zz":
        whole = whole[:-1]
    shift = 0
    if len(whole) > 19:
        hours, _, minutes = whole[20:].partition(":")
        shift = (int(hours) * 3600 + int(minutes or 0) * 60) * (-1 if whole[19] == "-" else 1)
    seconds = calendar.timegm(time.strptime(whole[:19], "%Y-%m-%dT%H:%M:%S")) - shift
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])


class _Reader:
    """The files of one log as one sequence of lines, from the oldest rotated one to what is still to be written."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # --- what is there

    def existing(self, since: int, tail: int | None) -> Generator[bytes, None, None]:
        """Whole lines that exist now; `coming` goes on where this ended."""
        files = self._open_all()
        try:
            if tail is not None:
                files = self._last_lines(files, tail)
            elif since:
                files = [file for index, file in enumerate(files) if not self._all_before(files, index, since)]
                if files:
                    _skip_to(files[0], since)
            while files:
                file = files.pop(0)
                yield from self._lines(file)
                if files:
                    file.close()
                    self._rest = b""  # a line that was cut short for ever
                else:
                    self._file = file
        finally:
            for file in files:
                file.close()

    def _open_all(self) -> list[BinaryIO]:
        """The rotated files and the current one, oldest first. Files are renamed while this looks, always to higher
        numbers; looking from the lowest up may meet one twice but misses none."""
        found: list[BinaryIO] = []
        seen: set[tuple[int, int]] = set()
        number = 0
        while True:
            file = _open(self._path if not number else f"{self._path}.{number}")
            if file is None:
                if number:
                    break
            else:
                info = os.fstat(file.fileno())
                if (info.st_dev, info.st_ino) in seen:
                    file.close()
                else:
                    seen.add((info.st_dev, info.st_ino))
                    found.append(file)
            number += 1
        return found[::-1]

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines from where the file stands to its present end; an unfinished one is kept in ``_rest``."""
        while block := file.read(_BLOCK):
            lines = (self._rest + block).split(b"\n")
            self._rest = lines.pop()
            yield from lines

    def _all_before(self, files: list[BinaryIO], index: int, since: int) -> bool:
        """Whether the file after this one begins before ``since``, so that this one has nothing to show."""
        if index + 1 >= len(files):
            return False
        entry = parse(_first_line(files[index + 1]))
        return entry is not None and entry.time < since

    def _last_lines(self, files: list[BinaryIO], count: int) -> list[BinaryIO]:
        """Move each file to where the last ``count`` lines of all of them begin; files without any are dropped."""
        kept: list[BinaryIO] = []
        while files:
            file = files.pop()
            kept.insert(0, file)
            found = _seek_last_lines(file, count)
            count -= found
            if count <= 0:
                break
        for file in files:
            file.close()
        return kept

    # --- what is to come

    def coming(self, follow: Callable[[], bool], until: int) -> Iterator[bytes]:
        """Lines as they are written, across rotations, until ``follow`` says that nothing more will be."""
        watch = Inotify()
        try:
            watch.add(os.path.dirname(self._path) or ".", IN_MODIFY | IN_CREATE | IN_MOVED_TO)
            changed = select.poll()
            changed.register(watch.fileno(), select.POLLIN)
            over = False
            while True:
                progress = False
                for line in self.growth():
                    progress = True
                    yield line
                if progress:
                    continue
                if over or (until and time.time_ns() > until):
                    return
                # Asked before the last look at the file: what was written before the answer is seen after it.
                over = not follow()
                if not over:
                    changed.poll(_PULSE * 1000)
                    watch.read()
        finally:
            watch.close()

    def growth(self) -> Generator[bytes, None, None]:
        """Whole lines that were written since the last call."""
        if self._file is None:
            self._file = _open(self._path)
            if self._file is None:
                return
        yield from self._lines(self._file)
        try:
            current = os.stat(self._path)
        except FileNotFoundError:
            return  # between the two steps of a rotation
        mine = os.fstat(self._file.fileno())
        if (mine.st_dev, mine.st_ino) == (current.st_dev, current.st_ino):
            if current.st_size < self._file.tell():  # emptied: a single file that is rotated
                self._file.seek(0)
                self._rest = b""
            return
        # Rotated. What was written between our last read and the rotation comes first, then each younger file.
        yield from self._lines(self._file)
        for file in self._younger():
            self.close()
            self._file, self._rest = file, b""
            yield from self._lines(file)

    def _younger(self) -> list[BinaryIO]:
        """The files that came after the one being read, oldest first."""
        assert self._file is not None
        mine = os.fstat(self._file.fileno())
        beginning = os.pread(self._file.fileno(), 256, 0) if not isinstance(self._file, gzip.GzipFile) else b""
        younger = self._open_all()
        for index, file in enumerate(younger):
            info = os.fstat(file.fileno())
            same = (info.st_dev, info.st_ino) == (mine.st_dev, mine.st_ino)
            if not same and isinstance(file, gzip.GzipFile) and beginning:
                # Compressed since: another file with the same beginning, which holds a time in nanoseconds.
                same = file.read(len(beginning)) == beginning
                file.seek(0)
            if same:
                for old in younger[: index + 1]:
                    old.close()
                return younger[index + 1 :]
        return younger  # ours was rotated away: all that is left is younger


def _open(path: str) -> BinaryIO | None:
    try:
        return io.FileIO(path, "rb")
    except FileNotFoundError:
        pass
    try:
        return gzip.open(path + ".gz", "rb")  # type: ignore[return-value]
    except FileNotFoundError:
        return None


def _first_line(file: BinaryIO) -> bytes:
    start = file.tell()
    block = file.read(_BLOCK)
    file.seek(start)
    return block.partition(b"\n")[0]


def _end(file: BinaryIO) -> int:
    """The size of what can be read. A compressed file has to be read for it; only whole files are compressed."""
    if isinstance(file, gzip.GzipFile):
        file.seek(0)
        while file.read(1 << 20):
            pass
        return file.tell()
    return os.fstat(file.fileno()).st_size


def _skip_to(file: BinaryIO, since: int) -> None:
    """Move near to (never past) the first record of ``since``: records stand in the order of time, so halve."""
    if isinstance(file, gzip.GzipFile):
        return
    low, high = 0, _end(file)
    while high - low > _BLOCK:
        middle = (low + high) // 2
        file.seek(middle)
        block = file.read(_BLOCK)
        begin = block.find(b"\n") + 1
        finish = block.find(b"\n", begin)
        entry = parse(block[begin:finish]) if begin and finish > begin else None
        if entry is None or entry.time >= since:
            high = middle
        else:
            low = middle + begin
    file.seek(low)


def _seek_last_lines(file: BinaryIO, count: int) -> int:
    """Move to where the last ``count`` whole lines begin; returns how many there are, if fewer."""
    end = _end(file)
    found = 0
    position = end
    first = True
    while position > 0:
        start = max(0, position - _BLOCK)
        file.seek(start)
        block = file.read(position - start)
        if first:
            # Only lines with an end count; what follows the last newline is still being written.
            last = block.rfind(b"\n")
            if last < 0 and start:
                position = start
                continue
            first = False
            block = block[: last + 1]
            if count <= 0:
                file.seek(start + last + 1)
                return 0
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found > count:
                file.seek(start + at + 1)
                return count
        position = start
    file.seek(0 if count > 0 else end)
    return found
