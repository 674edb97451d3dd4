"""Reading and following the event log that engines and shims append to (`dockp.shim.eventlog`)."""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dockp.linux.jsonlite import loads
from dockp.linux.locks import lock_whole
from dockp.shim import eventlog

Event = dict[str, Any]
"""Docker's ``EventMessage``: Type, Action, Actor (ID, Attributes), scope, time, timeNano."""

_WITH_STATUS = ("container", "image")
"""Types whose events still carry the fields of old: status, id, from."""

_READ = 1 << 16


class EventLog:
    """The events of every engine and shim on one exec root. Any number of processes and threads append and read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def emit(self, kind: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None) -> None:
        """Tell that something happened now: ``emit("volume", "create", "data", {"driver": "local"})``. Never raises."""
        eventlog.append(self.path, kind, action, actor_id, attributes or {})

    def follower(self, *, past: bool = False, watched: bool = True) -> Follower:
        """A place in the log from which to read on; to be closed."""
        return Follower(self.path, past=past, watched=watched)

    def past(self) -> Iterator[Event]:
        """What is in the log now, oldest first: the newest few thousand events since boot."""
        with self.follower(past=True) as follower:
            yield from follower.read()

    def stream(
        self,
        *,
        since: int | None = None,
        until: int | None = None,
        wanted: Callable[[Event], bool] = lambda event: True,
        watched: bool = True,
    ) -> EventStream:
        """Events as they happen, beginning now. With ``since`` or ``until`` those of the past come first.

        Args: since, until: nanoseconds since the epoch. watched: False for who watches the log for many streams and
            calls `EventStream.take`.
        """
        follower = self.follower(past=since is not None or until is not None, watched=watched)
        return EventStream(follower, since or 0, until, wanted)


class EventStream:
    """An iterator over events, which waits for the next. `close`, from any thread, ends it."""

    def __init__(self, follower: Follower, since: int, until: int | None, wanted: Callable[[Event], bool]) -> None:
        self._follower = follower
        self._wanted = wanted
        self._since = since
        self._until = until
        self._ready: deque[Event] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._closed = False
        self._guard = threading.Lock()  # held while the descriptors are in use

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        with self._guard:
            while not self._ready:
                if self._closed:
                    raise StopIteration
                # Before the rest is read, so that what happened up to then is in it.
                over = self._until is not None and time.time_ns() > self._until
                self._ready.extend(event for event in self._follower.read() if self._due(event))
                if not self._ready:
                    if over:
                        raise StopIteration
                    self._wait()
        return self._ready.popleft()

    def take(self) -> list[Event] | None:
        """Those that are there now, without waiting; None when no more will come."""
        with self._guard:
            if self._closed:
                return None
            over = self._until is not None and time.time_ns() > self._until
            found = [event for event in self._follower.read() if self._due(event)]
        return None if over and not found else found

    def _due(self, event: Event) -> bool:
        moment = event["timeNano"]
        return self._since <= moment and (self._until is None or moment <= self._until) and self._wanted(event)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._follower, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        left = None if self._until is None else max(0.0, (self._until - time.time_ns()) / 1e6) + 1
        poll.poll(left)

    def close(self) -> None:
        """Idempotent."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._wake, 1)
        with self._guard:
            self._ready.clear()
            self._follower.close()
            os.close(self._wake)

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Follower:
    """One reader's place in the log. `read` takes what is new, and never waits; `fileno` is readable when there may be.

    Args: past: begin with the oldest event that is kept, not at the end. watched: False leaves `fileno` and `wait` out;
        inotify instances are few.
    """

    def __init__(self, path: str, *, past: bool, watched: bool = True) -> None:
        from dockp.linux.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify

        self._path = path
        self._held = b""
        self._files: list[int] = []
        self._inotify = Inotify() if watched else None
        try:
            if self._inotify is not None:
                # Watched before it is opened: what comes in between is read anyhow, and once.
                self._inotify.add(os.path.dirname(path), IN_MODIFY | IN_CREATE | IN_MOVED_TO)
            self._open(earlier=past)
            if not past:
                os.lseek(self._files[-1], 0, os.SEEK_END)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        assert self._inotify is not None
        return self._inotify.fileno()

    def wait(self, timeout: float | None) -> None:
        """Until something may have been appended, at most so many seconds."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        poll.poll(None if timeout is None else timeout * 1000 + 1)

    def read(self) -> list[Event]:
        """What was appended since the last call."""
        events: list[Event] = []
        if self._inotify is not None:
            self._inotify.read()
        while True:
            current = self._files[0]
            # Looked at before the rest is read: whoever rotated had the file to himself, so that then is all of it.
            over = len(self._files) > 1 or self._rotated()
            while chunk := os.read(current, _READ):
                self._held += chunk
            events += self._complete()
            if not over:
                return events
            self._held = b""
            if len(self._files) == 1:
                self._open(earlier=True)
            os.close(self._files.pop(0))

    def _complete(self) -> list[Event]:
        """The whole records of what was read. A piece without an end stays, until more shows that it was torn."""
        pieces = self._held.split(eventlog.BEGIN)
        last = pieces[-1]
        if last.endswith(eventlog.END):
            self._held = b""
        else:
            self._held = eventlog.BEGIN + last if len(pieces) > 1 else last
            pieces.pop()
        events = []
        for piece in pieces:
            if piece.endswith(eventlog.END):
                try:
                    events.append(_with_old_fields(loads(piece)))
                except ValueError:
                    continue  # not of ours
        return events

    def _rotated(self) -> bool:
        """Whether there is a newer file than the one that is read."""
        mine = os.fstat(self._files[-1])
        for path in (self._path, self._path + ".1"):
            try:
                return not os.path.samestat(mine, os.stat(path))
            except FileNotFoundError:
                continue  # set aside just now: the next is made by whoever has something to write
        return False

    def _open(self, *, earlier: bool) -> None:
        """Open the current file, and before it, where ``earlier`` asks for that, the one set aside."""
        known = {(status.st_dev, status.st_ino) for status in map(os.fstat, self._files)}
        while True:
            current = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # While the lock is held nothing is renamed, so the two belong together.
                lock_whole(current, fcntl.F_RDLCK)
                try:
                    if not os.path.samestat(os.fstat(current), os.stat(self._path)):
                        os.close(current)
                        continue
                except FileNotFoundError:
                    os.close(current)
                    continue
                if earlier:
                    self._open_earlier(known)
                lock_whole(current, fcntl.F_UNLCK)
            except BaseException:
                os.close(current)
                raise
            self._files.append(current)
            return

    def _open_earlier(self, known: set[tuple[int, int]]) -> None:
        try:
            before = os.open(self._path + ".1", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        status = os.fstat(before)
        if (status.st_dev, status.st_ino) in known:
            os.close(before)
        else:
            self._files.append(before)

    def close(self) -> None:
        """Idempotent."""
        files, self._files = self._files, []
        for descriptor in files:
            os.close(descriptor)
        if self._inotify is not None:
            self._inotify.close()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _with_old_fields(event: Event) -> Event:
    """With the fields that clients of old look at, first as in Docker's documents."""
    if event["Type"] not in _WITH_STATUS:
        return event
    actor = event["Actor"]
    first = {"status": event["Action"], "id": actor["ID"]}
    if event["Type"] == "container" and "image" in actor["Attributes"]:
        first["from"] = actor["Attributes"]["image"]
    return first | event
