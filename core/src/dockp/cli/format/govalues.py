"""Go's view of Python values: type names, truth, and how ``fmt.Print`` shows them.

None, bool, int, float, str, list (or tuple) and dict stand for what decoding JSON into ``any`` gives a Go
program. Docker's own commands look at typed structures instead, which shows where something is absent: a nil
map prints ``map[]`` and has empty entries, a nil pointer prints ``<nil>``. The classes here stand for those.
A string is bytes to Go; one that is not UTF-8 is held as ``surrogateescape`` holds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Missing:
    """What a lookup gives that found nothing (Go's zero ``reflect.Value``); prints ``<no value>``."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


class NilPointer:
    """A nil pointer in a structure; prints ``<nil>`` and is false. ``name`` is the field it was found in."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __bool__(self) -> bool:
        return False


class NilList(list[Any]):
    """A nil slice: as empty as ``[]``, but ``null`` in JSON."""

    __slots__ = ()


class GoMap(dict[str, Any]):
    """A map with a known type of element: ``zero`` is what indexing it with an absent key gives."""

    __slots__ = ("nil", "zero")

    def __init__(self, values: Mapping[str, Any] | None, zero: object) -> None:
        super().__init__(values or {})
        self.zero = zero
        self.nil = values is None


class Method:
    """A method of a `Struct` that takes exactly one string, as ``.Label "name"`` in a listing does."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[str], object]) -> None:
        self.call = call


class Struct:
    """A row of a listing: fields by name, where a field may be a value, a callable that makes it, a `Method`.

    ``is_map`` marks a row of headers, where a name that is not there is no error.
    """

    __slots__ = ("fields", "is_map", "type_name")

    def __init__(self, type_name: str, fields: Mapping[str, Any], is_map: bool = False) -> None:
        self.type_name = type_name
        self.fields = fields
        self.is_map = is_map

    def plain(self) -> dict[str, Any]:
        """All fields with their values, sorted by name; methods left out."""
        values = {}
        for name in sorted(self.fields):
            value = self.fields[name]
            if not isinstance(value, Method):
                values[name] = value() if callable(value) else value
        return values


def to_bytes(text: str) -> bytes:
    """The bytes of a Go string."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def from_bytes(data: bytes) -> str:
    """A Go string from its bytes."""
    return data.decode("utf-8", "surrogateescape")


def type_name(value: object) -> str:
    """The Go type of ``value``, as ``%T`` prints it."""
    if isinstance(value, GoMap):
        zero = "string" if isinstance(value.zero, str) else "interface {}"
        return f"map[string]{zero}"
    if isinstance(value, dict):
        return "map[string]interface {}"
    if isinstance(value, (list, tuple)):
        return "[]interface {}"
    if isinstance(value, Struct):
        return value.type_name
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"), (NilPointer, "*struct")):
        if isinstance(value, kind):
            return name
    return "interface {}"


def is_true(value: object) -> bool:
    """Truth as ``if``, ``and`` and ``or`` see it: not the zero of its type."""
    return isinstance(value, Struct) or bool(value)


def float_text(value: float, verb: str = "v", precision: int = -1, alternate: bool = False) -> str:
    """A float as ``fmt`` prints it; ``precision`` -1 is the fewest digits that read back the same."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if verb in "fF":
        return shortest_fixed(value) if precision < 0 else f"{value:{'#' if alternate else ''}.{precision}f}"
    sign = "-" if math.copysign(1, value) < 0 else ""
    value = abs(value)
    if verb in "eE":
        text = f"{value:.{precision}e}" if precision >= 0 else shortest_exponent(value)
        return sign + (text.upper() if verb == "E" else text)
    if precision >= 0:
        text = f"{value:{'#' if alternate else ''}.{precision or 1}g}"
    else:
        exponent = int(shortest_exponent(value).partition("e")[2])
        # strconv decides as if the precision were 6 when it looks for the shortest text.
        text = shortest_exponent(value) if exponent < -4 or exponent >= 6 else shortest_fixed(value)
    return sign + (text.upper() if verb == "G" else text)


def shortest_exponent(value: float) -> str:
    """``1.5e+06``: shortest digits, exponent of at least two digits."""
    from decimal import Decimal

    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    power = exponent + len(digits) - 1 if value else 0
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def shortest_fixed(value: float) -> str:
    text = repr(value)
    if "e" in text:
        from decimal import Decimal

        text = f"{Decimal(text):f}"
    return text.removesuffix(".0")


def plain(value: object) -> str:
    """A value as ``%v`` prints it."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return float_text(value)
        case dict():
            return "map[" + " ".join(f"{key}:{plain(value[key])}" for key in sorted(value, key=to_bytes)) + "]"
        case list() | tuple():
            return "[" + " ".join(plain(item) for item in value) + "]"
        case Struct():
            return "{" + " ".join(plain(item) for item in value.plain().values()) + "}"
    return "<nil>"


def sprint(values: Iterable[object]) -> str:
    """``fmt.Sprint``: a space between two operands of which neither is a string."""
    out: list[str] = []
    after_text = True
    for value in values:
        is_text = isinstance(value, str)
        if not is_text and not after_text:
            out.append(" ")
        out.append(plain(value))
        after_text = is_text
    return "".join(out)
