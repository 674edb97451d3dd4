"""Flags of a command as data, and a parser with the rules and the wording of Docker's (POSIX/GNU style, Go's pflag).

A flag is one `Flag` row. `parse` goes through the arguments from left to right: ``--name value``, ``--name=value``,
``-n value``, ``-nvalue``, ``-n=value``, bundles of switches such as ``-it``, and ``--`` for the end of flags. A switch
takes a value only as ``--rm=false``. The module imports nothing that a plain ``dockp run`` does not need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple


class UsageError(Exception):
    """The arguments of a command are wrong; ``str(error)`` says how, in Docker's words."""


class Kind(NamedTuple):
    """What values a flag takes.

    Attributes:
        word: the word for the value in ``--help``; "" for a switch.
        read: turns the text into a value, or raises ValueError with the reason.
        default: the value when the flag is absent; for ``many`` a list is made anew each time.
        many: "" for one value (the last one wins), "list" to collect, "map" when `read` gives (key, value) pairs.
    """

    word: str
    read: Callable[[str], Any]
    default: Any = None
    many: str = ""


class Flag(NamedTuple):
    """One flag: long name, letter ("" for none), kind, help text. ``shown_default`` is only for the help."""

    name: str
    short: str
    kind: Kind
    help: str
    hidden: bool = False
    default: Any = None
    alias_of: str = ""
    choices: tuple[str, ...] = ()


def read_text(value: str) -> str:
    """The text as it is."""
    return value


