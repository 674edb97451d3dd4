"""Templates render as Go's text/template does.

``go_templates.json`` holds what Go itself printed for each template over one document (decoded as the docker
command decodes it), normally and, as ``strict``, with the option missingkey=error where that differs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockp.cli.format.gojson import to_json
from dockp.cli.format.gotemplate import MissingKey, Template, TemplateError, compile
from dockp.cli.format.govalues import Method, Struct
from dockp.cli.format.printf import sprintf
from dockp.spi.errors import InvalidArgument

GOLDEN = json.loads((Path(__file__).parent / "go_templates.json").read_text())


def outcome(template: str, value: object, missing: MissingKey = "novalue") -> dict[str, str]:
    """What rendering gives, in the form of the golden file."""
    try:
        text = compile(template).render(value, missing=missing)
    except TemplateError as error:
        return {"err": str(error).removeprefix("template parsing error: ")}
    return {"out": text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")}


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["template"])
def test_a_template_prints_or_fails_as_in_go(case: dict[str, Any]) -> None:
    expected = {key: case[key] for key in ("out", "err") if key in case}
    assert outcome(case["template"], GOLDEN["document"]) == expected
    assert outcome(case["template"], GOLDEN["document"], "error") == case.get("strict", expected)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # What the docker command 28 (Go 1.24) prints, where older Go differs.
        ("{{.Name)}}", "template: :1: unexpected right paren"),
        (
            "{{eq .Map .Map}}",
            'template: :1:2: executing "" at <eq .Map .Map>: error calling eq:'
            " non-comparable type map[a:%!s(int=1)]: map[string]interface {}",
        ),
        ("{{range $i, $j := 3}}{{end}}", "can't use 3 to iterate over more than one variable"),
    ],
)
def test_newer_error_messages(template: str, expected: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile(template).render({"Name": "doc", "Map": {"a": 1}})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range $i := 3}}{{$i}}{{else}}none{{end}}", "012"),
        ("{{range 0}}{{.}}{{else}}none{{end}}", "none"),
        ('{{with ""}}a{{else with .Name}}{{.}}{{end}}', "doc"),
        ("{{$a := 1}}{{range $a = 3}}{{end}}{{$a}}", "2"),
        ("{{json .}}", '{"Name":"doc","Map":{"a":1}}'),
        ("{{json .Map}}|{{.Map}}", '{"a":1}|map[a:1]'),
    ],
)
def test_newer_language(template: str, expected: str) -> None:
    assert compile(template).render({"Name": "doc", "Map": {"a": 1}}) == expected


def test_the_message_is_one_line_and_an_invalid_argument() -> None:
    with pytest.raises(InvalidArgument, match=r'^template parsing error: template: :1: unexpected "}" in operand$'):
        compile("{{.Name }")


def test_a_row_answers_fields_lazily_and_methods_with_their_argument() -> None:
    calls: list[str] = []

    def size() -> str:
        calls.append("size")
        return "1<2"

    row = Struct("*formatter.Row", {"ID": "abc", "Size": size, "Label": Method({"a": "b"}.get)})
    assert compile('{{.ID}} {{.Label "a"}}').render(row) == "abc b"
    assert calls == []
    assert compile("{{.Size}}").render(row) == "1<2"
    assert compile("{{json .}}").render(row) == '{"ID":"abc","Size":"1\\u003c2"}'
    with pytest.raises(TemplateError, match=r"can't evaluate field Foo in type \*formatter\.Row"):
        compile("{{.Foo}}").render(row)
    with pytest.raises(TemplateError, match="wrong number of args for Label: want 1 got 0"):
        compile("{{.Label}}").render(row)
    with pytest.raises(TemplateError, match="wrong number of args for ID: want 0 got 1"):
        compile('{{.ID "x"}}').render(row)


def test_a_header_keeps_the_names_and_is_cut_where_it_does_not_fit() -> None:
    headers = {"ID": "CONTAINER ID", "Size": "SIZE"}
    assert compile("{{upper .ID}} {{json .Size}} {{truncate .ID 3}}").render_header(headers) == (
        "CONTAINER ID SIZE CONTAINER ID"
    )
    assert compile("{{pad .Size 1 1}}|{{.Nope}}").render_header(headers) == " SIZE |<no value>"
    assert compile("{{.ID}}{{range .Size}}{{end}}rest").render_header(headers) == "CONTAINER ID"


def test_deep_nesting_and_endless_recursion_end_in_one_line() -> None:
    for text in ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "{{if 1}}" * 5000 + "{{end}}" * 5000):
        with pytest.raises(TemplateError):
            compile(text).render(None)
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        compile('{{define "a"}}{{template "a"}}{{template "a"}}{{end}}{{template "a"}}').render(None)


def test_a_typo_does_not_eat_memory() -> None:
    with pytest.raises(TemplateError, match="Repeat output length overflow"):
        compile('{{pad "x" 9000000000 0}}').render(None)
    assert len(compile('{{printf "%99999999999d|%.99999999999f" 1 1.5}}').render(None)) < 100


def test_indented_json_is_go_s() -> None:
    assert to_json([{"a": {}, "b": [], "c": [1, "é<"]}], indent="    ") == (
        '[\n    {\n        "a": {},\n        "b": [],\n        "c": [\n            1,\n            "é<"\n        ]\n'
        "    }\n]"
    )


# -- fuzzing -------------------------------------------------------------------------------------------

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcXY"), inner, max_size=3),
    max_leaves=6,
)
WORDS = """
{{ }} {{- -}} . .a .b.c .X $ $x $x.a := = | ( ) , 1 -2 1.5 0x1f 'a' "s" "%v%5d%x%q" `r` nil true false
if else end range with define template block break continue and or not eq ne lt le gt ge len index slice
print printf println html js urlquery call json split join title upper lower pad truncate text é
"""
PIECES = st.sampled_from(WORDS.split())
TEXTS = st.lists(PIECES, max_size=14).map(" ".join)
ACTIONS = st.lists(PIECES, min_size=1, max_size=7).map(lambda words: "{{" + " ".join(words) + "}}")


@settings(max_examples=400, deadline=None)
@given(template=st.text(max_size=30) | TEXTS | ACTIONS, value=VALUES, strict=st.booleans())
def test_nothing_but_a_template_error_comes_out(template: str, value: Any, strict: bool) -> None:
    try:
        text = Template(template).render(value, missing="error" if strict else "novalue")
    except TemplateError as error:
        message = str(error)
    else:
        text.encode("utf-8", "surrogateescape")
        return
    assert message.startswith("template parsing error: template: ")


@settings(max_examples=200, deadline=None)
@given(
    form=st.text(alphabet="%+-# 0123456789.*[]vdsqxXtfeEgGcUboOTp!é", max_size=12), values=st.lists(VALUES, max_size=3)
)
def test_printf_never_fails(form: str, values: list[Any]) -> None:
    assert isinstance(sprintf(form, values), str)
