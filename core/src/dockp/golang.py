"""Go's literals, written and read: strings, characters and numbers (package strconv)."""

from __future__ import annotations

import re

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


def quote(text: str, mark: str = '"', ascii_only: bool = False) -> str:
    """Quote ``text`` as a Go string literal (``strconv.Quote``), or with ``mark`` "'" as a character."""
    out = [mark]
    for char in text:
        code = ord(char)
        if char == mark:
            out.append("\\" + mark)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable() and (code < 0x80 or not ascii_only):
            out.append(char)
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, held as surrogateescape does
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    out.append(mark)
    return "".join(out)


def code_point(char: str) -> str:
    """A character as Go's ``%#U`` prints it: ``U+002D '-'``."""
    shown = f" '{char}'" if char.isprintable() else ""
    return f"U+{ord(char):04X}{shown}"


_ESCAPE = re.compile(r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def unquote(literal: str) -> str | None:
    """The text a Go string, raw string or character literal stands for, or None when it is malformed.

    Bytes written as ``\\xff`` that are not UTF-8 come back as ``surrogateescape`` holds them.
    """
    mark, inside = literal[0], literal[1:-1]
    if mark == "`":
        return inside.replace("\r", "")
    out = bytearray()
    at = 0
    while at < len(inside):
        if inside[at] != "\\":
            out += inside[at].encode("utf-8", "surrogatepass")
            at += 1
            continue
        match = _ESCAPE.match(inside, at)
        if match is None:
            return None
        simple, hexa, octal, short, long = match.groups()
        if simple is not None:
            if simple in "'\"" and simple != mark:
                return None
            out += _SIMPLE.get(simple, simple).encode()
        elif hexa is not None or octal is not None:
            value = int(hexa, 16) if hexa is not None else int(octal, 8)
            if value > 0xFF:
                return None
            # In a character literal \xNN is the character NN, in a string the byte NN.
            out += chr(value).encode() if mark == "'" else bytes([value])
        else:
            value = int(short or long, 16)
            if value > 0x10FFFF or 0xD800 <= value <= 0xDFFF:
                return None
            out += chr(value).encode()
        at = match.end()
    try:
        return out.decode("utf-8", "surrogateescape")
    except UnicodeDecodeError:
        return None


_INTEGER = re.compile(r"([+-]?)(0[xX]|0[oO]|0[bB]|0(?=[0-9_]))?([0-9a-fA-F_]+)\Z")
_BASES = {"0x": 16, "0o": 8, "0b": 2, "0": 8, "": 10}


def read_integer(text: str) -> int | None:
    """The integer that ``text`` is in Go's syntax (0x, 0o, 0b, leading 0 for octal, underscores), or None."""
    match = _INTEGER.match(text)
    if match is None:
        return None
    sign, prefix, digits = match[1], (match[2] or "").lower(), match[3]
    if "__" in digits or digits.endswith("_") or (digits.startswith("_") and not prefix):
        return None
    if len(digits) > 100:
        return 1 << 100 if re.fullmatch(r"[0-9]+", digits) else None  # too large, whatever it is
    try:
        value = int(digits.replace("_", ""), _BASES[prefix])
    except ValueError:
        return None
    return -value if sign == "-" else value


def read_float(text: str) -> float | None:
    """The finite float that ``text`` is in Go's syntax, or None."""
    try:
        if "x" in text.lower():
            value = float.fromhex(text) if "p" in text.lower() and "_" not in text else None
        else:
            value = float(text)
    except (ValueError, OverflowError):
        return None
    return value if value is not None and value - value == 0 else None
