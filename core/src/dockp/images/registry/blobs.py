"""A blob as a stream that goes on where a connection broke."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from dockp.images.registry import transport
from dockp.images.registry.transport import Response, Transport, Unreachable, spelled, translated
from dockp.spi.errors import InvalidArgument, Unavailable
from dockp.spi.values import Descriptor

_PIECE = 1 << 20
"""Bytes that are read at most at a time, and that make up for a broken connection."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.I)


class BlobStream(io.RawIOBase):
    """The bytes of a blob from an offset on, never more than its descriptor has. Not for several threads at once.

    Reads return what has arrived, and raise Unavailable when too little comes in spite of trying; InvalidArgument when
    the registry's sizes are not the descriptor's.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        offset: int,
        ask: Callable[[int], Response],
        connections: Transport,
        attempts: int,
    ) -> None:
        """Args: ask: a new answer with the blob from an offset on, as far as the server heeds it. connections: to wait
        with between ``attempts``. Raises: what ``ask`` does, since what cannot be had at all is said at once."""
        self._descriptor = descriptor
        self._position = offset
        self._ask = ask
        self._connections = connections
        self._attempts = attempts
        self._failures = 0
        self._progress = 0
        self._response = self._open() if offset < descriptor.size else None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """What has arrived, at most ``size`` bytes; all of it with -1; b"" at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        wanted = min(size, _PIECE, self._descriptor.size - self._position)
        if wanted <= 0:
            if self._position >= self._descriptor.size:
                self._let_go(whole=True)
            return b""
        while True:
            try:
                if self._response is None:
                    self._response = self._open()
                with translated("GET", self._url):
                    data = self._response.read1(wanted)
                if not data:
                    raise Unreachable(f"{spelled('GET', self._url)}: unexpected EOF", connected=True)
            except Unreachable as error:
                self._failed(error)
            else:
                self._position += len(data)
                self._progress += len(data)
                if self._progress >= _PIECE:
                    self._failures = 0
                return data

    def _failed(self, error: Unreachable) -> None:
        """Wait before the next attempt. Raises: Unavailable when there were enough."""
        self._let_go(whole=False)
        self._failures += 1
        self._progress = 0
        if self._failures >= self._attempts:
            raise Unavailable(str(error)) from error
        self._connections.wait(transport.PAUSE * 2.0 ** (self._failures - 1), "GET", self._url)

    def readinto(self, target: Any) -> int:
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def close(self) -> None:
        self._let_go(whole=False)
        super().close()

    def _open(self) -> Response:
        response = self._ask(self._position)
        self._url = response.url or ""
        size, digest = self._descriptor.size, self._descriptor.digest
        try:
            start = 0
            if response.status == 206:
                match = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
                if match is None or int(match[1]) != self._position:
                    raise InvalidArgument(f"blob {digest}: the registry sent another part than was asked for")
                total, start = match[3], self._position
            else:
                total = response.headers.get("Content-Length") or "*"
            if total.isdigit() and int(total) != size:
                raise InvalidArgument(f"blob {digest} has {total} bytes at the registry, but its manifest says {size}")
            self._skip(response, self._position - start)
        except BaseException:
            response.close()
            raise
        return response

    def _skip(self, response: Response, count: int) -> None:
        """Read past what is here already, of a server that always begins at the start."""
        with translated("GET", self._url):
            while count:
                data = response.read1(min(count, _PIECE))
                if not data:
                    raise Unreachable(f"{spelled('GET', self._url)}: unexpected EOF", connected=True)
                count -= len(data)

    def _let_go(self, *, whole: bool) -> None:
        response, self._response = self._response, None
        if response is not None:
            (response.release_conn if whole else response.close)()
