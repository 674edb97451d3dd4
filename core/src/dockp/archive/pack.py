"""Pack a tree, or what changed in it, into a layer tar. The same tree gives the same bytes, anywhere and any time.

Deterministic: sorted names, PAX headers only where needed, no access or change times, no user names. Deletions are
written as OCI image-spec layer.md has them: ``.wh.name`` and ``.wh..wh..opq``.
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import BinaryIO

from dockp.archive.changes import DELETED, between, is_opaque, is_whiteout, walk, xattrs
from dockp.spi.errors import InvalidArgument
from dockp.spi.values import ChangesDirectory

_XATTR = "SCHILY.xattr."
_BLOCK = 256 * 1024
_PADDING = 512
_LONGEST_NAME = 100
_NUMBERS = {"uid": 0o7777777, "gid": 0o7777777, "size": 0o77777777777, "mtime": 0o77777777777}
"""The largest numbers that a plain header can hold. Source: POSIX ustar."""


def pack_tree(root: str | os.PathLike[str], out: BinaryIO, include_root: bool = False) -> None:
    """Write everything below ``root`` to ``out`` as a tar; with ``include_root`` also ``./`` itself.

    Sockets are left out: no archive can hold them. Raises: OSError; InvalidArgument where the tree holds names that
    would be whiteouts.
    """
    top = os.fspath(root)
    writer = _Writer(top, out)
    if include_root:
        writer.add("", os.lstat(top))
    for path, info in walk(top):
        writer.add(path, info)
    writer.close()


def pack_changes(changes: ChangesDirectory | tuple[str | None, str], out: BinaryIO) -> None:
    """Write a layer: what a `ChangesDirectory` holds, or the changes from one tree to another (lower, upper).

    Applied to the parent, the layer gives what the snapshot shows, save for attributes of the root directory, which no
    engine puts into layers, and sockets. Raises: as `pack_tree`.
    """
    if isinstance(changes, ChangesDirectory):
        _pack_directory(changes.path, out)
    else:
        _pack_difference(changes[0], changes[1], out)


def _pack_directory(top: str, out: BinaryIO) -> None:
    writer = _Writer(top, out)
    for path, info in walk(top):
        if is_whiteout(info):
            writer.add_whiteout(path)
            continue
        writer.add(path, info)
        if stat.S_ISDIR(info.st_mode) and is_opaque(f"{top}/{path}"):
            writer.add_opaque(path)
    writer.close()


def _pack_difference(lower: str | None, upper: str, out: BinaryIO) -> None:
    writer = _Writer(upper, out)
    linked: dict[tuple[int, int], list[str]] = {}
    for path, info in walk(upper):
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            linked.setdefault((info.st_dev, info.st_ino), []).append(path)
    wanted: dict[str, bool] = {}
    for change in between(lower, upper):
        path = change.path[1:]
        wanted[path] = change.kind == DELETED
        if change.kind == DELETED:
            continue
        info = os.lstat(f"{upper}/{path}")
        # A file with several names comes with all of them, or its unchanged names would be files of their own.
        for name in linked.get((info.st_dev, info.st_ino), ()):
            while name and name not in wanted:
                wanted[name] = False
                name = name.rpartition("/")[0]
    for path in sorted(wanted, key=lambda path: [os.fsencode(part) for part in path.split("/")]):
        if wanted[path]:
            writer.add_whiteout(path)
        else:
            writer.add(path, os.lstat(f"{upper}/{path}"))
    writer.close()


class _Writer:
    """A tar being written."""

    def __init__(self, top: str, out: BinaryIO) -> None:
        self._top = top
        self._out = out
        self._names: dict[tuple[int, int], str] = {}  # files with several names that are in the archive

    def add(self, path: str, info: os.stat_result) -> None:
        """Add ``path`` (relative to the top; "" is the top)."""
        full = f"{self._top}/{path}" if path else self._top
        if os.path.basename(path).startswith(".wh."):
            raise InvalidArgument(f"cannot pack {path!r}: in a layer that name stands for a deletion")
        if stat.S_ISSOCK(info.st_mode) or (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):
            return
        entry = tarfile.TarInfo(path or ".")
        entry.mode = stat.S_IMODE(info.st_mode)
        entry.uid, entry.gid = info.st_uid, info.st_gid
        seconds, nanoseconds = divmod(info.st_mtime_ns, 1_000_000_000)
        entry.mtime = seconds
        records = {_XATTR + name: value for name, value in xattrs(full).items()}
        if nanoseconds or seconds < 0:
            records["mtime"] = _decimal(info.st_mtime_ns)
            entry.mtime = max(0, seconds)  # for readers that know no PAX
        key = (info.st_dev, info.st_ino)
        if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1 and key in self._names:
            entry.type, entry.linkname = tarfile.LNKTYPE, self._names[key]
        elif stat.S_ISREG(info.st_mode):
            self._add_file(full, entry, records, info.st_size)
            self._names[key] = path
            return
        elif stat.S_ISDIR(info.st_mode):
            entry.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(info.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(full)
            self._names[key] = path
        else:
            entry.type = _SPECIAL[stat.S_IFMT(info.st_mode)]
            entry.devmajor, entry.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
            self._names[key] = path
        self._header(entry, records)

    def add_whiteout(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        self._header(tarfile.TarInfo(f"{directory}/.wh.{name}" if directory else f".wh.{name}"), {})

    def add_opaque(self, path: str) -> None:
        self._header(tarfile.TarInfo(f"{path}/.wh..wh..opq"), {})

    def close(self) -> None:
        """End the archive: two empty blocks."""
        self._write(bytes(2 * _PADDING))

    def _add_file(self, full: str, entry: tarfile.TarInfo, records: dict[str, bytes], size: int) -> None:
        with open(full, "rb", buffering=0) as file:
            entry.size = size
            self._header(entry, records)
            left = size
            while left:
                block = file.read(min(_BLOCK, left))
                if not block:
                    # Somebody is writing to the tree. The header promised a size, so the rest reads as zeros.
                    block = bytes(min(_BLOCK, left))
                self._write(block)
                left -= len(block)
        self._write(bytes(-size % _PADDING))

    def _header(self, entry: tarfile.TarInfo, records: dict[str, bytes]) -> None:
        """Write an entry's header, before it a PAX header with ``records`` and whatever does not fit into the former.

        Bytes go in as they are, as Go's and GNU's tar do it. tarfile itself would mark names and xattrs that are not
        UTF-8 by ``hdrcharset``, which other readers complain of.
        """
        for field, keyword in (("name", "path"), ("linkname", "linkpath")):
            raw = os.fsencode(getattr(entry, field))
            if len(raw) >= _LONGEST_NAME or not raw.isascii():
                records[keyword] = raw + b"/" if field == "name" and entry.isdir() else raw
                setattr(entry, field, raw[: _LONGEST_NAME - 1].decode("ascii", "replace").replace("\ufffd", "?"))
        for field, largest in _NUMBERS.items():
            if getattr(entry, field) > largest:
                records[field] = b"%d" % getattr(entry, field)
                setattr(entry, field, 0)
        if records:
            extended = tarfile.TarInfo("././@PaxHeader")
            extended.type = tarfile.XHDTYPE
            data = b"".join(_record(keyword, records[keyword]) for keyword in sorted(records))
            extended.size = len(data)
            self._write(extended.tobuf(tarfile.USTAR_FORMAT, "ascii") + data + bytes(-len(data) % _PADDING))
        self._write(entry.tobuf(tarfile.USTAR_FORMAT, "ascii"))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._out.write(view)
            view = view[written:]


_SPECIAL = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}


def _record(keyword: str, value: bytes) -> bytes:
    """One PAX record: its own length in decimal, which counts its own digits. Source: pax(1), "pax Extended Header"."""
    rest = b" " + os.fsencode(keyword) + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _decimal(nanoseconds: int) -> bytes:
    """Seconds as PAX writes them, exact: no float may come between."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{sign}{seconds}.{rest:09}".rstrip("0").rstrip(".").encode()
