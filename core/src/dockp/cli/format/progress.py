"""Progress of several things at once, one line each: layers of a pull, steps of an import.

In a terminal the lines are redrawn in place; elsewhere each change of status is printed once, without the
numbers in between, so that a log stays readable::

    with Progress(sys.stderr) as progress:
        progress.update("4abcf2066143", "Downloading", 1_200_000, 3_400_000)
        progress.update("4abcf2066143", "Pull complete")
"""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import TextIO

from dockp.cli.format.printer import ellipsis
from dockp.units import human_size

_REDRAW_SECONDS = 0.1
_BAR = 50  # places of the bar, as docker draws it
_BAR_FITS = 110  # a narrower terminal gets the numbers only


class Progress:
    """Lines of progress on a stream. May be used by many threads; a context manager, whose end draws the last."""

    def __init__(self, stream: TextIO, *, terminal: bool | None = None) -> None:
        """
        Args: ``stream`` is borrowed, never closed; ``terminal`` whether to redraw in place, by default what
        the stream is.
        """
        self._stream = stream
        self._terminal = stream.isatty() if terminal is None else terminal
        self._lock = threading.Lock()
        self._lines: dict[str, str] = {}
        self._statuses: dict[str, str] = {}
        self._changed: set[str] = set()
        self._drawn = 0  # lines on the screen now; the cursor stands below the last
        self._next_draw = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def update(self, key: str, status: str, current: int | None = None, total: int | None = None) -> None:
        """Set the line of ``key``: its status and, in bytes, how far it is (``total`` where it is known)."""
        with self._lock:
            if not self._terminal:
                if self._statuses.get(key) != status:
                    self._statuses[key] = status
                    self._stream.write(f"{key}: {status}\n" if key else f"{status}\n")
                    self._stream.flush()
                return
            numbers = _numbers(current, total, self._size()[0] >= _BAR_FITS)
            prefix = f"{key}: " if key else ""
            line = f"{prefix}{status} {numbers}" if numbers else f"{prefix}{status}"
            if self._lines.get(key) == line:
                return
            self._lines[key] = line
            self._changed.add(key)
            # A new status shows at once, mere numbers only now and then: drawing must not slow the work.
            now = time.monotonic()
            if now >= self._next_draw or self._statuses.get(key) != status:
                self._draw()
                self._next_draw = now + _REDRAW_SECONDS
            self._statuses[key] = status

    def say(self, line: str) -> None:
        """Print a line that stays; what comes later has lines of its own below."""
        with self._lock:
            if self._changed:
                self._draw()
            self._stream.write(f"{line}\n")
            self._stream.flush()
            self._lines.clear()
            self._statuses.clear()
            self._drawn = 0

    def flush(self) -> None:
        """Draw what has not been drawn yet."""
        with self._lock:
            if self._changed:
                self._draw()

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError, AttributeError):
            return 80, 24
        # A terminal that does not know its size says 0.
        return size.columns or 80, size.lines or 24

    def _draw(self) -> None:
        columns, rows = self._size()
        out: list[str] = []
        for number, (key, line) in enumerate(self._lines.items()):
            up = self._drawn - number
            if up <= 0:
                # A line that wraps would spoil the count of lines, so every line is cut to the terminal.
                out.append(ellipsis(line, columns - 1) + "\n")
                self._drawn += 1
            elif key in self._changed and up < rows:  # what has scrolled away cannot be reached any more
                out.append(f"\x1b[{up}A\x1b[2K\r{ellipsis(line, columns - 1)}\x1b[{up}B\r")
        self._changed.clear()
        self._stream.write("".join(out))
        self._stream.flush()


def _numbers(current: int | None, total: int | None, bar: bool) -> str:
    if current is None:
        return ""
    if not total or current > total:
        return human_size(current, 4)
    counts = f"{human_size(current, 4)}/{human_size(total, 4)}"
    if not bar:
        return counts
    done = _BAR * current // total
    arrow = ("=" * done + ">") if done < _BAR else "=" * _BAR + ">"
    return f"[{arrow:<{_BAR + 1}}] {counts}"
