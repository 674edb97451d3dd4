"""Blobs on their way in: several at once, read by others while they still arrive, gone on with after a cut.

The file that is being written is the only buffer: whoever unpacks a layer follows the one who downloads it, and memory
stays small whatever the layer. Of a blob that is the rest of an earlier download nobody sees anything before the whole
is verified, since what a power cut left of it may not be what was written.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, BinaryIO, Protocol, cast

from dockp.images.layers import Progress
from dockp.linux.locks import Hold, RangeLocks, offset_of
from dockp.spi.errors import InvalidArgument, Unavailable
from dockp.spi.values import Descriptor
from dockp.store.content import BlobWriter, ContentStore
from dockp.store.leases import Lease

AT_ONCE = 3
"""Layers downloaded at the same time, as Docker's ``max-concurrent-downloads``."""
_PIECE = 256 * 1024
_LOOK_AGAIN = 0.1
"""Seconds between two looks whether another pull has got a blob that it is at."""
_PATIENCE = 0.5
"""Seconds in which downloads are to see that they are not wanted any more, before their source is closed."""


class Source(Protocol):
    """Where the bytes of an image come from: an `ImageSource`, or an archive."""

    def fetch(self, descriptor: Descriptor, offset: int = 0) -> BinaryIO: ...
    def close(self) -> None: ...


def short(digest: str) -> str:
    """How progress calls a layer."""
    return digest[7:19]


class Arriving:
    """One blob on its way in. One thread tells how far it is, any number read it."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self._changed = threading.Condition()
        self._file = -1
        self._readable = 0
        self._whole = False
        self._error: BaseException | None = None

    @property
    def whole(self) -> bool:
        """Whether all of it is here, and verified."""
        return self._whole

    def wait(self) -> None:
        """Until it is whole. Raises: what went wrong with it."""
        with self._changed:
            self._changed.wait_for(lambda: self._whole or self._error is not None)
            if self._error is not None:
                raise self._error

    def open(self) -> BinaryIO:
        """Its bytes as they come, from the first on. Reading waits for them, and raises what went wrong."""
        return cast(BinaryIO, _Following(self))

    def began(self, file: int) -> None:
        """``file``, which stays the caller's, will have the bytes."""
        self._file = os.dup(file)

    def reached(self, size: int) -> None:
        with self._changed:
            self._readable = size
            self._changed.notify_all()

    def finished(self) -> None:
        with self._changed:
            self._readable, self._whole = self.descriptor.size, True
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """When nobody reads any more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read_at(self, target: Any, position: int) -> int:
        """Fill ``target`` with what follows ``position``; how many bytes there were, 0 at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._readable > position or self._whole or self._error is not None)
            if self._error is not None:
                raise self._error
            size = min(len(target), self._readable - position)
        return os.preadv(self._file, [memoryview(target)[:size]], position) if size else 0


class _Following(io.RawIOBase):
    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        size = self._arriving.read_at(target, self._position)
        self._position += size
        return size


