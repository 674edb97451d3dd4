"""JSON as Go's encoding/json writes it, which differs from Python's in spacing, escapes and floats."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from dockp.cli.format.govalues import GoMap, NilList, Struct, shortest_exponent, shortest_fixed

_JSON_PLAIN = re.compile(r'[^\x00-\x1f"\\\u2028\u2029\ud800-\udfff]*\Z')
_JSON_HTML = re.compile("[<>&]")
_JSON_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def _json_string(text: str, html: bool) -> str:
    if not _JSON_PLAIN.match(text):
        out = []
        for char in text:
            if char in _JSON_ESCAPES:
                out.append(_JSON_ESCAPES[char])
            elif char < " " or char in "\u2028\u2029":
                out.append(f"\\u{ord(char):04x}")
            elif "\ud800" <= char <= "\udfff":
                out.append("\\ufffd")  # bytes that are not UTF-8 are replaced
            else:
                out.append(char)
        text = "".join(out)
    if html:
        text = _JSON_HTML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return f'"{text}"'


def _json_float(value: float) -> str:
    if value - value != 0:
        return "null"
    size = abs(value)
    if value and not 1e-6 <= size < 1e21:
        text = ("-" if value < 0 else "") + shortest_exponent(size)
        return re.sub(r"e-0(\d)$", r"e-\1", text)
    return "-0" if value == 0 and math.copysign(1, value) < 0 else shortest_fixed(value)


def to_json(value: object, *, indent: str = "", html: bool = False) -> str:
    """JSON as Go's encoding/json writes it: keys in the order given, no spaces unless ``indent`` is set.

    Args: ``indent`` the text for one level, e.g. four spaces; ``html`` whether <, > and & are escaped
    (``json.Marshal`` does, Docker's ``json`` template function does not).
    """
    out: list[str] = []
    _write_json(out, value, indent, "\n", html)
    return "".join(out)


def _write_json(out: list[str], value: object, indent: str, line: str, html: bool) -> None:
    match value:
        case str():
            out.append(_json_string(value, html))
        case bool():
            out.append("true" if value else "false")
        case int():
            out.append(str(value))
        case float():
            out.append(_json_float(value))
        case GoMap(nil=True) | NilList():
            out.append("null")
        case dict():
            # A Go structure keeps the order of its fields, a Go map is sorted.
            items = sorted(value.items()) if isinstance(value, GoMap) else value.items()
            pairs = ((_json_string(str(key), html) + (": " if indent else ":"), item) for key, item in items)
            _write_group(out, "{}", pairs, indent, line, html)
        case list() | tuple():
            _write_group(out, "[]", (("", item) for item in value), indent, line, html)
        case Struct():
            # A row writes its own JSON in Docker, by json.Marshal, which always escapes.
            _write_json(out, value.plain(), indent, line, True)
        case _:
            out.append("null")


def _write_group(
    out: list[str], marks: str, items: Iterable[tuple[str, object]], indent: str, line: str, html: bool
) -> None:
    out.append(marks[0])
    inner = line + indent
    first = True
    for key, item in items:
        if not first:
            out.append(",")
        if indent:
            out.append(inner)
        out.append(key)
        _write_json(out, item, indent, inner, html)
        first = False
    if indent and not first:
        out.append(line)
    out.append(marks[1])
