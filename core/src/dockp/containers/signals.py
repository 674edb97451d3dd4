"""Signals by name and number, as Docker takes them."""

from __future__ import annotations

import signal

from dockp.spi.errors import InvalidArgument


def number(text: str) -> int:
    """The number of a signal by name or number, SIGTERM for "". Raises InvalidArgument with Docker's words."""
    word = text.upper().strip()
    if not word:
        return int(signal.SIGTERM)
    if word.isdecimal():
        if 1 <= int(word) <= 64:
            return int(word)
        raise InvalidArgument(f"Invalid signal: {text}")
    name = word if word.startswith("SIG") else f"SIG{word}"
    found = _realtime_signals().get(name, 0)
    if not found and name in signal.Signals.__members__:
        found = int(signal.Signals[name])
    if not found:
        raise InvalidArgument(f"Invalid signal: {text}")
    return found


def _realtime_signals() -> dict[str, int]:
    """The names that Docker knows: fifteen up from the first and fourteen down from the last. signal(7)."""
    first, last = int(signal.SIGRTMIN), int(signal.SIGRTMAX)
    names = {"SIGRTMIN": first, "SIGRTMAX": last}
    names.update({f"SIGRTMIN+{n}": first + n for n in range(1, 16)})
    names.update({f"SIGRTMAX-{n}": last - n for n in range(1, 15)})
    return names
