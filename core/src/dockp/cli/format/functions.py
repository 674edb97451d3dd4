"""The functions a template may call: Go's own and those Docker adds.

Each `Function` states its parameters the way Go's signatures do, because Go checks arguments against them and
users see those complaints: ``any`` takes everything (nothing at all becomes nil), ``value`` takes everything as
it is, ``string`` and ``int`` take just that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dockp.cli.format.gojson import to_json
from dockp.cli.format.govalues import (
    MISSING,
    GoMap,
    Missing,
    NilList,
    NilPointer,
    Struct,
    from_bytes,
    is_true,
    plain,
    sprint,
    to_bytes,
    type_name,
)
from dockp.cli.format.printf import sprintf

_LONGEST = 1 << 20  # of padding: a typo must not eat all memory


class CallFault(Exception):
    """A function refuses its arguments; ``str()`` is Go's message."""


class Function:
    """A template function: fixed parameter types, the type of the variadic rest or None, and the code."""

    __slots__ = ("call", "params", "rest")

    def __init__(self, call: Callable[..., Any], *params: str, rest: str | None = None) -> None:
        self.call = call
        self.params = params
        self.rest = rest


def _refuse_zero(value: object) -> None:
    if isinstance(value, Missing):
        raise CallFault("reflect: call of reflect.Value.Type on zero Value")


# -- indexing -------------------------------------------------------------------------------------------


