"""The event log: many processes append, many read, none of them waits for another, and no event is lost or torn."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from dockp.events.log import Event, EventLog, EventStream
from dockp.shim import eventlog


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


def actions(events: list[Event]) -> list[str]:
    return [event["Action"] for event in events]


def test_an_event_is_a_docker_document(log: EventLog) -> None:
    before = time.time_ns()
    log.emit("container", "start", "c" * 64, {"name": "web", "image": "nginx"})
    log.emit("volume", "create", "data", {"driver": "local"})
    started, created = log.past()
    assert before <= started.pop("timeNano") <= time.time_ns()
    assert started.pop("time") == before // 1_000_000_000 or before % 1_000_000_000 > 900_000_000
    assert started == {
        "status": "start",
        "id": "c" * 64,
        "from": "nginx",
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "c" * 64, "Attributes": {"image": "nginx", "name": "web"}},
        "scope": "local",
    }
    assert set(created) == {"Type", "Action", "Actor", "scope", "time", "timeNano"}


def test_what_cannot_be_told_stops_nobody(tmp_path: Path) -> None:
    EventLog(tmp_path / "nowhere" / "events").emit("container", "start", "c")


def test_torn_records_are_passed_over(log: EventLog) -> None:
    log.emit("container", "one", "c")
    whole = Path(log.path).read_bytes()
    for cut in range(1, len(whole)):
        with open(log.path, "ab") as file:
            file.write(whole[:cut])
        log.emit("container", f"after {cut}", "c")
    assert actions(list(log.past())) == ["one", *(f"after {cut}" for cut in range(1, len(whole)))]


def test_a_record_that_is_being_written_is_read_once_it_is_whole(log: EventLog) -> None:
    log.emit("container", "one", "c")
    record = Path(log.path).read_bytes()
    with log.follower() as follower, open(log.path, "ab", buffering=0) as file:
        for byte in record:
            assert follower.read() == []
            file.write(bytes([byte]))
        assert actions(follower.read()) == ["one"]


def test_followers_miss_nothing_over_rotations(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "LIMIT", 2000)
    written = []
    with log.follower() as quick, log.follower() as slow:
        seen: list[str] = []
        for number in range(300):
            written.append(str(number))
            log.emit("container", str(number), "c")
            seen += actions(quick.read())
            if number == 10:
                assert actions(slow.read()) == written
        assert seen == written
        # Who sleeps over several rotations misses what is not kept any more, and nothing after that.
        late = actions(slow.read())
        kept = actions(list(log.past()))
        assert kept == written[-len(kept) :]
        assert late[-len(kept) :] == kept
        assert late[: -len(kept)] == written[11:][: len(late) - len(kept)], "the rest of the file it was reading"
        log.emit("container", "last", "c")
        assert actions(slow.read()) == ["last"]
    assert sorted(entry.name for entry in Path(log.path).parent.iterdir()) == ["events", "events.1"]
    assert all(entry.stat().st_size < 3000 for entry in Path(log.path).parent.iterdir())


def test_many_processes_append_and_one_reads_all(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "LIMIT", 1 << 16)
    writers, each = 4, 300
    with log.follower() as follower:
        pids = [_fork(lambda writer=writer: [log.emit("x", f"{writer} {number}", "c") for number in range(each)])
                for writer in range(writers)]  # fmt: skip
        seen: list[str] = []
        deadline = time.monotonic() + 20
        while len(seen) < writers * each and time.monotonic() < deadline:
            follower.wait(0.5)
            seen += actions(follower.read())
        for pid in pids:
            os.waitpid(pid, 0)
    for writer in range(writers):
        assert [text for text in seen if text.startswith(f"{writer} ")] == [f"{writer} {n}" for n in range(each)]


def test_killed_writers_tear_nothing(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "LIMIT", 20_000)
    padding = {"label": "x" * 6000}  # more than a page: the kernel may stop in the middle
    with log.follower() as follower:
        read: list[Event] = []
        for attempt in range(20):

            def scribble(attempt: int = attempt) -> None:
                for number in range(10_000):
                    log.emit("x", f"{attempt} {number}", "c", padding)

            pid = _fork(scribble)
            time.sleep(random.uniform(0.001, 0.01))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            log.emit("x", f"after {attempt}", "c")
            read += follower.read()
    assert [action for action in actions(read) if action.startswith("after")][-1] == "after 19"
    assert all(event["Actor"]["Attributes"] in ({}, padding) for event in read)


def _fork(work: object) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    return pid


def test_a_stream_replays_and_follows_up_to_a_moment(log: EventLog) -> None:
    log.emit("x", "old", "c")
    since = time.time_ns()
    log.emit("x", "past", "c")
    assert actions(list(log.stream(since=since, until=time.time_ns()))) == ["past"]
    assert actions(list(log.stream(until=time.time_ns()))) == ["old", "past"]
    threading.Timer(0.1, log.emit, ("x", "future", "c")).start()
    began = time.monotonic()
    stream = log.stream(since=since, until=time.time_ns() + 400_000_000, wanted=lambda event: event["Action"] != "past")
    assert actions(list(stream)) == ["future"]
    assert 0.35 < time.monotonic() - began < 5


def test_closing_ends_whoever_waits(log: EventLog) -> None:
    stream = log.stream()
    threading.Timer(0.1, stream.close).start()
    assert list(stream) == []
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
    assert isinstance(stream, EventStream)


def test_a_stream_begins_when_it_is_made(log: EventLog) -> None:
    log.emit("x", "before", "c")
    with log.stream() as stream:
        log.emit("x", "after", "c")
        assert next(stream)["Action"] == "after"
