"""Go's view of Python values: type names, truth, printing (package fmt) and JSON (package encoding/json).

None, bool, int, float, str, list (or tuple) and dict stand for what decoding JSON into ``any`` gives a Go
program. Docker's own commands look at typed structures instead, which shows where something is absent: a nil
map prints ``map[]`` and has empty entries, a nil pointer prints ``<nil>``. The classes here stand for those.
A string is bytes to Go; one that is not UTF-8 is held as ``surrogateescape`` holds it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dockp.cli.format.lexer import quote


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
        return _shortest_fixed(value) if precision < 0 else f"{value:{'#' if alternate else ''}.{precision}f}"
    sign = "-" if math.copysign(1, value) < 0 else ""
    value = abs(value)
    if verb in "eE":
        text = f"{value:.{precision}e}" if precision >= 0 else _shortest_exponent(value)
        return sign + (text.upper() if verb == "E" else text)
    if precision >= 0:
        text = f"{value:{'#' if alternate else ''}.{precision or 1}g}"
    else:
        exponent = int(_shortest_exponent(value).partition("e")[2])
        # strconv decides as if the precision were 6 when it looks for the shortest text.
        text = _shortest_exponent(value) if exponent < -4 or exponent >= 6 else _shortest_fixed(value)
    return sign + (text.upper() if verb == "G" else text)


def _shortest_exponent(value: float) -> str:
    """``1.5e+06``: shortest digits, exponent of at least two digits."""
    from decimal import Decimal

    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    power = exponent + len(digits) - 1 if value else 0
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def _shortest_fixed(value: float) -> str:
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


# -- fmt.Sprintf -----------------------------------------------------------------------------------------

_DIRECTIVE = re.compile(r"%([-+# 0]*)(?:\[(\d+)\])?(\*|\d+)?(?:(\.)(?:\[(\d+)\])?(\*|\d+)?)?(?:\[(\d+)\])?(.?)", re.S)
_RAW = re.compile(r"[^`\x00-\x08\x0a-\x1f\x7f]*\Z")  # what can stand between backquotes
_LIMIT = 1_000_000  # widths and precisions beyond this are refused, as Go does
_BASES = {"b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}


def _go_syntax(value: object) -> str:
    """A value as ``%#v`` prints it."""
    match value:
        case str():
            return quote(value)
        case bool() | int():
            return plain(value)
        case float():
            return float_text(value)
        case dict():
            inner = ", ".join(f"{quote(key)}:{_go_syntax(value[key])}" for key in sorted(value, key=to_bytes))
            return f"{type_name(value)}{{{inner}}}"
        case list() | tuple():
            return f"{type_name(value)}{{{', '.join(map(_go_syntax, value))}}}"
        case Struct():
            return plain(value)
    return "interface {}(nil)"


class _Directive:
    """One ``%`` directive: flags, width, precision (-1 for none) and verb."""

    __slots__ = ("flags", "precision", "verb", "width")

    def __init__(self, flags: str, width: int, precision: int, verb: str) -> None:
        self.flags = flags
        self.width = width
        self.precision = precision
        self.verb = verb

    def padded(self, text: str, numeric: bool = False) -> str:
        if len(text) >= self.width:
            return text
        if "-" in self.flags:
            return text.ljust(self.width)
        if "0" in self.flags:
            if numeric and text[:1] in ("+", "-", " "):
                return text[0] + text[1:].rjust(self.width - 1, "0")
            return text.rjust(self.width, "0")
        return text.rjust(self.width)

    def format(self, value: object, depth: int = 0) -> str:
        verb = self.verb
        if verb == "T":
            return self.padded("<nil>" if value is None else type_name(value))
        if value is None or isinstance(value, (Missing, NilPointer)):
            if "#" in self.flags and verb == "v":
                return self.padded("interface {}(nil)")
            return self.padded("<nil>") if verb == "v" or depth else f"%!{verb}(<nil>)"
        if verb == "v" and "#" in self.flags:
            return self.padded(_go_syntax(value))
        if isinstance(value, Struct):
            value = value.plain()
        if isinstance(value, dict):
            keys = sorted(value, key=to_bytes)
            parts = (f"{self.format(key, depth + 1)}:{self.format(value[key], depth + 1)}" for key in keys)
            return f"map[{' '.join(parts)}]"
        if isinstance(value, (list, tuple)):
            return f"[{' '.join(self.format(item, depth + 1) for item in value)}]"
        if isinstance(value, str):
            text = self._string(value)
        elif isinstance(value, bool):
            text = self.padded(plain(value)) if verb in "tv" else None
        elif isinstance(value, int):
            text = self._integer(value)
        elif isinstance(value, float):
            text = self._float(value)
        else:
            text = None
        return text if text is not None else f"%!{verb}({type_name(value)}={plain(value)})"

    def _string(self, value: str) -> str | None:
        verb, precision = self.verb, self.precision
        if verb in "xX":
            data = to_bytes(value)[: precision if precision >= 0 else None]
            text = data.hex(" ") if " " in self.flags else data.hex()
            if "#" in self.flags and text:
                text = " ".join("0x" + part for part in text.split(" "))
            return self.padded(text.upper() if verb == "X" else text)
        if verb not in "svq":
            return None
        if precision >= 0:
            value = value[:precision]
        if verb == "q":
            if "#" in self.flags and _RAW.match(value):
                value = f"`{value}`"
            else:
                value = quote(value, ascii_only="+" in self.flags)
        return self.padded(value)

    def _integer(self, value: int) -> str | None:
        verb, flags = self.verb, self.flags
        if verb in "cqU":
            char = chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF else "\ufffd"
            if verb == "U":
                shown = f" '{char}'" if "#" in flags and char.isprintable() else ""
                return self.padded(f"U+{value & 0xFFFFFFFFFFFFFFFF:04X}{shown}")
            return self.padded(char if verb == "c" else quote(char, "'", "+" in flags))
        if verb in "eEfFgG" or verb not in "vdboOxX":
            return None
        digits = format(abs(value), _BASES.get(verb, "d"))
        if self.precision >= 0:
            digits = "" if self.precision == 0 and value == 0 else digits.rjust(self.precision, "0")
        sign = "-" if value < 0 else "+" if "+" in flags else " " if " " in flags else ""
        prefix = "0o" if verb == "O" else ""
        if "#" in flags:
            prefix = {"x": "0x", "X": "0X", "b": "0b", "o": "0"}.get(verb, prefix)
        if self.precision < 0 and "0" in flags and "-" not in flags:
            digits = digits.rjust(self.width - len(sign), "0")  # Go counts no prefix here
        text = sign + prefix + digits
        return text.ljust(self.width) if "-" in flags else text.rjust(self.width)

    def _float(self, value: float) -> str | None:
        verb, precision, flags = self.verb, self.precision, self.flags
        if verb not in "vgGeEfFxXb":
            return None
        if verb in "xXb":
            text = _hex_float(value)
            text = text.upper() if verb == "X" else text
        else:
            if verb in "eEfF" and precision < 0:
                precision = 6
            text = float_text(value, "g" if verb == "v" else verb, precision, "#" in flags)
        if text[0] not in "+-":
            text = ("+" if "+" in flags else " " if " " in flags else "") + text
        elif text[0] == "+" and "+" not in flags:
            text = text[1:] if not text.endswith("Inf") else text
        return self.padded(text, numeric=True)


