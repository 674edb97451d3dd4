"""The writing half of the json-file log, loaded by the shim: keep its imports few.

The records are Docker's byte for byte, since tools of all kinds read these files::

    {"log":"a line\\n","stream":"stdout","attrs":{…},"time":"2026-01-01T00:00:00.123456789Z"}

"attrs" is there when labels, variables or a tag were asked for. A line is escaped as Go's encoding/json does it, with
what is not UTF-8 replaced byte by byte; the time has no trailing zeros.
"""

from __future__ import annotations

import os
import time

from dockp.linux.process import close_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLAIN = bytes(code for code in range(0x20, 0x80) if code not in b'"\\<>&') + b"\n"
_ESCAPES: dict[int, str] = {code: f"\\u{code:04x}" for code in range(0x20) if code != 0x0A}
_ESCAPES.update({ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})
_ESCAPES.update({0x0D: "\\r", ord('"'): '\\"', ord("\\"): "\\\\"})
# What `surrogateescape` makes of a byte that is not UTF-8: one such character a byte, which is how Go counts them.
_ESCAPES.update({0xDC00 + byte: "\\ufffd" for byte in range(0x80, 0x100)})


_LONGEST_RECORD = 1 << 17
"""More than the escaped form of the longest piece of a line."""


def escape(data: bytes) -> bytes:
    """The inside of a Go JSON string, but for newlines, which stay."""
    if not data.translate(None, _PLAIN):
        return data
    return data.decode("utf-8", "surrogateescape").translate(_ESCAPES).encode()


def _quoted(text: str) -> bytes:
    return b'"' + escape(text.encode("utf-8", "surrogateescape")).replace(b"\n", b"\\n") + b'"'


