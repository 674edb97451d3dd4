"""Pack a tree, or what changed in it, into a tar. The same tree gives the same bytes, anywhere and any time.

Deterministic: sorted names, PAX headers only where needed, no access or change times, no user names. Deletions are
written as OCI image-spec layer.md has them: ``.wh.name`` and ``.wh..wh..opq``.

A `Packer` gives the archive in pieces, as its reader wants them: nothing is held whole, no thread or process feeds it,
and one that is read no further costs nothing. The tree may change meanwhile: what vanished is left out.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO

from dockp.archive.changes import DELETED, between, is_whiteout
from dockp.archive.tree import VANISHED, Tree
from dockp.spi.errors import InvalidArgument
from dockp.spi.values import ChangesDirectory

_XATTR = "SCHILY.xattr."
_BLOCK = 256 * 1024
_PADDING = 512
_LONGEST_NAME = 100
_NUMBERS = {"uid": 0o7777777, "gid": 0o7777777, "size": 0o77777777777, "mtime": 0o77777777777}
"""The largest numbers that a plain header can hold. Source: POSIX ustar."""
END = bytes(2 * _PADDING)
"""What ends an archive; alone, an archive of nothing."""


def pack_tree(root: str | os.PathLike[str], out: BinaryIO, include_root: bool = False) -> None:
    """Write everything below ``root`` to ``out`` as a tar; with ``include_root`` also ``./`` itself.

    Sockets are left out: no archive can hold them. Raises: OSError; InvalidArgument where the tree holds names that
    would be whiteouts.
    """
    with Tree(os.fspath(root)) as tree:
        _write(Packer(tree, layer=True).tree(include_root), out)


def pack_changes(changes: ChangesDirectory | tuple[str | int | None, str | int], out: BinaryIO) -> None:
    """Write a layer: what a `ChangesDirectory` holds, or the changes from one tree to another (lower, upper).

    Applied to the parent, the layer gives what the snapshot shows, save for attributes of the root directory, which no
    engine puts into layers, and sockets. Raises: as `pack_tree`.
    """
    with Tree(changes.path if isinstance(changes, ChangesDirectory) else changes[1]) as tree:
        _write(layer(changes, tree), out)


def layer(
    changes: ChangesDirectory | tuple[str | int | None, str | int], tree: Tree, without: Collection[str] = ()
) -> Iterator[bytes]:
    """`pack_changes` in pieces, read from ``tree``, the changed one; ``without`` the paths named (``/proc``)."""
    packer = Packer(tree, layer=True)
    if isinstance(changes, ChangesDirectory):
        return packer.directory(without)
    return packer.difference(changes[0], changes[1], without)


class Packer:
    """Makes one archive of ``tree``.

    Args: layer: it is to be a layer, in which names that begin with ``.wh.`` mean deletions.
        whole_seconds: modification times lose their fraction, as in what Docker copies and exports.
    """

    def __init__(self, tree: Tree, *, layer: bool = False, whole_seconds: bool = False) -> None:
        self._tree = tree
        self._layer = layer
        self._unit = 1_000_000_000 if whole_seconds else 1
        self._names: dict[tuple[int, int], str] = {}  # files with several names that are in the archive

    def tree(self, include_root: bool = False) -> Iterator[bytes]:
        """Everything; with ``include_root`` also ``./`` itself."""
        if include_root:
            yield from self.entry("", self._tree.info(""), ".")
        for path, info in self._tree.walk():
            yield from self.entry(path, info, path)
        yield END

    def below(self, name: str, closed: Collection[str] = ()) -> Iterator[bytes]:
        """The top directory as ``name``, and everything in it as ``name/…``; ``closed`` as in `Tree.walk`."""
        yield from self.entry("", self._tree.info(""), name)
        for path, info in self._tree.walk(closed):
            yield from self.entry(path, info, f"{name}/{path}")
        yield END

    def single(self, path: str, name: str) -> Iterator[bytes]:
        """One entry, no directory, under the name ``name``."""
        yield from self.entry(path, self._tree.info(path), name)
        yield END

    def directory(self, without: Collection[str]) -> Iterator[bytes]:
        """The layer that a `ChangesDirectory` holds."""
        for path, info in self._tree.walk():
            if f"/{path}" in without:
                continue
            if is_whiteout(info):
                yield _whiteout(path)
                continue
            yield from self.entry(path, info, path)
            if stat.S_ISDIR(info.st_mode) and self._tree.is_opaque(path):
                yield _opaque(path)
        yield END

    def difference(self, lower: str | int | None, upper: str | int, without: Collection[str]) -> Iterator[bytes]:
        """The layer that makes ``lower`` into ``upper``, which is this tree."""
        linked: dict[tuple[int, int], list[str]] = {}
        for path, info in self._tree.walk():
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                linked.setdefault((info.st_dev, info.st_ino), []).append(path)
        wanted: dict[str, os.stat_result | None] = {}
        for change in between(lower, upper):
            path = change.path[1:]
            if change.path in without:
                continue
            if change.kind == DELETED:
                wanted[path] = None
                continue
            found = self._look(path)
            if found is None:
                continue
            wanted[path] = found
            # A file with several names comes with all of them, or its unchanged names would be files of their own.
            for name in linked.get((found.st_dev, found.st_ino), ()):
                while name and name not in wanted and (found := self._look(name)) is not None:
                    wanted[name] = found
                    name = name.rpartition("/")[0]
        for path in sorted(wanted, key=lambda path: [os.fsencode(part) for part in path.split("/")]):
            entry = wanted[path]
            if entry is None:
                yield _whiteout(path)
            else:
                yield from self.entry(path, entry, path)
        yield END

    def _look(self, path: str) -> os.stat_result | None:
        try:
            return self._tree.info(path)
        except OSError as error:
            if error.errno in VANISHED:
                return None
            raise

    def entry(self, path: str, info: os.stat_result, name: str) -> Iterator[bytes]:
        """``path`` (relative to the top; "" is the top) under the name ``name``; nothing when it is gone."""
        if self._layer and os.path.basename(path).startswith(".wh."):
            raise InvalidArgument(f"cannot pack {path!r}: in a layer that name stands for a deletion")
        if stat.S_ISSOCK(info.st_mode) or (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):
            return
        entry = tarfile.TarInfo(name)
        entry.mode = stat.S_IMODE(info.st_mode)
        entry.uid, entry.gid = info.st_uid, info.st_gid
        time = info.st_mtime_ns // self._unit * self._unit
        seconds, nanoseconds = divmod(time, 1_000_000_000)
        entry.mtime = seconds
        records = {_XATTR + key: value for key, value in self._tree.xattrs(path).items()}
        if nanoseconds or seconds < 0:
            records["mtime"] = _decimal(time)
            entry.mtime = max(0, seconds)  # for readers that know no PAX
        key = (info.st_dev, info.st_ino)
        if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1 and key in self._names:
            entry.type, entry.linkname = tarfile.LNKTYPE, self._names[key]
            yield _header(entry, records)
            return
        try:
            if stat.S_ISREG(info.st_mode):
                with self._tree.open(path) as file:
                    self._names[key] = name
                    yield from _file(file, entry, records)
                return
            if stat.S_ISLNK(info.st_mode):
                entry.type, entry.linkname = tarfile.SYMTYPE, self._tree.readlink(path)
        except OSError as error:
            if error.errno in VANISHED or error.errno == errno.EINVAL:  # the latter: a link no longer
                return
            raise
        if stat.S_ISDIR(info.st_mode):
            entry.type = tarfile.DIRTYPE
        elif not stat.S_ISLNK(info.st_mode):
            entry.type = _SPECIAL[stat.S_IFMT(info.st_mode)]
            entry.devmajor, entry.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
        self._names[key] = name
        yield _header(entry, records)


class PackStream(io.RawIOBase):
    """An archive as a file to read: pieces are made when they are asked for. ``close`` calls ``done`` once."""

    def __init__(self, pieces: Iterator[bytes], done: Callable[[], object]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._done: Callable[[], object] | None = done

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        size = min(len(target), len(self._piece))
        target[:size] = self._piece[:size]
        self._piece = self._piece[size:]
        return size

    def close(self) -> None:
        super().close()
        done, self._done = self._done, None
        if done is not None:
            if (stop := getattr(self._pieces, "close", None)) is not None:
                stop()
            done()


def _write(pieces: Iterator[bytes], out: BinaryIO) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            written = out.write(view)
            view = view[written:]


def _whiteout(path: str) -> bytes:
    directory, _, name = path.rpartition("/")
    return _header(tarfile.TarInfo(f"{directory}/.wh.{name}" if directory else f".wh.{name}"), {})


def _opaque(path: str) -> bytes:
    return _header(tarfile.TarInfo(f"{path}/.wh..wh..opq"), {})


def _file(file: BinaryIO, entry: tarfile.TarInfo, records: dict[str, bytes]) -> Iterator[bytes]:
    left = entry.size = os.fstat(file.fileno()).st_size
    yield _header(entry, records)
    while left:
        # Somebody may be writing to the tree. The header promised a size, so what is missing reads as zeros.
        block = file.read(min(_BLOCK, left)) or bytes(min(_BLOCK, left))
        yield block
        left -= len(block)
    yield bytes(-entry.size % _PADDING)


def _header(entry: tarfile.TarInfo, records: dict[str, bytes]) -> bytes:
    """An entry's header, before it a PAX header with ``records`` and whatever does not fit into the former.

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
    extended = b""
    if records:
        header = tarfile.TarInfo("././@PaxHeader")
        header.type = tarfile.XHDTYPE
        data = b"".join(_record(keyword, records[keyword]) for keyword in sorted(records))
        header.size = len(data)
        extended = header.tobuf(tarfile.USTAR_FORMAT, "ascii") + data + bytes(-len(data) % _PADDING)
    return extended + entry.tobuf(tarfile.USTAR_FORMAT, "ascii")


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
