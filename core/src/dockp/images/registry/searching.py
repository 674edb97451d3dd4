"""What a registry has: Docker Hub's search, which some registries offer too, or else a registry's catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from dockp.images.reference import DEFAULT_DOMAIN
from dockp.images.registry.endpoints import Endpoint, endpoints
from dockp.images.registry.refusals import Refused
from dockp.images.registry.repository import Repository, next_page
from dockp.images.registry.transport import Unreachable, read
from dockp.spi.errors import InvalidArgument, NotImplemented, Unauthorized, Unavailable
from dockp.spi.images import Credentials, RegistrySettings

DEFAULT_LIMIT, LARGEST_LIMIT = 25, 100
_INDEX = "https://index.docker.io"
_ANSWER_LIMIT = 4 << 20
_FILTERS = ("is-official", "is-automated", "stars")
_WORDS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_PAGES = 100

Found = dict[str, Any]


def search(
    term: str,
    *,
    limit: int,
    filters: Mapping[str, Sequence[str]],
    credentials: Credentials,
    settings: RegistrySettings,
) -> list[Found]:
    """See `dockp.interface.Images.search`."""
    if not 0 <= limit <= LARGEST_LIMIT:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {LARGEST_LIMIT}]")
    wanted = _wanted(filters)
    domain, text = _split(term)
    if domain == DEFAULT_DOMAIN:
        places = [Endpoint(url=_INDEX)]
    else:
        places = endpoints(domain, settings, mirrors=False)
    for endpoint in places:
        place = Repository(endpoint, "", credentials, settings)
        try:
            found = _ask(place, text, limit or DEFAULT_LIMIT)
        except Unreachable:
            if endpoint is places[-1]:
                raise
        else:
            return [one for one in found if wanted(one)][: limit or DEFAULT_LIMIT]
        finally:
            place.close()
    raise AssertionError("the last place returns or raises")


def _split(term: str) -> tuple[str, str]:
    """The registry and what is looked for. Raises: InvalidArgument in Docker's words."""
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    first, slash, rest = term.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return (DEFAULT_DOMAIN if first == "index.docker.io" else first), rest
    return DEFAULT_DOMAIN, term.removeprefix("library/")


def _ask(place: Repository, text: str, limit: int) -> list[Found]:
    url = f"{place.endpoint.url}/v1/search?{urlencode({'q': text, 'n': limit})}"
    try:
        document = _document(place, url)
    except Refused as refused:
        if refused.status in (401, 403, 429) or refused.status >= 500:
            raise refused.error() from None
    else:
        results = document.get("results")
        if isinstance(results, list):
            return [_entry(one) for one in results if isinstance(one, dict)]
    try:
        return [_entry({"name": f"{_host(place)}/{name}"}) for name in _catalogue(place) if text in name]
    except (Refused, Unauthorized, Unavailable) as error:
        if isinstance(error, Unreachable):
            raise
        why = error.text if isinstance(error, Refused) else str(error)
        raise NotImplemented(f"the registry {_host(place)} cannot be searched: {why}") from None


def _catalogue(place: Repository) -> Iterator[str]:
    url = f"{place.endpoint.url}/v2/_catalog?n=1000"
    for _ in range(_PAGES):
        response = place.request("GET", url, actions="", scopes=["registry:catalog:*"])
        following = next_page(response, url)
        names = _parsed(read(response, _ANSWER_LIMIT, "GET", url), url).get("repositories") or []
        yield from (name for name in names if isinstance(name, str))
        if not following:
            return
        url = following


def _document(place: Repository, url: str) -> dict[str, Any]:
    return _parsed(read(place.request("GET", url, actions=""), _ANSWER_LIMIT, "GET", url), url)


def _parsed(data: bytes, url: str) -> dict[str, Any]:
    try:
        document = json.loads(data) if len(data) <= _ANSWER_LIMIT else None
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _host(place: Repository) -> str:
    return place.endpoint.url.partition("://")[2]


def _entry(given: Mapping[str, Any]) -> Found:
    stars = given.get("star_count")
    return {
        "star_count": stars if isinstance(stars, int) else 0,
        "is_official": given.get("is_official") is True,
        "name": str(given.get("name") or ""),
        "is_automated": False,  # Docker Hub builds nothing any more, and Docker says so of everything
        "description": str(given.get("description") or ""),
    }


class _Wanted:
    """Whether filters let a result through."""

    def __init__(self, official: bool | None, automated: bool | None, stars: int) -> None:
        self._official, self._automated, self._stars = official, automated, stars

    def __call__(self, found: Found) -> bool:
        return (
            (self._official is None or found["is_official"] == self._official)
            and (self._automated is None or found["is_automated"] == self._automated)
            and int(found["star_count"]) >= self._stars
        )


def _wanted(filters: Mapping[str, Sequence[str]]) -> _Wanted:
    """Raises: InvalidArgument."""
    for name in filters:
        if name not in _FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
    stars = 0
    for value in filters.get("stars", ()):
        if not value.isdigit():
            raise InvalidArgument(f"invalid filter 'stars={value}'")
        stars = max(stars, int(value))
    return _Wanted(_switch(filters, "is-official"), _switch(filters, "is-automated"), stars)


def _switch(filters: Mapping[str, Sequence[str]], name: str) -> bool | None:
    values = filters.get(name)
    if not values:
        return None
    if any(value.lower() not in _WORDS for value in values):
        raise InvalidArgument(f"invalid filter '{name}={list(values)}'")
    return _WORDS[values[0].lower()]
