"""How output becomes lines."""

from __future__ import annotations

import random

import pytest

from dockp.shim.streams import CHUNK, LogFeed


class Plain:
    """A writer with nothing but the contract's least."""

    def __init__(self):
        self.records = []

    def write(self, stream, time_ns, data, partial):
        self.records.append((stream, data, partial))

    def close(self):
        pass


class Quick(Plain):
    def write_block(self, stream, time_ns, data):
        assert data.endswith(b"\n")
        self.records += [(stream, line, False) for line in data[:-1].split(b"\n")]

    def flush(self):
        pass


def text(records):
    return b"".join(data + (b"" if partial else b"\n") for _, data, partial in records)


@pytest.mark.parametrize("kind", [Plain, Quick])
def test_any_cut_of_the_output_makes_the_same_bytes(kind):
    chance = random.Random(7)
    for _ in range(200):
        data = b"".join(
            bytes(chance.choices(b"ab", k=chance.choice((0, 1, 5, 100, CHUNK - 1, CHUNK, CHUNK + 1)))) + b"\n"
            for _ in range(chance.randrange(6))
        ) + chance.choice((b"", b"tail"))
        writer = kind()
        feed = LogFeed(writer)
        rest = data
        while rest:
            size = chance.choice((1, 10, 1000, CHUNK))
            feed.feed("stdout", rest[:size])
            rest = rest[size:]
        feed.end()
        assert feed.failures == 0
        assert text(writer.records) == data
        assert all(len(record[1]) <= CHUNK for record in writer.records)


def test_a_long_line_is_cut_as_docker_cuts_it():
    writer = Plain()
    feed = LogFeed(writer)
    for piece in (b"x" * CHUNK, b"x" * CHUNK, b"yz\nnext\n"):
        feed.feed("stdout", piece)
    assert [(len(data), partial) for _, data, partial in writer.records] == [
        (CHUNK, True),
        (CHUNK, True),
        (2, False),
        (4, False),
    ]


def test_streams_do_not_mix():
    writer = Plain()
    feed = LogFeed(writer)
    feed.feed("stdout", b"out ")
    feed.feed("stderr", b"err\n")
    feed.feed("stdout", b"more\n")
    assert writer.records == [("stderr", b"err", False), ("stdout", b"out more", False)]


def test_a_writer_that_fails_stops_nothing():
    class Broken(Plain):
        def write(self, *record):
            raise OSError(28, "No space left on device")

    feed = LogFeed(Broken())
    feed.feed("stdout", b"one\n")
    feed.feed("stdout", b"two")
    feed.end()
    feed.close()
    assert feed.failures == 2