_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def read_bool(value: str) -> bool:
    """Go's ``strconv.ParseBool``."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{value}": invalid syntax')


def go_int(value: str, bits: int = 64, base: int = 0, signed: bool = True) -> int:
    """Go's ``strconv.ParseInt`` (or ``ParseUint``). Raises ValueError with Go's text."""
    verb = "ParseInt" if signed else "ParseUint"
    digits = value.lstrip("+-") if signed else value
    text = value
    if base == 0 and len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        text = value.replace(digits, "0o" + digits[1:])  # a leading zero means octal in Go, and nothing in Python
    try:
        # Python is more lenient than Go: white space and, with an explicit base, underscores and prefixes.
        plain = text.isascii() and (digits.isalnum() or not base)
        if value != value.strip() or not plain or len(value) - len(digits) > 1:
            raise ValueError
        number = int(text, base)
    except ValueError:
        raise ValueError(f'strconv.{verb}: parsing "{value}": invalid syntax') from None
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not signed and value[:1] in "+-":
        raise ValueError(f'strconv.{verb}: parsing "{value}": invalid syntax')
    if not low <= number <= high:
        raise ValueError(f'strconv.{verb}: parsing "{value}": value out of range')
    return number


def _uint16(value: str) -> int:
    return go_int(value, 16, signed=False)


def _uint64(value: str) -> int:
    return go_int(value, 64, signed=False)


def _bytes(value: str) -> int:
    from dockp.units import parse_size

    return parse_size(value)


def _swap_bytes(value: str) -> int:
    return -1 if value == "-1" else _bytes(value)


def _duration(value: str) -> int:
    from dockp.units import parse_duration

    return parse_duration(value)


def _filter(value: str) -> tuple[str, str]:
    if not value:
        return "", ""
    name, found, rest = value.partition("=")
    if not found:
        raise ValueError("bad format of filter (expected name=value)")
    return name.strip().lower(), rest.strip()


def listing(read: Callable[[str], Any] = read_text, word: str = "list") -> Kind:
    """A flag that may be repeated; its value is the list of all."""
    return Kind(word, read, None, "list")


STRING = Kind("string", read_text, "")
SWITCH = Kind("", read_bool, False)
INT = Kind("int", go_int, 0)
UINT16 = Kind("uint16", _uint16, 0)
UINT64 = Kind("uint", _uint64, 0)
BYTES = Kind("bytes", _bytes, 0)
SWAP_BYTES = Kind("bytes", _swap_bytes, 0)
DURATION = Kind("duration", _duration, 0)
LIST = listing()
FILTER = Kind("filter", _filter, None, "pairs")

HELP = Flag("help", "", SWITCH, "Print usage")


class Values:
    """What `parse` found: ``values["cap-add"]`` is the value or the default, ``values.given`` the names given."""

    def __init__(self, flags: Iterable[Flag]) -> None:
        self.given: set[str] = set()
        self.args: list[str] = []
        self._values: dict[str, Any] = {}
        for flag in flags:
            if not flag.alias_of:
                self._values[flag.name] = _default(flag)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def filters(self, name: str = "filter") -> dict[str, list[str]]:
        """The pairs of a `FILTER` flag, grouped by key."""
        grouped: dict[str, list[str]] = {}
        for key, value in self._values[name]:
            if key:
                grouped.setdefault(key, []).append(value)
        return grouped

    def put(self, flag: Flag, text: str) -> None:
        """Set ``flag`` from text. Raises UsageError."""
        try:
            value = flag.kind.read(text)
            if flag.choices and value not in flag.choices:
                raise ValueError(f"must be one of {', '.join(flag.choices)}")
        except Exception as error:
            # Readers raise ValueError or an InvalidArgument (from units); both carry a message made for people.
            if not isinstance(error, ValueError) and type(error).__name__ != "InvalidArgument":
                raise
            shown = f"-{flag.short}, --{flag.name}" if flag.short else f"--{flag.name}"
            raise UsageError(f'invalid argument {quote(text)} for "{shown}" flag: {error}') from None
        name = flag.alias_of or flag.name
        if flag.kind.many in ("list", "pairs"):
            self._values[name].append(value)
        elif flag.kind.many == "map":
            self._values[name][value[0]] = value[1]
        else:
            self._values[name] = value
        self.given.add(name)


def _default(flag: Flag) -> Any:
    if flag.default is not None:
        return flag.default
    if flag.kind.many in ("list", "pairs"):
        return []
    return {} if flag.kind.many == "map" else flag.kind.default


def quote(text: str) -> str:
    """``text`` as Go's ``%q`` shows it (for the characters that appear in arguments)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def parse(flags: Sequence[Flag], arguments: Sequence[str], *, interspersed: bool = True) -> Values:
    """Read ``arguments`` (without the command's name). Without ``interspersed`` the first word that is no flag ends the
    flags, so that ``run image ls -l`` hands ``-l`` to ``ls``. Raises UsageError."""
    values: Values = Values(flags)
    by_name = {flag.name: flag for flag in flags}
    by_letter = {flag.short: flag for flag in flags if flag.short}
    by_name.setdefault("help", HELP)
    rest = list(arguments)
    rest.reverse()
    while rest:
        word = rest.pop()
        if len(word) < 2 or word[0] != "-":
            values.args.append(word)
            if not interspersed:
                break
        elif word == "--":
            break
        elif word[1] == "-":
            _long(values, by_name, word, rest)
        else:
            _letters(values, by_letter, by_name, word[1:], rest)
    values.args.extend(reversed(rest))
    return values


def _long(values: Values, by_name: dict[str, Flag], word: str, rest: list[str]) -> None:
    name, equals, text = word[2:].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {word}")
    flag = by_name.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: --{name}")
    if not equals:
        if flag.kind.word == "":
            text = "true"
        elif rest:
            text = rest.pop()
        else:
            raise UsageError(f"flag needs an argument: {word}")
    values.put(flag, text)


def _letters(
    values: Values, by_letter: dict[str, Flag], by_name: dict[str, Flag], letters: str, rest: list[str]
) -> None:
    while letters:
        flag = by_letter.get(letters[0])
        if flag is None:
            if letters[0] != "h":
                raise UsageError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
            flag = by_name["help"]
        if len(letters) > 2 and letters[1] == "=":
            values.put(flag, letters[2:])
            return
        if flag.kind.word == "":
            values.put(flag, "true")
            letters = letters[1:]
            continue
        if len(letters) > 1:
            values.put(flag, letters[1:])
        elif rest:
            values.put(flag, rest.pop())
        else:
            raise UsageError(f"flag needs an argument: '{letters[0]}' in -{letters}")
        return
