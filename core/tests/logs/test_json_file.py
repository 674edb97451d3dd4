"""The json-file log: Docker's records byte for byte, bounded files, and reading that misses nothing."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dockp
from dockp.logs.json_file import JsonFileLog, parse_time
from dockp.logs.json_file_writer import Writer, escape
from dockp.logs.none import NoLog
from dockp.spi.errors import InvalidArgument, NotImplemented

NS = 1_000_000_000
BASE = 1_767_225_600 * NS  # 2026-01-01T00:00:00Z


def writer(path, info=None, **options):
    named = {name.replace("_", "-"): str(value) for name, value in options.items()}
    return Writer(str(path), {"max-size": "-1", "max-file": "1", **named}, info or {})


def read(path, **options):
    entries = JsonFileLog.read(str(path), {}, **{"follow": None, **options})
    return [entry.data for entry in entries]


# --- the format. The expected bytes were compared with what dockerd 20.10 wrote for the same output.


@pytest.mark.parametrize(
    ("data", "log"),
    [
        (b"plain", rb"plain\n"),
        (b'quote " backslash \\ slash /', rb"quote \" backslash \\ slash /\n"),
        (b"<a href=x>&amp;</a>", rb"\u003ca href=x\u003e\u0026amp;\u003c/a\u003e\n"),
        (b"tab\tcr\rbell\x07esc\x1b[0m\x00", rb"tab\u0009cr\rbell\u0007esc\u001b[0m\u0000\n"),
        ("grüße \u2028\u2029 😀".encode(), "grüße \\u2028\\u2029 😀\\n".encode()),
        (b"bad \xff\xfe \xc3( \xe2\x82 \xed\xa0\x80.", rb"bad \ufffd\ufffd \ufffd( \ufffd\ufffd \ufffd\ufffd\ufffd.\n"),
        (b"\xef\xbf\xbd", b"\xef\xbf\xbd\\n"),
        (b"\x7f", b"\x7f\\n"),
        (b"", rb"\n"),
    ],
)
def test_records_are_dockers_byte_for_byte(tmp_path, data, log):
    expected = b'{"log":"%b","stream":"stdout","time":"2026-01-01T00:00:00.123456789Z"}\n' % log
    for name, write in (
        ("line", lambda w: w.write("stdout", BASE + 123456789, data, False)),
        ("block", lambda w: w.write_block("stdout", BASE + 123456789, data + b"\n")),
    ):
        out = writer(tmp_path / name)
        write(out)
        out.close()
        assert (tmp_path / name).read_bytes() == expected


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "00Z"), (500_000_000, "00.5Z"), (1, "00.000000001Z"), (120, "00.00000012Z"), (59 * NS, "59Z")],
)
def test_times_have_no_trailing_zeros(tmp_path, nanoseconds, text):
    out = writer(tmp_path / "log")
    out.write("stderr", BASE + nanoseconds, b"x", False)
    out.close()
    assert json.loads((tmp_path / "log").read_text())["time"] == "2026-01-01T00:00:" + text
    assert parse_time("2026-01-01T00:00:" + text) == BASE + nanoseconds


def test_other_zones_are_understood():
    assert parse_time("2026-01-01T02:00:00.5+02:00") == BASE + NS // 2
    assert parse_time("2025-12-31T19:00:00-05:00") == BASE


def test_a_piece_of_a_line_has_no_newline(tmp_path):
    out = writer(tmp_path / "log")
    out.write("stdout", BASE, b"piece", True)
    out.write("stdout", BASE, b"end", False)
    out.close()
    assert [json.loads(line)["log"] for line in (tmp_path / "log").read_text().splitlines()] == ["piece", "end\n"]


def test_attributes_come_between_stream_and_time_in_order(tmp_path):
    info = {
        "id": "0123456789abcdef",
        "name": "/web",
        "image": "busybox",
        "image_id": "sha256:feedfacecafebeef",
        "labels": {"team": "<a>", "zone": "b", "other": "c"},
        "env": ["LANG=de", "SECRET=x", "X_1=1"],
    }
    out = writer(
        tmp_path / "log", info, labels="team,missing", labels_regex="^zo", env="LANG", env_regex="^X_",
        tag="{{.Name}}/{{.ID}}/{{.ImageID}}",
    )  # fmt: skip
    out.write("stdout", BASE, b"x", False)
    out.close()
    assert (tmp_path / "log").read_bytes() == (
        b'{"log":"x\\n","stream":"stdout","attrs":{"LANG":"de","X_1":"1","tag":"web/0123456789ab/feedfacecafe",'
        b'"team":"\\u003ca\\u003e","zone":"b"},"time":"2026-01-01T00:00:00Z"}\n'
    )


def test_every_byte_string_makes_valid_json():
    for code in range(256):
        for data in (bytes([code]), bytes([code, 0x80]), b"\xe2" + bytes([code]), b"\xf0\x9f" + bytes([code, 0x41])):
            json.loads(b'"' + escape(data).replace(b"\n", b"\\n") + b'"')


# --- rotation


def numbered(first, last):
    return b"".join(b"line %06d\n" % number for number in range(first, last))


def test_files_are_bounded_in_size_and_number(tmp_path):
    path = tmp_path / "log"
    out = writer(path, max_size=1000, max_file=3)
    for number in range(200):
        out.write("stdout", BASE + number, b"line %06d" % number, False)
        out.flush()
    out.write_block("stdout", BASE + 300, numbered(200, 300))
    out.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    for name in os.listdir(tmp_path):
        assert (tmp_path / name).stat().st_size < 1000 + 100
    lines = read(path)
    assert lines == numbered(300 - len(lines), 300).splitlines(keepends=True)
    assert len(lines) > 20


def test_a_single_file_is_emptied(tmp_path):
    path = tmp_path / "log"
    out = writer(path, max_size=500, max_file=1)
    for number in range(100):
        out.write("stdout", BASE + number, b"line %06d" % number, False)
    out.close()
    assert os.listdir(tmp_path) == ["log"]
    assert read(path)[-1] == b"line 000099\n"


def test_rotated_files_are_compressed_and_still_read(tmp_path):
    path = tmp_path / "log"
    out = writer(path, max_size=2000, max_file=4, compress="true")
    for number in range(150):
        out.write("stdout", BASE + number, b"line %06d" % number, False)
        out.flush()
        time.sleep(0.002)
    out.close()
    deadline = time.monotonic() + 10
    while {"log.1", "log.2", "log.3"} & set(os.listdir(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2.gz", "log.3.gz"]
    assert gzip.decompress((tmp_path / "log.1.gz").read_bytes())[:9] == b'{"log":"l'
    lines = read(path)
    assert lines == numbered(150 - len(lines), 150).splitlines(keepends=True)
    assert read(path, tail=40) == numbered(110, 150).splitlines(keepends=True)


def test_a_record_cut_by_a_crash_is_taken_away(tmp_path):
    path = tmp_path / "log"
    out = writer(path)
    out.write("stdout", BASE, b"whole", False)
    out.close()
    with open(path, "ab") as file:
        file.write(b'{"log":"half')
    assert read(path) == [b"whole\n"]
    out = writer(path)
    out.write("stdout", BASE, b"next", False)
    out.close()
    assert read(path) == [b"whole\n", b"next\n"]


def test_a_full_disk_loses_records_and_says_how_many(tmp_path):
    """On a file system of its own, in a mount namespace of its own."""
    source = str(Path(dockp.__file__).resolve().parent.parent)
    script = f"""
