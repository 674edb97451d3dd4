"""Detach keys: ``ctrl-p,ctrl-q`` and its like, as the bytes a terminal sends for them."""

from __future__ import annotations

from dockp.spi.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"


def parse_detach_keys(text: str) -> list[int]:
    """Byte values for a comma-separated sequence of single characters and ``ctrl-<letter, @ [ \\ ] ^ or _>``.

    "" is the default. Raises: InvalidArgument naming the key.
    """
    keys = []
    for word in (text or DEFAULT).split(","):
        if len(word) == 1:
            keys.append(ord(word))
            continue
        letter = word.removeprefix("ctrl-").removeprefix("Ctrl-")
        if word[:5].lower() != "ctrl-" or len(letter) != 1 or not (letter.isalpha() or letter in "@[\\]^_"):
            raise InvalidArgument(f"invalid detach keys ({text}) provided: Unknown character: '{word}'")
        keys.append(ord(letter.upper()) - 64)
    return keys