def _hex_float(value: float) -> str:
    if value != value or value in (math.inf, -math.inf):
        return float_text(value)
    mantissa, _, exponent = value.hex().partition("p")
    mantissa = mantissa.rstrip("0").removesuffix(".") if "." in mantissa else mantissa
    if value == 0:
        mantissa = mantissa.partition("x")[0] + "x0"
    return f"{mantissa}p{exponent[0]}{int(exponent[1:]):02d}"


def sprintf(form: str, values: list[Any]) -> str:
    """``fmt.Sprintf``. Raises nothing: a wrong directive shows in the text, as in Go (``%!d(string=x)``)."""
    out: list[str] = []
    at = used = 0
    reordered = False
    for match in _DIRECTIVE.finditer(form):
        if match.start() < at:
            continue
        out.append(form[at : match.start()])
        at = match.end()
        flags, index, star, point, point_index, point_star, last_index, verb = match.groups()
        if not verb:
            out.append("%!(NOVERB)")
            continue
        width, precision = 0, -1
        faults: list[str] = []
        if star == "*":
            if index:
                used, reordered = int(index) - 1, True
            width_value = values[used] if 0 <= used < len(values) else None
            used += 1
            if not isinstance(width_value, int) or isinstance(width_value, bool) or abs(width_value) > _LIMIT:
                faults.append("%!(BADWIDTH)")
            else:
                width = abs(width_value)
                flags += "-" if width_value < 0 else ""
        elif star:
            width = int(star) if len(star) < 8 else _LIMIT + 1
            if width > _LIMIT:
                width = 0
        if point:
            precision = 0
            if point_star == "*":
                if point_index:
                    used, reordered = int(point_index) - 1, True
                point_value = values[used] if 0 <= used < len(values) else None
                used += 1
                if not isinstance(point_value, int) or isinstance(point_value, bool) or abs(point_value) > _LIMIT:
                    faults.append("%!(BADPREC)")
                    precision = -1
                else:
                    precision = point_value if point_value >= 0 else -1
            elif point_star:
                precision = int(point_star) if len(point_star) < 8 and int(point_star) <= _LIMIT else -1
        out.extend(faults)
        chosen = last_index or (index if star is None else None)
        if chosen:
            used, reordered = int(chosen) - 1 if len(chosen) < 8 else -1, True
        if verb == "%":
            out.append("%")
        elif chosen and not 0 <= used < len(values):
            out.append(f"%!{verb}(BADINDEX)")
        elif used >= len(values):
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_Directive(flags, width, precision, verb).format(values[used]))
            used += 1
    out.append(form[at:])
    if not reordered and used < len(values):
        extra = ("<nil>" if v is None else f"{type_name(v)}={plain(v)}" for v in values[used:])
        out.append(f"%!(EXTRA {', '.join(extra)})")
    return "".join(out)


# -- encoding/json ---------------------------------------------------------------------------------------

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
        text = ("-" if value < 0 else "") + _shortest_exponent(size)
        return re.sub(r"e-0(\d)$", r"e-\1", text)
    return "-0" if value == 0 and math.copysign(1, value) < 0 else _shortest_fixed(value)


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