class Downloads:
    """The layers of one image on their way into the content store; a context manager, whose end stops what still runs.

    Args: lease: keeps them. verb: what progress says of bytes that come, such as "Downloading"; with Docker's other
        lines for a pull if ``steps``.
    """

    def __init__(
        self,
        source: Source,
        content: ContentStore,
        locks: RangeLocks,
        lease: Lease,
        say: Progress,
        *,
        verb: str,
        steps: bool,
        at_once: int = AT_ONCE,
    ) -> None:
        self._source = source
        self._content = content
        self._locks = locks
        self._lease = lease
        self._say = say
        self._verb = verb
        self._steps = steps
        self._blobs: dict[str, Arriving] = {}
        self._pool = ThreadPoolExecutor(at_once, "download")
        self._running: list[Future[None]] = []
        self._stopped: BaseException | None = None

    def start(self, descriptors: Iterable[Descriptor]) -> None:
        """Begin with these, in this order; each but once."""
        for descriptor in descriptors:
            if descriptor.digest not in self._blobs:
                self._blobs[descriptor.digest] = blob = Arriving(descriptor)
                self._running.append(self._pool.submit(self._get, blob))

    def open(self, digest: str) -> BinaryIO:
        """See `Arriving.open`."""
        return self._blobs[digest].open()

    def wait(self, digest: str) -> None:
        """See `Arriving.wait`."""
        self._blobs[digest].wait()

    def whole(self, digest: str) -> bool:
        """See `Arriving.whole`."""
        return self._blobs[digest].whole

    def stop(self) -> None:
        """End all that still runs; whoever waits for it is told so."""
        self._end(Unavailable("the download was stopped"))

    def __enter__(self) -> Downloads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None:
            self._end(value)
            if wait(self._running, _PATIENCE).not_done:
                self._source.close()  # reads that wait for a stranger end now
        self._pool.shutdown()
        for blob in self._blobs.values():
            blob.close()

    def _end(self, why: BaseException) -> None:
        self._stopped = why = self._stopped or why
        for running in self._running:
            running.cancel()
        for blob in self._blobs.values():
            if not blob.whole:
                blob.failed(why)

    def _get(self, blob: Arriving) -> None:
        try:
            with self._locked(blob.descriptor):
                if self._content.has(blob.descriptor.digest):
                    self._take(blob)
                else:
                    self._receive(blob)
            blob.finished()
        except BaseException as error:
            # One that fails ends them all, and all say why.
            self._stopped = self._stopped or error
            blob.failed(self._stopped)

    def _locked(self, descriptor: Descriptor) -> Hold:
        """The lock of a blob, when whoever else downloads it is done: one download, however many want it."""
        while True:
            try:
                return self._locks.hold(offset_of("blob", descriptor.digest), wait=False)
            except BlockingIOError:
                self._check()
                time.sleep(_LOOK_AGAIN)

    def _take(self, blob: Arriving) -> None:
        check_size(self._content, blob.descriptor)
        with self._content.open(blob.descriptor.digest) as file:
            blob.began(file.fileno())

    def _receive(self, blob: Arriving) -> None:
        descriptor = blob.descriptor
        with self._content.resume(descriptor, lease=self._lease) as writer:
            if writer.written:
                try:
                    self._copy(descriptor, writer, None)
                    self._commit(descriptor, writer)
                except InvalidArgument:
                    # Perhaps it is what was here before that is wrong.
                    pass
                else:
                    blob.began(writer.fileno())
                    return
                writer.restart()
            blob.began(writer.fileno())
            self._copy(descriptor, writer, blob)
            self._commit(descriptor, writer)

    def _copy(self, descriptor: Descriptor, writer: BlobWriter, blob: Arriving | None) -> None:
        what = f"{short(descriptor.digest)}: {self._verb}"
        if writer.written == descriptor.size and descriptor.size:
            return
        self._check()
        with self._source.fetch(descriptor, writer.written) as stream:
            while chunk := stream.read(_PIECE):
                self._check()
                writer.write(chunk)
                if blob is not None:
                    blob.reached(writer.written)
                self._say(what, writer.written, descriptor.size)

    def _commit(self, descriptor: Descriptor, writer: BlobWriter) -> None:
        name = short(descriptor.digest)
        if self._steps:
            self._say(f"{name}: Verifying Checksum", 0, None)
        writer.commit()
        if self._steps:
            self._say(f"{name}: Download complete", 0, None)

    def _check(self) -> None:
        if self._stopped is not None:
            raise Unavailable("the download was stopped") from self._stopped


def fetch_document(
    source: Source, content: ContentStore, locks: RangeLocks, lease: Lease, descriptor: Descriptor
) -> None:
    """Get one small blob now. Raises: what the source raises; InvalidArgument when it is not what its digest says."""
    lease.add("content", descriptor.digest)
    with locks.hold(offset_of("blob", descriptor.digest)):
        if content.has(descriptor.digest):
            check_size(content, descriptor)
            return
        with source.fetch(descriptor) as stream, content.writer(descriptor, lease=lease) as writer:
            writer.copy(stream)
            writer.commit()


def check_size(content: ContentStore, descriptor: Descriptor) -> None:
    """Of a blob that is here. Raises: InvalidArgument."""
    if content.size(descriptor.digest) != descriptor.size:
        raise InvalidArgument(f"blob {descriptor.digest} does not have the stated {descriptor.size} bytes")