import sys, os
sys.path.insert(0, {source!r})
from dockp.linux import mounts, namespaces
namespaces.unshare(namespaces.CLONE_NEWNS)
mounts.set_propagation("/", "rprivate")
mounts.mount("none", {str(tmp_path)!r}, "tmpfs", 0, "size=65536")
from dockp.logs.json_file_writer import Writer
out = Writer({str(tmp_path / "log")!r}, {{"max-size": "-1"}}, {{}})
for number in range(1000):
    out.write("stdout", {BASE} + number, b"line %06d" % number, False)
    out.flush()
kept = open({str(tmp_path / "log")!r}, "rb").read()
assert kept.endswith(b"\\n")
os.truncate({str(tmp_path / "log")!r}, 0)
out._size = 0
out.write("stdout", {BASE}, b"room again", False)
out.close()
after = open({str(tmp_path / "log")!r}).read().splitlines()
import json
print(kept.count(b"\\n"), *(json.loads(line)["log"] for line in after), sep="|", end="")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kept, note, line = done.stdout.replace("\n", "").split("|")
    assert 0 < int(kept) < 1000
    assert note == f"dockp: {1000 - int(kept)} log records were lost: no space left on device"
    assert line == "room again"


# --- reading


def fill(path, count, **options):
    out = writer(path, **options)
    for number in range(count):
        out.write("stdout" if number % 2 else "stderr", BASE + number * NS, b"line %06d" % number, False)
    out.close()
    return [b"line %06d\n" % number for number in range(count)]


def test_tail_counts_from_the_end_over_all_files(tmp_path):
    lines = fill(tmp_path / "log", 3000, max_size=30_000, max_file=20)
    assert len(os.listdir(tmp_path)) > 5
    for tail in (0, 1, 2, 299, 1000, 2999, 3000, 5000):
        assert read(tmp_path / "log", tail=tail) == lines[len(lines) - min(tail, len(lines)) :]