class Writer:
    """Appends records to ``path`` and rotates it. See `dockp.spi.logs`.

    ``info`` has "id", "name", "image", "image_id", "labels" (a dict) and "env" (``NAME=value`` words).

    Options, as `dockp.logs.json_file.JsonFileLog.validate` leaves them: ``max-size`` (bytes, -1 for no limit),
    ``max-file``, ``compress``, ``labels``, ``labels-regex``, ``env``, ``env-regex``, ``tag``.

    A full disk never stops the container: records that cannot be written are counted, and the first one that fits
    again is preceded by a record on stderr that says how many are missing.
    """

    def __init__(self, path: str, options: dict[str, str], info: dict[str, Any]) -> None:
        self._path = path
        self._limit = int(options.get("max-size", "-1"))
        self._files = int(options.get("max-file", "1"))
        self._compress = options.get("compress") == "true"
        attributes = _attributes(options, info)
        pairs = [_quoted(name) + b":" + _quoted(attributes[name]) for name in sorted(attributes)]
        self._attributes = b',"attrs":{' + b",".join(pairs) + b"}" if pairs else b""
        self._second = -1
        self._prefix = ""
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._lost = 0
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._file).st_size
        self._mend()

    def _mend(self) -> None:
        """Take away a record that a crash cut short, so that the next one stands on its own line."""
        start = max(0, self._size - _LONGEST_RECORD)
        reader = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            end = os.pread(reader, self._size - start, start)
        finally:
            os.close(reader)
        if end and not end.endswith(b"\n"):
            self._size = start + end.rfind(b"\n") + 1
            os.ftruncate(self._file, self._size)

    def _tail(self, stream: str, time_ns: int) -> bytes:
        second, fraction = divmod(time_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        moment = f"{self._prefix}.{fraction:09d}".rstrip("0").rstrip(".")
        return b'","stream":"%b"%b,"time":"%bZ"}\n' % (stream.encode(), self._attributes, moment.encode())

    def write(self, stream: str, time_ns: int, data: bytes, partial: bool) -> None:
        """One line without its newline, or a piece of one."""
        text = escape(data)
        self._add(b'{"log":"' + text + (b"" if partial else b"\\n") + self._tail(stream, time_ns), 1)

    def write_block(self, stream: str, time_ns: int, data: bytes) -> None:
        """Any number of whole lines with their newlines, all of the same moment."""
        tail = b"\\n" + self._tail(stream, time_ns)
        records = b'{"log":"' + escape(data[:-1]).replace(b"\n", tail + b'{"log":"') + tail
        if 0 < self._limit < self._size + self._buffered + len(records):
            for record in records.splitlines(keepends=True):
                self._add(record, 1)
        else:
            self._add(records, records.count(b"\n"))

    def _add(self, records: bytes, count: int) -> None:
        if 0 < self._limit <= self._size + self._buffered:
            self.flush()
            self._rotate()
        self._buffer.append(records)
        self._buffered += len(records)

    def flush(self) -> None:
        """Write what is buffered."""
        if not self._buffer:
            return
        data, self._buffer, self._buffered = b"".join(self._buffer), [], 0
        if self._lost:
            note = f"dockp: {self._lost} log records were lost: no space left on device"
            data = b'{"log":"%b\\n%b' % (note.encode(), self._tail("stderr", time.time_ns())) + data
        if self._append(data):
            self._lost = 0
        else:
            self._lost += data.count(b"\n") - (1 if self._lost else 0)

    def _append(self, data: bytes) -> bool:
        """Write all or nothing; False when the disk is full or failing."""
        start = self._size
        try:
            rest = data
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            try:
                os.ftruncate(self._file, start)
            except OSError:
                self._size = os.fstat(self._file).st_size
            return False
        self._size = start + len(data)
        return True

    def _rotate(self) -> None:
        """``log`` becomes ``log.1``, that ``log.2``, and so on; at most ``max-file`` in all."""
        os.close(self._file)
        try:
            if self._files <= 1:
                os.truncate(self._path, 0)
            else:
                self._shift()
        except OSError:
            pass  # a rotation that fails leaves a file that is too long, and nothing lost
        self._open()

    def _shift(self) -> None:
        for number in range(self._files - 1, 1, -1):
            for end in ("", ".gz"):
                try:
                    os.rename(f"{self._path}.{number - 1}{end}", f"{self._path}.{number}{end}")
                except FileNotFoundError:
                    continue
                other = f"{self._path}.{number}{'' if end else '.gz'}"
                try:
                    os.unlink(other)
                except FileNotFoundError:
                    pass
        os.rename(self._path, self._path + ".1")
        if self._compress:
            _compress_apart(self._path + ".1")

    def close(self) -> None:
        self.flush()
        os.close(self._file)


def _attributes(options: dict[str, str], info: dict[str, Any]) -> dict[str, str]:
    """The extra attributes that the options ask for; nobody's when they ask for none."""
    found: dict[str, str] = {}
    labels = info.get("labels") or {}
    env = dict([entry.partition("=")[::2] for entry in info.get("env") or ()])
    for names, pattern, values in (
        (options.get("labels"), options.get("labels-regex"), labels),
        (options.get("env"), options.get("env-regex"), env),
    ):
        for name in (names or "").split(","):
            if name in values:
                found[name] = values[name]
        if pattern:
            import re

            matches = re.compile(pattern).search
            found.update({name: value for name, value in values.items() if matches(name)})
    if options.get("tag"):
        found["tag"] = _tag(options["tag"], info)
    return found


def _tag(template: str, info: dict[str, Any]) -> str:
    """Docker's log tag. The driver has refused every field but these."""
    id, image = str(info.get("id", "")), str(info.get("image_id", ""))
    for field, value in (
        ("ID", id[:12]),
        ("FullID", id),
        ("Name", str(info.get("name", "")).lstrip("/")),
        ("ImageName", str(info.get("image", ""))),
        ("ImageID", image.removeprefix("sha256:")[:12]),
        ("ImageFullID", image),
        ("DaemonName", "docker"),
    ):
        template = template.replace("{{." + field + "}}", value)
    return template


def _compress_apart(path: str) -> None:
    """Compress a rotated file in a process of its own, so that output does not wait for it."""
    if os.fork():
        return
    try:
        close_from(3)
        os.nice(10)
        import gzip

        temporary = path + ".gz~"
        with open(path, "rb") as plain, gzip.open(temporary, "wb", compresslevel=6) as packed:
            before = os.fstat(plain.fileno())
            while piece := plain.read(1 << 20):
                packed.write(piece)
        os.chmod(temporary, before.st_mode & 0o777)
        # Rotated again meanwhile? Then the name means another file now, and the next one in line is this one.
        number = int(path.rpartition(".")[2])
        base = path.rpartition(".")[0]
        for later in range(number, number + 1000):
            try:
                if os.stat(f"{base}.{later}").st_ino == before.st_ino:
                    os.rename(temporary, f"{base}.{later}.gz")
                    os.unlink(f"{base}.{later}")
                    break
            except FileNotFoundError:
                continue
        else:
            os.unlink(temporary)
    except BaseException:
        os._exit(1)
    os._exit(0)
