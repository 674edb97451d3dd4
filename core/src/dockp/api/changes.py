"""Waking those who wait for files to grow: one inotify instance for everybody, since a host has few of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from dockp.linux.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify


class Changes:
    """Tells of changes in directories. Used from one event loop; begins with the first that is watched."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._watched: dict[int, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, directory: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever a file in ``directory`` has been made or written. Raises: OSError."""
        if self._inotify is None:
            self._inotify = Inotify()
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._read)
        event = asyncio.Event()
        number = self._inotify.add(directory, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE)
        waiting = self._watched.setdefault(number, set())
        waiting.add(event)
        try:
            yield event
        finally:
            waiting.discard(event)
            if not waiting and self._watched.get(number) is waiting:
                del self._watched[number]
                with contextlib.suppress(OSError):  # the directory is gone, and the watch with it
                    self._inotify.remove(number)

    def _read(self) -> None:
        assert self._inotify is not None
        for number, _, _ in self._inotify.read():
            for event in self._watched.get(number, ()):
                event.set()
