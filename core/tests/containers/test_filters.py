"""Filters of ``ps`` that take patterns and numbers, with what people mistype."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dockp.containers.describe import check_filters, matches
from dockp.containers.states import State
from dockp.spi.errors import InvalidArgument


def passes(key: str, *values: str) -> bool:
    """Of a running container whose port 80 is published as 8080, and 53/udp only exposed."""
    exposed = {"80/tcp": {}, "53/udp": {}}
    container = SimpleNamespace(
        id="c" * 64,
        name="web-1",
        task=SimpleNamespace(state=State.RUNNING),
        request=SimpleNamespace(config=SimpleNamespace(exposed_ports=exposed, labels={"a": "b", "c": ""})),
    )
    ports = {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    context = SimpleNamespace(networks=SimpleNamespace(ports_document=lambda _: ports))
    return matches(cast(Any, context), cast(Any, container), {key: [*values]})


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


def test_labels_must_all_be_there_and_names_are_alternatives() -> None:
    assert passes("label", "a=b", "c")
    assert not passes("label", "a=b", "d")
    assert passes("name", "nothing", "web")


@pytest.mark.parametrize(
    ("key", "value"),
    [("status", "x"), ("health", "x"), ("exited", "x"), ("is-task", "x"), ("publish", "x"), ("x", "x")],
)
def test_a_filter_that_makes_no_sense_is_refused(key: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{value}"):
        check_filters({key: [value]})


@pytest.mark.parametrize("value", ["http", "", "9-1", "99999"])
def test_what_is_no_port_is_refused_with_the_filter(value: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        passes("publish", value)
    assert str(refused.value).startswith(f"invalid filter 'publish={value}': ")
