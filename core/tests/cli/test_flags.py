"""The flag parser: Go's rules for numbers and switches, and no input that breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockp.cli.create_flags import COMMON, RUN_ONLY
from dockp.cli.flags import INT, LIST, STRING, SWITCH, Flag, UsageError, go_int, parse
from dockp.cli.readers import csv_fields
from dockp.spi.errors import DockpError

FLAGS = (
    Flag("all", "a", SWITCH, "x"),
    Flag("name", "n", STRING, "x"),
    Flag("item", "i", LIST, "x"),
    Flag("count", "c", INT, "x", default=-1),
    Flag("other-name", "", STRING, "x", alias_of="name"),
)


def test_values_come_in_every_form() -> None:
    values = parse(FLAGS, ["-an", "x", "--item=1", "-i2", "-i=3", "--item", "4", "word", "--count", "-5", "--", "-a"])
    assert (values["all"], values["name"], values["item"], values["count"]) == (True, "x", ["1", "2", "3", "4"], -5)
    assert values.args == ["word", "-a"]
    assert values.given == {"all", "name", "item", "count"}


def test_an_alias_sets_its_flag() -> None:
    values = parse(FLAGS, ["--other-name", "x"])
    assert (values["name"], "other-name" in values) == ("x", False)


def test_lists_are_not_shared_between_parses() -> None:
    parse(FLAGS, ["-i", "1"])
    assert parse(FLAGS, [])["item"] == []


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("-0x10", -16), ("010", 8), ("0b11", 3), ("1_000", 1000), ("+5", 5)]
)
def test_numbers_are_read_as_go_reads_them(text: str, number: int) -> None:
    assert go_int(text) == number


@pytest.mark.parametrize("text", ["", " 1", "1 ", "x", "1.5", "--1", "09", "0x", "١"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        go_int(text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [("a,b", ["a", "b"]), ("", [""]), ("a,", ["a", ""]), ('"a,b",c', ["a,b", "c"]), ('"a""b"', ['a"b'])],
)
def test_fields_are_separated_by_commas(text: str, fields: list[str]) -> None:
    assert csv_fields(text) == fields


WORDS = st.one_of(
    st.sampled_from([f"--{flag.name}" for flag in (*COMMON, *RUN_ONLY)]),
    st.sampled_from([f"-{flag.short}" for flag in (*COMMON, *RUN_ONLY) if flag.short]),
    st.sampled_from(
        ["-it", "--", "-", "=", "--rm=false", "a=b", "1", "1m", "/dev/x:1", "a:b:c", "type=bind,src=/a,dst=/b"]
    ),
    st.text(max_size=12),
)


@given(st.lists(WORDS, max_size=8))
def test_no_arguments_break_the_parser(words: list[str]) -> None:
    from dockp.cli.create_request import build

    try:
        values = parse((*COMMON, *RUN_ONLY), words, interspersed=False)
        if values.args and not values["env-file"] and not values["label-file"]:
            build(values)
    except (UsageError, ValueError, DockpError) as error:
        assert str(error)  # noqa: PT017 - any of them will do, as long as it says something
