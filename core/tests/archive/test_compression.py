"""Streams that may be compressed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import io
import lzma
import os
import sys
from collections.abc import Callable

import pytest

from dockp.archive.compression import Digesting, detect, open_stream
from dockp.spi.errors import InvalidArgument, Unavailable

DATA = os.urandom(300_000) + bytes(300_000)


def zstd(data: bytes) -> bytes:
    compressed: bytes = importlib.import_module("zstandard").ZstdCompressor(write_checksum=True).compress(data)
    return compressed


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}


class Dribble(io.RawIOBase):
    """A stream that gives a byte or a few at a time, as sockets do."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, 977) if self._inner.tell() else 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [io.BytesIO, Dribble])
def test_every_compression_is_told_by_its_first_bytes(kind: str, stream: Callable[[bytes], io.BytesIO]) -> None:
    compressed = KINDS[kind](DATA)
    assert detect(compressed[:6]) == kind
    assert open_stream(stream(compressed)).read() == DATA


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_streams_joined_end_to_end_are_one(kind: str) -> None:
    assert open_stream(io.BytesIO(KINDS[kind](b"one") + KINDS[kind](b"two"))).read() == b"onetwo"


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_stream_is_refused_in_one_line(kind: str, damage: str) -> None:
    compressed = bytearray(KINDS[kind](DATA))
    if damage == "cut":
        del compressed[len(compressed) // 2 :]
    else:
        compressed[len(compressed) // 2] ^= 0xFF
    with pytest.raises(InvalidArgument, match=f"the {kind} stream is corrupt or cut short"):
        open_stream(io.BytesIO(bytes(compressed))).read()


def test_without_its_package_zstd_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(Unavailable, match="zstandard"):
        open_stream(io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(20)))


def test_short_and_empty_streams_are_plain() -> None:
    assert open_stream(io.BytesIO(b"")).read() == b""
    assert open_stream(io.BytesIO(b"\x1f")).read() == b"\x1f"


def test_size_and_digest_are_those_of_the_bytes_that_went_by() -> None:
    compressed = gzip.compress(DATA)
    outer = Digesting(io.BytesIO(compressed))
    inner = Digesting(open_stream(outer))  # type: ignore[arg-type]
    assert inner.read(10) == DATA[:10]
    assert inner.size == 10
    inner.drain()
    outer.drain()
    assert (inner.size, inner.digest) == (len(DATA), f"sha256:{hashlib.sha256(DATA).hexdigest()}")
    assert (outer.size, outer.digest) == (len(compressed), f"sha256:{hashlib.sha256(compressed).hexdigest()}")


def test_the_disks_own_errors_pass_through() -> None:
    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self._start = gzip.compress(DATA)[:1000]

        def read(self, size: int = -1) -> bytes:
            if not self._start:
                raise OSError(5, "Input/output error")
            part, self._start = self._start[:size], self._start[size:]
            return part

    with pytest.raises(OSError, match="Input/output"):
        open_stream(Broken()).read()  # type: ignore[arg-type]
