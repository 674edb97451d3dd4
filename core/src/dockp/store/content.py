"""The content store: blobs by digest, byte for byte as they were received.

::

    <root>/content/sha256/<hex>     complete, verified, on the disk
    <root>/content/ingest/<random>  being written; whoever writes it holds flock(2) on it
    <root>/content/ingest/<hex>     being downloaded, or as far as that got before it was cut; locked the same way
    <root>/content/scratch/<random> working directories of image sources, locked the same way

A name under ``sha256`` appears by rename(2) after fsync(2), so that it is whole or not there, also after a power cut.
A blob is kept as long as an image or a lease names it; the rest is for `dockp.store.gc`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from dockp.spi.errors import InvalidArgument, NotFound, SystemFault
from dockp.spi.values import Descriptor

if TYPE_CHECKING:
    from dockp.store.leases import Lease

CHUNK = 1 << 20
"""Bytes moved at a time wherever blobs are copied."""

PARTIAL_AGE = 86400.0
"""Seconds that what a cut download left is kept for the next attempt."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def hex_of(digest: str) -> str:
    """The hexadecimal part of ``sha256:…``. OCI image-spec descriptor.md, "Digests".

    Raises: InvalidArgument for anything else, so that a digest is always safe as a file name.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidArgument(f"invalid digest {digest!r}: expected sha256: and 64 lower-case hexadecimal digits")
    return match[1]


class ContentStore:
    """Blobs under ``<root>/content``. Any number of threads and processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "content" / "sha256"
        self._ingest = root / "content" / "ingest"
        self._scratch = root / "content" / "scratch"

    def path(self, digest: str) -> Path:
        """Where the blob is or would be. Raises: InvalidArgument for a malformed digest."""
        return self._blobs / hex_of(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob is complete here. Only lasting when a lease or an image names it."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises: NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: str) -> BinaryIO:
        """The blob, unbuffered, for reading; the caller closes it. Raises: NotFound."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: str, limit: int) -> bytes:
        """A small blob as a whole. Raises: NotFound; InvalidArgument when it is longer than ``limit`` bytes."""
        with self.open(digest) as blob:
            if os.fstat(blob.fileno()).st_size > limit:
                raise InvalidArgument(f"blob {digest} is larger than the {limit} bytes allowed for a document")
            return blob.read()

    def verify(self, digest: str) -> bool:
        """Read the whole blob and say whether its bytes still have its digest. Raises: NotFound."""
        import hashlib

        with self.open(digest) as blob:
            return hashlib.file_digest(blob, "sha256").hexdigest() == hex_of(digest)  # type: ignore[arg-type]

    def writer(self, expected: Descriptor | None = None, *, lease: Lease) -> BlobWriter:
        """A writer for one blob; use it as a context manager and call `BlobWriter.commit` at its end.

        ``expected``: what size and digest must come out, or None to take what comes. ``lease`` keeps the blob.
        """
        if expected is not None:
            hex_of(expected.digest)
        for folder in (self._ingest, self._blobs):
            _make_folder(folder)
        return BlobWriter(self._blobs, expected, lease, *_create_locked(self._ingest))

    def resume(self, expected: Descriptor, *, lease: Lease) -> BlobWriter:
        """A writer that goes on where an earlier one for this blob was cut off: after its `BlobWriter.written` bytes.

        What it writes stays for the next one, unless it proves wrong or the disk fails. Only for whoever holds the
        blob's lock. Raises: SystemFault.
        """
        for folder in (self._ingest, self._blobs):
            _make_folder(folder)
        path = self._ingest / hex_of(expected.digest)
        return BlobWriter(self._blobs, expected, lease, path, _open_locked(path), resumable=True)

    def add(self, data: bytes, media_type: str, *, lease: Lease) -> Descriptor:
        """Store a document that is in memory already."""
        with self.writer(lease=lease) as writer:
            writer.write(data)
            return writer.commit(media_type)

    def withdraw(self, digest: str) -> Path | None:
        """Take a blob away, quickly: its file lies under the returned name until unlinked, by the caller or by `sweep`.

        Only for those who know that nothing names it. None when it is absent.
        """
        _make_folder(self._ingest)
        place = self._ingest / os.urandom(8).hex()
        try:
            self.path(digest).rename(place)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SystemFault(f"removing blob {digest}: {error.strerror}") from error
        return place

    def delete(self, digest: str) -> None:
        """Remove a blob. Absent is success. Only for those who know that nothing names it."""
        place = self.withdraw(digest)
        if place is not None:
            place.unlink(missing_ok=True)

    def walk(self) -> Iterator[tuple[str, int]]:
        """Digest and size of every complete blob."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._blobs) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield f"sha256:{entry.name}", entry.stat(follow_symlinks=False).st_size

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty directory for the length of the context. A killed process's is removed by `sweep`."""
        _make_folder(self._scratch)
        while True:
            path = self._scratch / os.urandom(8).hex()
            path.mkdir(mode=0o700)
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():  # else a sweep came between mkdir and flock
                break
            os.close(lock)
        try:
            yield path
        finally:
            _remove_tree(path)
            os.close(lock)

    def sweep(self) -> int:
        """Remove what killed writers left behind; how many entries that were. What is in use is locked, and stays; so
        does, for `PARTIAL_AGE`, what a later download can go on from."""
        swept = 0
        oldest = time.time() - PARTIAL_AGE
        for folder in (self._ingest, self._scratch):
            for path in folder.iterdir() if folder.is_dir() else ():
                try:
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                except FileNotFoundError:
                    continue
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                else:
                    if _is_partial(path) and os.fstat(descriptor).st_mtime > oldest:
                        continue
                    if path.is_dir():
                        _remove_tree(path)
                    else:
                        path.unlink(missing_ok=True)
                    swept += 1
                finally:
                    os.close(descriptor)
        return swept


class BlobWriter:
    """Writes one blob, hashing on the way. Leaving the context without `commit` drops what was written, or, when it is
    ``resumable``, keeps it. Made by `ContentStore`."""

    def __init__(
        self,
        blobs: Path,
        expected: Descriptor | None,
        lease: Lease,
        path: Path,
        file: int,
        *,
        resumable: bool = False,
    ) -> None:
        import hashlib

        self._path, self._file = path, file
        self._blobs = blobs
        self._expected = expected
        self._lease = lease
        self._new_hash = hashlib.sha256
        self._hash: Any = hashlib.sha256()
        self._written = 0
        self._resumable = self._keeps = resumable
        if resumable:
            self._take_up()

    def fileno(self) -> int:
        """The descriptor of the file, which `commit` renames and does not change: for reading what was written."""
        return self._file

    def _take_up(self) -> None:
        try:
            while data := os.read(self._file, CHUNK):
                self._hash.update(data)
                self._written += len(data)
        except OSError as error:
            raise SystemFault(f"reading what was downloaded of a blob: {error.strerror}") from error
        if self._expected is not None and self._written > self._expected.size:
            self.restart()

    def restart(self) -> None:
        """Forget what was written, and begin anew. Raises: SystemFault."""
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
        except OSError as error:
            raise SystemFault(f"writing a blob to {self._blobs.parent}: {error.strerror}") from error
        self._hash, self._written, self._keeps = self._new_hash(), 0, self._resumable

    def write(self, data: bytes | memoryview) -> int:
        """Append. Raises: InvalidArgument as soon as there is more than expected; SystemFault when the disk is full."""
        self._written += len(data)
        if self._expected is not None and self._written > self._expected.size:
            self._keeps = False
            raise InvalidArgument(
                f"blob {self._expected.digest} is longer than the {self._expected.size} bytes its descriptor says"
            )
        self._hash.update(data)
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._file, view) :]
            except OSError as error:
                self._keeps = False
                raise SystemFault(f"writing a blob to {self._blobs.parent}: {error.strerror}") from error
        return len(data)

    def copy(self, source: BinaryIO) -> int:
        """Append everything ``source`` still has; how many bytes that were."""
        before = self._written
        while chunk := source.read(CHUNK):
            self.write(chunk)
        return self._written - before

    @property
    def written(self) -> int:
        """Bytes so far."""
        return self._written

    def commit(self, media_type: str = "application/octet-stream") -> Descriptor:
        """Verify, put the blob on the disk under its digest, and return its descriptor.

        ``media_type`` counts only when no descriptor was expected. A blob that is there already is kept as it is.
        Raises: InvalidArgument when size or digest are not the expected ones; SystemFault on a full disk.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        self._keeps = False  # what is wrong now will not become right
        if self._expected is not None:
            if self._written != self._expected.size:
                raise InvalidArgument(
                    f"blob {self._expected.digest} ended after {self._written} of {self._expected.size} bytes"
                )
            if digest != self._expected.digest:
                raise InvalidArgument(f"blob {self._expected.digest} arrived with another digest: {digest}")
        # The lease comes first: from here on no collector removes this digest, be it old or new.
        self._lease.add("content", digest)
        target = self._blobs / hex_of(digest)
        if not target.exists():
            from dockp.linux.trees import sync_directory

            try:
                os.fsync(self._file)
                self._path.rename(target)
                sync_directory(str(self._blobs))
            except OSError as error:
                raise SystemFault(f"storing blob {digest} in {self._blobs}: {error.strerror}") from error
        return self._expected or Descriptor(media_type=media_type, digest=digest, size=self._written)

    def close(self) -> None:
        """Drop, or keep, what is not committed. Twice is fine."""
        if self._file >= 0:
            if not self._keeps or not self._written:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create_locked(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / os.urandom(8).hex()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SystemFault(f"cannot write to the content store {folder}: {error.strerror}") from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # else a sweep came between open and flock
            return path, descriptor
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SystemFault(f"cannot write to the content store {path.parent}: {error.strerror}") from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # else a sweep came between open and flock
            return descriptor
        os.close(descriptor)


def _is_partial(path: Path) -> bool:
    """Whether it is a download, rather than something with a random name."""
    return _DIGEST.fullmatch(f"sha256:{path.name}") is not None


def _remove_tree(path: Path) -> None:
    import shutil  # slow to import, and no command starts a container with it

    shutil.rmtree(path, ignore_errors=True)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SystemFault(f"cannot make {path} in the content store: {error.strerror}") from error


def _missing(digest: str) -> NotFound:
    return NotFound(f"blob {digest} is not in the content store")
