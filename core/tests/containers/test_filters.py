"""Filters of ``ps`` that take patterns and numbers, with what people mistype."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dockp.containers.describe import matches
from dockp.spi.errors import InvalidArgument


def passes(key: str, value: str) -> bool:
    container = SimpleNamespace(
        id="c" * 64,
        name="web-1",
        request=SimpleNamespace(config=SimpleNamespace(exposed_ports={"80/tcp": {}, "53/udp": {}})),
    )
    ports = {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}
    context = SimpleNamespace(networks=SimpleNamespace(ports_document=lambda _: ports))
    return matches(cast(Any, context), cast(Any, container), {key: [value]})


@pytest.mark.parametrize(("value", "expected"), [("web", True), ("^/web-1$", True), ("^eb", False), ("[", False)])
def test_a_name_is_a_pattern_and_what_is_none_matches_nothing(value: str, expected: bool) -> None:
    assert passes("name", value) is expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("expose", "80", True),
        ("expose", "80/udp", False),
        ("expose", "50-60/udp", True),
        ("publish", "8000-9000", True),
        ("publish", "80", False),
    ],
)
def test_ports_are_numbers_or_ranges(key: str, value: str, expected: bool) -> None:
    assert passes(key, value) is expected


@pytest.mark.parametrize("value", ["http", "", "9-1", "99999"])
def test_what_is_no_port_is_refused_with_the_filter(value: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        passes("publish", value)
    assert str(refused.value).startswith(f"invalid filter 'publish={value}': ")
