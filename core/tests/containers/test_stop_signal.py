"""Signals by name and number, as ``--stop-signal`` and ``kill -s`` take them."""

from __future__ import annotations

import pytest

from dockp.containers import signals
from dockp.spi.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 15),
        ("9", 9),
        ("64", 64),
        ("KILL", 9),
        ("sigterm", 15),
        ("Usr1", 10),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmax-14", 50),
        ("SIGRTMAX", 64),
    ],
)
def test_dockers_names_and_numbers_are_understood(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text", ["0", "65", "-9", "²", "TERMINATE", "SIG", "RTMIN+16", "RTMIN+x", "RTMAX+1", "RTMAX-15"]
)
def test_what_is_no_signal_is_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        signals.number(text)
    assert str(refused.value) == f"Invalid signal: {text}"
