"""From method and path to handler."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from dockp.api.messages import Handler, Version


@frozen
class Route:
    """One operation. In ``path``, ``{name}`` takes one part, ``{name:*}`` all that is left or precedes what follows,
    with slashes, as names of images need.

    Attributes:
        since, until: API versions that have it, both included; None for no bound.
    """

    method: str
    path: str
    handler: Handler
    since: Version | None = None
    until: Version | None = None


class Router:
    """Finds the route of a request. Raises nothing: the caller tells 404 from 405 by what `find` gives."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(_pattern(route.path), route) for route in routes]

    def find(self, method: str, path: str, version: Version) -> tuple[Route, Mapping[str, str]] | None:
        """The route and the named parts of ``path`` (decoded already); HEAD is answered by GET where it has no own."""
        for wanted in (method, "GET") if method == "HEAD" else (method,):
            for pattern, route in self._routes:
                if route.method != wanted or (found := pattern.fullmatch(path)) is None:
                    continue
                if (route.since is None or version >= route.since) and (route.until is None or version <= route.until):
                    return route, found.groupdict()
        return None


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+(?::\*)?\})", path)
    text = ""
    for part in parts:
        if part.startswith("{"):
            name, _, rest = part[1:-1].partition(":")
            text += f"(?P<{name}>{'.+' if rest else '[^/]+'})"
        else:
            text += re.escape(part)
    return re.compile(text)
