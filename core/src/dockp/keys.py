"""Detach keys: ``ctrl-p,ctrl-q`` and its like, as the bytes a terminal sends for them."""

from __future__ import annotations

from dockp.spi.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_CONTROLS = frozenset("@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_")


def parse_detach_keys(text: str) -> bytes:
    """Byte values for a comma-separated sequence of single characters and ``ctrl-<letter, @ [ \\ ] ^ or _>``.

    "" is the default. Raises: InvalidArgument naming the key.
    """
    keys = []
    for word in (text or DEFAULT).split(","):
        if len(word) == 1 and word.isascii():
            keys.append(ord(word))
        elif word[:5].lower() == "ctrl-" and word[5:].upper() in _CONTROLS:
            keys.append(ord(word[5:].upper()) - 64)
        else:
            raise InvalidArgument(f"invalid detach keys ({text}) provided: Unknown character: '{word}'")
    return bytes(keys)
