"""Finds the detach keys in what is typed."""

from __future__ import annotations


class KeyWatch:
    """Looks at input on its way. Keys that may be the beginning of the sequence are held back until it is known."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._due = b""
        self.seen = False

    def offer(self, data: bytes) -> bytes:
        """What may go out now, held keys first. Sets ``seen`` when the sequence is complete; nothing after it goes."""
        everything = self._due + data
        position = everything.find(self._keys) if self._keys else -1
        if position >= 0:
            self.seen = True
            return everything[:position]
        return everything[: len(everything) - self._partial(everything)]

    def sent(self, data: bytes, count: int) -> int:
        """Tell that ``count`` bytes of what `offer` gave for ``data`` went out: how much of ``data`` is dealt with."""
        everything = self._due + data
        if count < len(everything) - self._partial(everything):
            done = max(count - len(self._due), 0)
            self._due = self._due[count:]
            return done
        self._due = everything[count:]
        return len(data)

    def _partial(self, data: bytes) -> int:
        """How many bytes at the end may begin the sequence."""
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                return length
        return 0
