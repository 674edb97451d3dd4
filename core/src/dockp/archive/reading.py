"""Read tar entries from a stream that may be anything: hostile, cut short, endless.

The format is parsed by the standard library's tarfile. This module keeps it within bounds: headers may not be larger
than `_LARGEST_HEADER`, nothing is kept in memory, and whatever is malformed raises one `InvalidArgument` instead of
being taken for the end of the archive.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Self, cast

from dockp.spi.errors import InvalidArgument

_BLOCK = 256 * 1024
_LARGEST_HEADER = 8 * 1024 * 1024
"""Bytes of one extended header. The kernel takes at most 64 KiB of xattrs a file, and paths of 4 KiB."""
_MOST_INDEXED = 100_000
"""Entries that `index` keeps; an archive of images has a few for each layer."""


class ArchiveReader:
    """The entries of a tar stream, in order, each with its data.

    Args: stream: plain tar; read strictly forward, and never closed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._input = _Forward(stream)
        self._archive: tarfile.TarFile | None = None

    def entries(self) -> Iterator[tarfile.TarInfo]:
        """Each entry. Its data can be had from `data` until the next one is asked for.

        At the end the stream is read to its last byte, so that a digest taken of it is complete.
        Raises: InvalidArgument.
        """
        try:
            self._archive = tarfile.TarFile(
                fileobj=self._input,  # tell, seek and read are all it uses
                tarinfo=_StrictTarInfo,
                encoding="utf-8",
                errors="surrogateescape",
            )
        except tarfile.ReadError as error:
            if self._input.tell() == 0:
                return  # no byte at all: the layer that changes nothing
            raise InvalidArgument(f"not a tar archive: {error}") from error
        except _PARSER_ERRORS as error:
            raise _malformed(error) from error
        while True:
            try:
                entry = self._archive.next()
            except _PARSER_ERRORS as error:
                raise _malformed(error) from error
            if entry is None:
                break
            if entry.isreg() and entry.sparse is None:
                self._input.may_end_after(entry.offset_data + entry.size)
            yield entry
            self._archive.members.clear()  # type: ignore[attr-defined]  # or it would remember every entry
        self._input.drain()

    def data(self, entry: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
        """The data of a regular file as (offset, bytes): whatever is not covered is a hole."""
        # The type stubs say bytes; tarfile puts (offset, length) pairs there.
        sparse = cast("list[tuple[int, int]] | None", entry.sparse)
        pieces = [(0, entry.size)] if sparse is None else [piece for piece in sparse if piece[1] != 0]
        self._input.seek(entry.offset_data)
        reached = 0
        for start, length in pieces:
            if start < reached or length < 0 or start + length > entry.size:
                raise InvalidArgument(f"malformed tar archive: the sparse map of {entry.name!r} makes no sense")
            reached = start + length
            while start < reached:
                block = self._input.take(min(_BLOCK, reached - start))
                yield start, block
                start += len(block)


def index(file: BinaryIO) -> dict[str, tarfile.TarInfo]:
    """The entries of a plain tar in a file that can be sought, by their normalised names; data is passed over.

    Raises: InvalidArgument when it is malformed or has more entries than anybody's images need.
    """
    entries: dict[str, tarfile.TarInfo] = {}
    try:
        archive = tarfile.TarFile(
            fileobj=_Bounded(file),  # type: ignore[arg-type]  # tell, seek and read are all it uses
            tarinfo=_StrictTarInfo,
            encoding="utf-8",
            errors="surrogateescape",
        )
        while (entry := archive.next()) is not None:
            entries[posixpath.normpath(entry.name)] = entry
            archive.members.clear()  # type: ignore[attr-defined]  # or it would remember every entry as well
            if len(entries) > _MOST_INDEXED:
                raise InvalidArgument(f"malformed tar archive: more than {_MOST_INDEXED} files")
    except _PARSER_ERRORS as error:
        raise _malformed(error) from error
    return entries


class _Bounded:
    """A file of which no large piece is read at once, whatever a header says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _LARGEST_HEADER:
            raise InvalidArgument(f"malformed tar archive: a header of {size} bytes")
        return self._file.read(size)


class _StrictTarInfo(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile, /) -> Self:
        try:
            entry = super().fromtarfile(tarfile_)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            raise  # two ways an archive may end
        except tarfile.HeaderError as error:
            # tarfile takes a broken header after the first for the end of the archive.
            raise InvalidArgument(f"malformed tar archive: {error}") from error
        if not 0 <= entry.size < 2**63:
            raise InvalidArgument(f"malformed tar archive: a file of {entry.size} bytes")
        return entry


class _Forward(io.RawIOBase):
    """What tarfile needs of a file, over a stream that only goes forward."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0
        self._last_data = -1
        self._padded_to = 0

    def may_end_after(self, position: int) -> None:
        """The data of an entry ends at ``position``. The padding behind it may be missing at the end of the archive, as
        umoci leaves it out (its ``insert``), and other engines accept."""
        self._last_data = position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _LARGEST_HEADER:
            raise InvalidArgument(f"malformed tar archive: a header of {size} bytes")
        parts = []
        while size > 0:
            part = self._stream.read(size) or bytes(min(size, max(0, self._padded_to - self._position)))
            if not part:
                break
            parts.append(part)
            size -= len(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def take(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes of data."""
        part = self._stream.read(size)
        if not part:
            raise InvalidArgument("the archive ends in the middle of a file")
        self._position += len(part)
        return part

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise InvalidArgument("malformed tar archive: an entry begins inside another")
        while self._position < offset:
            part = self._stream.read(min(_BLOCK, offset - self._position))
            if not part:
                if not 0 <= self._last_data <= self._position:
                    raise InvalidArgument("the archive ends in the middle of a file")
                self._padded_to = offset + 1  # tarfile looks at the last byte of the padding
                self._position = offset
            self._position += len(part)
        return offset

    def drain(self) -> None:
        while part := self._stream.read(_BLOCK):
            self._position += len(part)


# What tarfile lets through on malformed input, besides its own errors: numbers that are none, chains of headers that
# describe headers.
_PARSER_ERRORS = (tarfile.TarError, ValueError, OverflowError, RecursionError, IndexError, KeyError, TypeError)


def _malformed(error: BaseException) -> InvalidArgument:
    return InvalidArgument(f"malformed tar archive: {error or type(error).__name__}")
