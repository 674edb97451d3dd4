"""Sizes, durations and times read and print as in Docker and Go (cases as in go-units and Go's time package)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockp import units
from dockp.spi.errors import InvalidArgument

KIB, MIB, GIB, TIB = (1024**power for power in (1, 2, 3, 4))
MINUTE, HOUR, DAY = 60, 3600, 86400
WEEK, MONTH, YEAR = 7 * DAY, 30 * DAY, 365 * DAY


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0B"),
        (10, "10B"),
        (1000, "1kB"),
        (1024, "1.024kB"),
        (7500, "7.5kB"),
        (1_000_000, "1MB"),
        (1_048_576, "1.049MB"),
        (1_240_000, "1.24MB"),
        (3.42e9, "3.42GB"),
        (5.372e12, "5.372TB"),
        (2.22e15, "2.22PB"),
        (1e28, "1e+04YB"),
    ],
)
def test_sizes_print_with_decimal_units(size: float, expected: str) -> None:
    assert units.human_size(size) == expected


def test_sizes_print_with_three_digits_in_listings() -> None:
    assert units.human_size(116_553_088, 3) == "117MB"
    assert units.human_size(4_261_550, 3) == "4.26MB"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (KIB, "1KiB"),
        (MIB, "1MiB"),
        (1.5 * GIB, "1.5GiB"),
        (3.42 * GIB, "3.42GiB"),
        (5.372 * TIB, "5.372TiB"),
        (KIB**7, "1ZiB"),
    ],
)
def test_sizes_print_with_binary_units(size: float, expected: str) -> None:
    assert units.bytes_size(size) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("32", 32),
        ("32b", 32),
        ("32B", 32),
        ("0 ", 0),
        ("-0b", 0),
        ("32. b", 32),
        ("32.3", 32),
        ("32k", 32 * KIB),
        ("32Kb", 32 * KIB),
        ("32KIB", 32 * KIB),
        ("512m", 512 * MIB),
        ("32.3 mb", int(32.3 * MIB)),
        (".3MB", int(0.3 * MIB)),
        ("1g", GIB),
        ("1.5GiB", 3 * GIB // 2),
        ("32Tb", 32 * TIB),
        ("1P", 1024 * TIB),
    ],
)
def test_memory_sizes_are_read(text: str, expected: int) -> None:
    assert units.parse_size(text) == expected


def test_disk_sizes_are_read_with_base_1000() -> None:
    assert units.parse_size("32.5 kB", base=1000) == 32_500
    assert units.parse_size("0.3 K", base=1000) == 300


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        " 0",
        "hello",
        "x",
        "-32",
        "-1",
        "0b ",
        "32  b",
        " 32 ",
        "32b.",
        "32m b",
        "1e",
        "٣m",
        "9" * 400 + "p",
    ],
)
def test_a_malformed_size_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid (size|suffix): '"):
        units.parse_size(text)


def test_the_wording_of_a_malformed_size_is_docker_s() -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid size: 'x'$"):
        units.parse_size("x")
    for text, suffix in (("32bm", "bm"), ("32 bb", "bb"), ("5Xb", "xb"), ("1kibi", "kibi")):
        with pytest.raises(InvalidArgument, match=rf"^invalid suffix: '{suffix}'$"):
            units.parse_size(text)


@given(st.text(max_size=12))
def test_reading_anything_gives_a_value_or_an_invalid_argument(text: str) -> None:
    for read in (units.parse_size, units.parse_duration, units.parse_time):
        with suppress(InvalidArgument):
            assert isinstance(read(text), int)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.45, "Less than a second"),
        (1, "1 second"),
        (45, "45 seconds"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (3 * MINUTE, "3 minutes"),
        (35 * MINUTE + 40, "35 minutes"),
        (59 * MINUTE, "59 minutes"),
        (HOUR, "About an hour"),
        (HOUR + 29 * MINUTE, "About an hour"),
        (HOUR + 31 * MINUTE, "2 hours"),
        (3 * HOUR + 29 * MINUTE, "3 hours"),
        (DAY, "24 hours"),
        (DAY + 12 * HOUR, "36 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY + 5 * HOUR, "13 days"),
        (2 * WEEK, "2 weeks"),
        (3 * WEEK, "3 weeks"),
        (MONTH + 2 * WEEK, "6 weeks"),
        (2 * MONTH, "2 months"),
        (24 * MONTH, "24 months"),
        (24 * MONTH + 2 * WEEK, "2 years"),
        (3 * YEAR + 2 * MONTH, "3 years"),
    ],
)
def test_durations_print_as_people_say_them(seconds: float, expected: str) -> None:
    assert units.human_duration(seconds) == expected


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("5s", 5 * units.SECOND),
        ("1h30m", 5400 * units.SECOND),
        ("1.5s", 1_500_000_000),
        ("100ms", 100_000_000),
        ("-1m", -60 * units.SECOND),
        (".5s", 500_000_000),
        ("5.s", 5 * units.SECOND),
        ("1.0000000001s", units.SECOND),
        ("10us", 10_000),
        ("10\u00b5s", 10_000),
        ("10\u03bcs", 10_000),
        ("3ns", 3),
        ("1h2m3s4ms5us6ns", 3_723_004_005_006),
    ],
)
def test_durations_are_read(text: str, nanoseconds: int) -> None:
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("x", 'time: invalid duration "x"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("5", 'time: missing unit in duration "5"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("1h 5m", 'time: unknown unit "h " in duration "1h 5m"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
    ],
)
def test_a_malformed_duration_is_refused_in_go_s_words(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        units.parse_duration(text)
    assert str(caught.value) == message


@pytest.fixture
def zone_of_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.get("TZ")
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.setenv("TZ", before) if before is not None else monkeypatch.delenv("TZ")
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2006-01-02T15:04:05Z", 1136214245_000000000),
        ("2006-01-02T15:04:05.999999999Z", 1136214245_999999999),
        ("2006-01-02T15:04:05.5+07:00", 1136189045_500000000),
        ("2006-01-02T15:04:05-07:00", 1136239445_000000000),
        ("2006-01-02T15:04:05", 1136210645_000000000),
        ("2006-01-02T15:04", 1136210640_000000000),
        ("2006-01-02T15", 1136210400_000000000),
        ("2006-01-02", 1136156400_000000000),
        ("2006-01-02Z", 1136160000_000000000),
        ("2006-07-02T15:04:05", 1151845445_000000000),
        ("1136073600", 1136073600_000000000),
        ("1136073600.000000001", 1136073600_000000001),
        ("1136073600.5", 1136073600_500000000),
        ("10m", 1_400_000_000_000 - 600 * units.SECOND),
        ("-10m", 1_400_000_000_000 + 600 * units.SECOND),
    ],
)
@pytest.mark.usefixtures("zone_of_berlin")
def test_points_in_time_are_read(text: str, expected: int) -> None:
    assert units.parse_time(text, now=1_400_000_000_000) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2006-13-01", "2006-02-30", "2006-01-02T25:00", "2006-01-02T15:04:05+99:00", "0000-01-01"]
)
def test_a_malformed_time_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^invalid time"):
        units.parse_time(text)


@pytest.mark.usefixtures("zone_of_berlin")
def test_creation_times_print_in_local_time() -> None:
    assert units.format_created_at(1151845445_000000000) == "2006-07-02 15:04:05 +0200 CEST"


def test_ago_counts_from_now() -> None:
    assert units.format_ago(0, now=300 * units.SECOND) == "5 minutes ago"
