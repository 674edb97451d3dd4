"""``printf``: Go's ``fmt.Sprintf`` over the values of a document."""

from __future__ import annotations

import math
import re
from typing import Any

from dockp.cli.format.govalues import Missing, NilPointer, Struct, float_text, plain, to_bytes, type_name
from dockp.golang import quote

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
