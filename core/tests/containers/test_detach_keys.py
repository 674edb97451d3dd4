"""Detach keys, as ``--detach-keys`` takes them."""

from __future__ import annotations

import pytest

from dockp.keys import parse_detach_keys
from dockp.spi.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-a,d", b"\x01d"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\0\x1b\x1c\x1d\x1e\x1f"),
    ],
)
def test_letters_and_control_letters_are_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("word", ["é", "€", "ctrl-é", "ctrl-ß", "ctrl-", "ctrl-ab", "ctrl-1", "shift-a", "a,,b"])
def test_what_is_no_key_is_refused_by_name(word: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid detach keys"):
        parse_detach_keys(word)