def _index_number(index: object, limit: int) -> int:
    if index is None or isinstance(index, Missing):
        raise CallFault("cannot index slice/array with nil")
    if not isinstance(index, int) or isinstance(index, bool):
        raise CallFault(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= limit:
        raise CallFault(f"index out of range: {index}")
    return index


def _index(item: Any, *indexes: Any) -> Any:
    if item is None or isinstance(item, Missing):
        raise CallFault("index of untyped nil")
    for index in indexes:
        if isinstance(item, NilList):
            raise CallFault("index of untyped nil")
        if item is None or isinstance(item, (Missing, NilPointer)):
            raise CallFault("index of nil pointer")
        if isinstance(item, dict):
            if index is None or isinstance(index, Missing):
                raise CallFault("value is nil; should be of type string")
            if not isinstance(index, str):
                raise CallFault(f"value has type {type_name(index)}; should be string")
            item = item[index] if index in item else item.zero if isinstance(item, GoMap) else None
        elif isinstance(item, (str, list, tuple)):
            whole = to_bytes(item) if isinstance(item, str) else item
            number = _index_number(index, len(whole))
            if number == len(whole):
                kind = "string" if isinstance(item, str) else "slice"
                raise CallFault(f"reflect: {kind} index out of range")
            item = whole[number]
        else:
            raise CallFault(f"can't index item of type {type_name(item)}")
    return item


def _slice(item: Any, *indexes: Any) -> Any:
    if item is None or isinstance(item, Missing):
        raise CallFault("slice of untyped nil")
    if len(indexes) > 3:
        raise CallFault(f"too many slice indexes: {len(indexes)}")
    if not isinstance(item, (str, list, tuple)):
        raise CallFault(f"can't slice item of type {type_name(item)}")
    if isinstance(item, str) and len(indexes) == 3:
        raise CallFault("cannot 3-index slice a string")
    whole = to_bytes(item) if isinstance(item, str) else item
    bounds = [_index_number(index, len(whole)) for index in indexes]
    for low, high in zip([*bounds, len(whole)][:2], [*bounds, len(whole)][1:3], strict=False):
        if low > high:
            raise CallFault(f"invalid slice index: {low} > {high}")
    if len(bounds) == 3 and bounds[1] > bounds[2]:
        raise CallFault(f"invalid slice index: {bounds[1]} > {bounds[2]}")
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(whole)
    part = whole[start:end]
    return from_bytes(part) if isinstance(part, bytes) else part


def _len(item: Any) -> int:
    _refuse_zero(item)
    if item is None or isinstance(item, NilPointer):
        raise CallFault("len of nil pointer")
    if isinstance(item, str):
        return len(to_bytes(item))
    if isinstance(item, (list, tuple, dict)):
        return len(item)
    raise CallFault(f"len of type {type_name(item)}")


def _call(function: Any, *_args: Any) -> Any:
    # No value of a document is a function, so this can only refuse, as Go does.
    if function is None or isinstance(function, Missing):
        raise CallFault("call of nil")
    raise CallFault(f"non-function of type {type_name(function)}")


# -- comparison -----------------------------------------------------------------------------------------


def _is_nil(value: object) -> bool:
    return value is None or isinstance(value, (Missing, NilPointer)) or (isinstance(value, GoMap) and value.nil)


def _basic_kind(value: object) -> str:
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind.__name__
    return ""


def _shown(value: object) -> str:
    """A value as ``%s`` of it shows in an error message."""
    return sprintf("%s", [value])


def _equal(first: Any, other: Any) -> bool:
    kind = _basic_kind(first)
    if kind != _basic_kind(other):
        if not isinstance(first, (Missing, type(None))) and not isinstance(other, (Missing, type(None))):
            raise CallFault("incompatible types for comparison")
        return False
    if kind:
        return bool(first == other)
    if _is_nil(first) or _is_nil(other):
        return _is_nil(first) and _is_nil(other)
    if isinstance(first, Struct) and isinstance(other, Struct):
        return first is other
    if type_name(first) != type_name(other):
        sides = f"{_shown(first)}: {type_name(first)}, {type_name(other)}: {_shown(other)}"
        raise CallFault(f"non-comparable types {sides}")
    raise CallFault(f"non-comparable type {_shown(first)}: {type_name(other)}")


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise CallFault("missing argument for comparison")
    return any(_equal(first, other) for other in others)


def _ne(first: Any, other: Any) -> bool:
    return not _equal(first, other)


def _lt(first: Any, other: Any) -> bool:
    kinds = _basic_kind(first), _basic_kind(other)
    if not all(kinds):
        raise CallFault("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise CallFault("incompatible types for comparison")
    if kinds[0] == "bool":
        raise CallFault("invalid type for comparison")
    if isinstance(first, str):
        return to_bytes(first) < to_bytes(other)
    return bool(first < other)


def _le(first: Any, other: Any) -> bool:
    return _lt(first, other) or _equal(first, other)


# -- text -----------------------------------------------------------------------------------------------


def _as_text(args: tuple[Any, ...]) -> str:
    """The arguments of an escaper as one text: a string as it is, else what ``print`` makes of them."""
    return sprint("<no value>" if arg is None else arg for arg in args)


_HTML = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _html(*args: Any) -> str:
    return "".join(_HTML.get(char, char) for char in _as_text(args))


def _js(*args: Any) -> str:
    def escape(char: str) -> str:
        if char in _JS:
            return _JS[char]
        return char if char.isprintable() else f"\\u{ord(char):04X}"

    return "".join(map(escape, _as_text(args)))


def _urlquery(*args: Any) -> str:
    safe = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
    data = to_bytes(_as_text(args))
    return "".join(chr(byte) if byte in safe else "+" if byte == 0x20 else f"%{byte:02X}" for byte in data)


def _print(*args: Any) -> str:
    return sprint(args)


def _println(*args: Any) -> str:
    return " ".join(map(plain, args)) + "\n"


def _printf(form: str, *args: Any) -> str:
    return sprintf(form, list(args))


def _split(text: str, separator: str) -> list[str]:
    if separator:
        return text.split(separator)
    return list(text)


def _join(items: Any, separator: str) -> str:
    if items is None:
        return ""
    if isinstance(items, (list, tuple)):
        return separator.join(map(plain, items))
    if isinstance(items, dict):
        return separator.join(sorted((plain(item) for item in items.values()), key=to_bytes))
    raise CallFault(f"expected slice, got {type_name(items)}")


def _title(text: str) -> str:
    # A word starts after a space or an ASCII mark; other symbols do not part words.
    return re.sub(r"(?<![^\x00-/:-@\[-^`{-\x7f\s])\w", lambda match: match[0].title(), text)


def _pad(text: str, before: int, after: int) -> str:
    if not text:
        return text
    if before < 0 or after < 0:
        raise CallFault("strings: negative Repeat count")
    if before + after > _LONGEST:
        raise CallFault("strings: Repeat output length overflow")
    return " " * before + text + " " * after


def _truncate(text: str, length: int) -> str:
    data = to_bytes(text)
    if len(data) < length:
        return text
    if length < 0:
        raise CallFault(f"runtime error: slice bounds out of range [:{length}]")
    return from_bytes(data[:length])


_VALUE = "value"

FUNCTIONS: Mapping[str, Function] = {
    # "and" and "or" stop at the argument that decides, so the evaluator does their work.
    "and": Function(lambda *_: MISSING, _VALUE, rest=_VALUE),
    "or": Function(lambda *_: MISSING, _VALUE, rest=_VALUE),
    "not": Function(lambda value: not is_true(value), _VALUE),
    "eq": Function(_eq, _VALUE, rest=_VALUE),
    "ne": Function(_ne, _VALUE, _VALUE),
    "lt": Function(_lt, _VALUE, _VALUE),
    "le": Function(_le, _VALUE, _VALUE),
    "gt": Function(lambda first, other: not _le(first, other), _VALUE, _VALUE),
    "ge": Function(lambda first, other: not _lt(first, other), _VALUE, _VALUE),
    "len": Function(_len, _VALUE),
    "index": Function(_index, _VALUE, rest=_VALUE),
    "slice": Function(_slice, _VALUE, rest=_VALUE),
    "call": Function(_call, _VALUE, rest=_VALUE),
    "print": Function(_print, rest="any"),
    "printf": Function(_printf, "string", rest="any"),
    "println": Function(_println, rest="any"),
    "html": Function(_html, rest="any"),
    "js": Function(_js, rest="any"),
    "urlquery": Function(_urlquery, rest="any"),
    "json": Function(to_json, "any"),
    "split": Function(_split, "string", "string"),
    "join": Function(_join, "any", "string"),
    "title": Function(_title, "string"),
    "lower": Function(str.lower, "string"),
    "upper": Function(str.upper, "string"),
    "pad": Function(_pad, "string", "int", "int"),
    "truncate": Function(_truncate, "string", "int"),
}


def _first(text: str, *_rest: Any) -> str:
    return text


# A table's header is made by the row's own template run over the headers; the functions that would change a
# value leave the header alone there. ``pad`` stays, to keep the columns aligned.
HEADER_FUNCTIONS: Mapping[str, Function] = {
    **FUNCTIONS,
    "json": Function(_first, "string"),
    "split": Function(_first, "string", "string"),
    "join": Function(_first, "string", "string"),
    "title": Function(_first, "string"),
    "lower": Function(_first, "string"),
    "upper": Function(_first, "string"),
    "truncate": Function(_first, "string", "int"),
}
