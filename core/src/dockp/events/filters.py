"""Which events a listener wants: the filters of ``GET /events``, by Docker's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dockp.events.log import Event
from dockp.spi.errors import InvalidArgument

_BY_ACTOR = ("config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume")
"""Keys whose values are the beginning of an actor's id or name. As in Docker the type of the event does not matter."""

_COMPOSED = frozenset(("health_status", "exec_create", "exec_start"))
"""Actions with something after a colon: who names one of them wants events by their beginning."""


def check(filters: Mapping[str, Sequence[str]]) -> None:
    """Raises: InvalidArgument for a key that there is not."""
    for key in filters:
        if key not in _MATCHERS:
            raise InvalidArgument(f"invalid filter '{key}'")


def passes(event: Event, filters: Mapping[str, Sequence[str]]) -> bool:
    """Values of one key are alternatives, but for labels, which must all be there; all keys must match."""
    return all(_MATCHERS[key](event, key, values) for key, values in filters.items() if values)


def _type(event: Event, key: str, values: Sequence[str]) -> bool:
    return event["Type"] in values


def _scope(event: Event, key: str, values: Sequence[str]) -> bool:
    return event["scope"] in values


def _action(event: Event, key: str, values: Sequence[str]) -> bool:
    action: str = event["Action"]
    if _COMPOSED.isdisjoint(values):
        return action in values
    return any(action.startswith(value) for value in values)


def _actor(event: Event, key: str, values: Sequence[str]) -> bool:
    actor = event["Actor"]
    name = actor["Attributes"].get("name", "")
    return any(actor["ID"].startswith(value) or name.startswith(value) for value in values)


def _image(event: Event, key: str, values: Sequence[str]) -> bool:
    """By id or name of an image, or the image of a container; each with its tag or without."""
    actor = event["Actor"]
    name = actor["Attributes"].get("name" if event["Type"] == "image" else "image", "")
    return any(text in values for text in (actor["ID"], name, _without_tag(actor["ID"]), _without_tag(name)))


def _without_tag(name: str) -> str:
    from dockp.images.reference import parse

    try:
        return parse(name).familiar_name
    except InvalidArgument:
        return ""


def _labels(event: Event, key: str, values: Sequence[str]) -> bool:
    attributes = event["Actor"]["Attributes"]
    for value in values:
        name, separator, wanted = value.partition("=")
        if name not in attributes or (separator and attributes[name] != wanted):
            return False
    return True


_MATCHERS: Mapping[str, Callable[[Event, str, Sequence[str]], bool]] = {
    "event": _action,
    "image": _image,
    "label": _labels,
    "scope": _scope,
    "type": _type,
    **dict.fromkeys(_BY_ACTOR, _actor),
}