def test_since_and_until_choose_by_time(tmp_path):
    lines = fill(tmp_path / "log", 5000, max_size=100_000, max_file=20)
    path = tmp_path / "log"
    for since, until in ((0, 10), (17, 0), (2500, 2500), (4999, 0), (5000, 0), (1234, 4321)):
        expected = lines[since : until + 1] if until else lines[since:]
        assert read(path, since=BASE + since * NS, until=BASE + until * NS if until else 0) == expected
    assert read(path, since=BASE + 4990 * NS, tail=3) == lines[-3:]


def test_a_log_that_does_not_exist_is_empty(tmp_path):
    assert read(tmp_path / "log") == []
    assert read(tmp_path / "log", tail=3) == []


def test_lines_that_are_no_records_are_skipped(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(
        b'junk\n{"log":1}\n{"log":"ok\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n[]\n\n{"log":"cu'
    )
    assert read(path) == [b"ok\n"]
    assert read(path, tail=3) == [b"ok\n"]


@pytest.mark.parametrize(
    "options", [{"max_file": 1}, {"max_size": 3000, "max_file": 3}, {"max_size": 700, "max_file": 5}]
)
def test_following_misses_and_repeats_nothing_across_rotations(tmp_path, options):
    path = tmp_path / "log"
    count = 400
    alive = threading.Event()
    alive.set()
    seen = []

    def follow():
        for entry in JsonFileLog.read(str(path), {}, follow=alive.is_set):
            seen.append(entry.data)

    fill(path, 5, **options)
    thread = threading.Thread(target=follow)
    thread.start()
    out = writer(path, **options)
    for number in range(5, count):
        out.write("stdout", BASE + number * NS, b"line %06d" % number, False)
        out.flush()
        time.sleep(0.001)
    out.close()
    alive.clear()
    thread.join(10)
    assert not thread.is_alive()
    assert seen == [b"line %06d\n" % number for number in range(count)]


def test_following_waits_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "log"
    alive = threading.Event()
    alive.set()
    seen = []
    thread = threading.Thread(
        target=lambda: seen.extend(entry.data for entry in JsonFileLog.read(str(path), {}, follow=alive.is_set))
    )
    thread.start()
    with open(path, "ab", buffering=0) as file:
        file.write(b'{"log":"ab')
        time.sleep(0.1)
        file.write(b'c\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n')
    alive.clear()
    thread.join(10)
    assert seen == [b"abc\n"]


def test_following_ends_at_until(tmp_path):
    fill(tmp_path / "log", 10)
    began = time.monotonic()
    assert len(read(tmp_path / "log", follow=lambda: True, until=BASE + 4 * NS)) == 5
    assert time.monotonic() - began < 2


def test_the_tail_of_a_big_log_is_found_quickly(tmp_path):
    path = tmp_path / "log"
    out = writer(path)
    block = numbered(0, 1000)
    for number in range(300):
        out.write_block("stdout", BASE + number * NS, block)
    out.close()
    began = time.monotonic()
    assert len(read(path, tail=5)) == 5
    assert len(read(path, since=BASE + 299 * NS)) == 1000
    assert time.monotonic() - began < 0.5


# --- options


def test_a_log_is_bounded_unless_asked_otherwise():
    assert JsonFileLog.validate({}) == {"max-size": "100000000", "max-file": "3", "compress": "false"}
    assert JsonFileLog.validate({"max-size": "-1"})["max-size"] == "-1"
    assert JsonFileLog.validate({"max-size": "10m", "max-file": "5"})["max-size"] == "10000000"
    assert JsonFileLog.validate({"max-size": "1.5KB"})["max-size"] == "1500"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max-syze": "1"}, "unknown log opt 'max-syze' for json-file log driver"),
        ({"max-size": "lots"}, "invalid max-size"),
        ({"max-size": "0"}, "invalid max-size"),
        ({"max-file": "0"}, "max-file cannot be less than 1"),
        ({"max-file": "x"}, "max-file cannot be less than 1"),
        ({"max-size": "-1", "max-file": "2"}, "max-file cannot be used without max-size"),
        ({"compress": "perhaps"}, "invalid value for compress"),
        ({"compress": "true", "max-file": "1"}, "compress cannot be true when max-file is less than 2"),
        ({"env-regex": "("}, "invalid env-regex"),
        ({"tag": "{{.Nonsense}}"}, "unknown field .Nonsense in the log tag"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(InvalidArgument, match=text):
        JsonFileLog.validate(options)


def test_the_none_driver_keeps_nothing_and_says_so():
    assert NoLog.validate({}) == {}
    with pytest.raises(InvalidArgument, match="unknown log opt 'max-size' for none log driver"):
        NoLog.validate({"max-size": "1m"})
    with pytest.raises(NotImplemented, match="configured logging driver does not support reading"):
        NoLog.read("", {}, follow=None)
