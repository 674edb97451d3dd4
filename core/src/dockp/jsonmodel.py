"""A small bridge between attrs classes and Docker's JSON documents.

Every field has a JSON name: what `key` gives, else its own name in Pascal case (``cap_add`` → ``CapAdd``). Nested
models are named by `nested`, `nested_list` and `nested_map`. Unknown keys of a document are ignored and ``null`` means
the default, as in Docker's own decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, TypeVar, cast

import attrs

from dockp.spi.errors import InvalidArgument

T = TypeVar("T")


class Model:
    """Base of classes that stand for JSON objects: comparing and showing them, in one place for all.

    attrs generates these methods for each class anew, and a command would wait for it at every start.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, row[0]) == getattr(other, row[0]) for row in _fields(cast(Any, type(self))))

    def __repr__(self) -> str:
        given = ((row[0], getattr(self, row[0])) for row in _fields(cast(Any, type(self))))
        shown = ", ".join(f"{name}={value!r}" for name, value in given if value not in (None, "", ()))
        return f"{type(self).__name__}({shown})"


def key(name: str, **more: Any) -> Any:
    """An attrs field whose JSON name is ``name``; the rest as for ``attrs.field``."""
    return attrs.field(metadata={"json": name}, **more)


def nested(model: type, name: str = "", **more: Any) -> Any:
    """A field that holds one ``model`` (or None)."""
    return attrs.field(metadata={"json": name, "one": model}, **more)


def nested_list(model: type, name: str = "") -> Any:
    """A field that holds a tuple of ``model``."""
    return attrs.field(metadata={"json": name, "many": model}, default=())


def nested_map(model: type, name: str = "") -> Any:
    """A field that holds a mapping from names to ``model``."""
    return attrs.field(metadata={"json": name, "map": model}, factory=dict)


def nested_map_list(model: type, name: str = "") -> Any:
    """A field that holds a mapping from names to tuples of ``model``."""
    return attrs.field(metadata={"json": name, "lists": model}, factory=dict)


@cache
def _fields(cls: Any) -> tuple[tuple[str, str, str, type | None, str], ...]:
    """(attribute, JSON name, how it nests, nested class, type as written) of every field of ``cls``."""
    rows = []
    for item in attrs.fields(cls):
        meta = item.metadata
        name = meta.get("json") or "".join(part.capitalize() for part in item.name.split("_"))
        how = next((word for word in ("one", "many", "map", "lists") if word in meta), "")
        rows.append((item.name, name, how, meta.get(how), str(item.type).removesuffix(" | None")))
    return tuple(rows)


@cache
def json_names(cls: Any) -> frozenset[str]:
    """The JSON names of the fields of ``cls``."""
    return frozenset(row[1] for row in _fields(cls))


def spelled(document: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """``document`` with its keys written as in ``names`` where they differ in case alone, which is nothing to Go's
    decoder (encoding/json, "Unmarshal"). A key that is written so already counts more."""
    strange = document.keys() - names
    if not strange:
        return document
    known = {name.lower(): name for name in names}
    renamed = {known[key.lower()]: document[key] for key in strange if key.lower() in known}
    return {**renamed, **document} if renamed else document


def _is_text(value: Any) -> bool:
    # What is no Unicode could be stored and sent nowhere; a zero byte would end the string in the kernel.
    return isinstance(value, str) and "\0" not in value and (value.isascii() or _encodes(value))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


# Docker's own decoder is as strict. Types are as the annotations of the models have them.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "bool": lambda value: isinstance(value, bool),
    "int": _is_number,
    "tuple[str, ...]": lambda value: _is_list(value) and all(map(_is_text, value)),
    "tuple[int, int]": lambda value: _is_list(value) and len(value) == 2 and all(map(_is_number, value)),
    "tuple[Any, ...]": _is_list,
    "Mapping[str, Any]": lambda value: isinstance(value, Mapping) and all(map(_is_text, value)),
    "Mapping[str, str]": lambda value: (
        isinstance(value, Mapping) and all(map(_is_text, value)) and all(map(_is_text, value.values()))
    ),
}


def from_json(cls: type[T], document: Any, where: str = "") -> T:
    """Make ``cls`` from a JSON object. Raises InvalidArgument naming the field that has the wrong type."""
    if not isinstance(document, Mapping):
        raise InvalidArgument(f"invalid JSON: {where or cls.__name__} must be an object")
    document = spelled(document, json_names(cast(Any, cls)))
    values: dict[str, Any] = {}
    for attribute, name, how, model, kind in _fields(cls):  # type: ignore[arg-type]
        value = document.get(name)
        if value is None:
            continue
        spot = f"{where}.{name}" if where else name
        if not how and kind in _KINDS and not _KINDS[kind](value):
            raise InvalidArgument(f"invalid JSON: {spot} has the wrong type")
        if how == "one" and model is not None:
            value = from_json(model, value, spot)
        elif how == "many" and model is not None:
            if not isinstance(value, list | tuple):
                raise InvalidArgument(f"invalid JSON: {spot} must be a list")
            value = tuple(from_json(model, item, spot) for item in value)
        elif how == "map" and model is not None:
            if not isinstance(value, Mapping):
                raise InvalidArgument(f"invalid JSON: {spot} must be an object")
            value = {name: from_json(model, item or {}, f"{spot}.{name}") for name, item in value.items()}
        elif how == "lists" and model is not None:
            if not isinstance(value, Mapping):
                raise InvalidArgument(f"invalid JSON: {spot} must be an object")
            value = {
                name: tuple(from_json(model, item, f"{spot}.{name}") for item in items or ())
                for name, items in value.items()
            }
        elif isinstance(value, list):
            value = tuple(value)
        values[attribute] = value
    return cls(**values)


def to_json(model: Any) -> dict[str, Any]:
    """The JSON object of an attrs model, every field present."""
    document: dict[str, Any] = {}
    for attribute, name, how, _, _ in _fields(type(model)):  # type: ignore[arg-type]
        value = getattr(model, attribute)
        if how == "one":
            value = None if value is None else to_json(value)
        elif how == "many":
            value = [to_json(item) for item in value]
        elif how == "map":
            value = {name: to_json(item) for name, item in value.items()}
        elif how == "lists":
            value = {name: [to_json(item) for item in items] for name, items in value.items()}
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        document[name] = value
    return document
