"""Authentication to a registry: challenges, bearer tokens, basic. Sources: RFC 9110 11.6, distribution's token specs.

A registry that wants to know who asks answers 401 and says how: with the caller's name and password (basic), or with a
token from a server that it names (bearer). Tokens are kept until they expire, by what they are for.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from attrs import frozen

from dockp.images.registry.endpoints import Endpoint
from dockp.images.registry.refusals import refusal
from dockp.images.registry.transport import Response, Transport, finish, read, spelled
from dockp.spi.errors import InvalidArgument, Unauthorized, Unavailable
from dockp.spi.images import Credentials

Challenge = tuple[str, Mapping[str, str]]

_CLIENT = "dockp"
_LEAST_LIFE = 60.0
"""Seconds that a token lasts where its server does not say: what the token specification has."""
_EARLY = 10.0
_TOKEN_LIMIT = 1 << 20
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PIECE = re.compile(
    rf'\s*(?:(?P<name>{_WORD})\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s,"]*))|(?P<scheme>{_WORD})|,)'
)
_HEADER_VALUE = re.compile(r"[!-~]+")


@frozen(kw_only=True)
class _Token:
    header: str
    expires: float


class NoCredentials(Unauthorized):
    """There are none, or they are not good enough. ``reason``: the message without the request that it is about."""

    def __init__(self, request: str, reason: str) -> None:
        super().__init__(f"{request}: {reason}")
        self.reason = reason


class Authorizer:
    """What to send as ``Authorization`` to one endpoint. Thread-safe: threads that want the same token share it."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials, transport: Transport) -> None:
        # A mirror is another host than the one the credentials are for.
        self._credentials = Credentials() if endpoint.mirror else credentials
        self._endpoint = endpoint
        self._transport = transport
        self._guard = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}
        self._refresh = self._credentials.identity_token

    @property
    def identity_token(self) -> str:
        """The refresh token: the one that was given, or the one a token server gave for it or for a password."""
        return self._refresh

    def header(self, scopes: Iterable[str]) -> str | None:
        """What is known to be wanted, or None; gets a new token where one has expired. Raises: as `answer`."""
        with self._guard:
            if self._credentials.registry_token:
                return f"Bearer {self._credentials.registry_token}"
            if self._challenge is None:
                return None
            if self._challenge[0] == "basic":
                return self._basic()
            return self._bearer(frozenset(scopes), f'Get "{self._endpoint.url}/v2/"')

    def answer(
        self,
        found: Sequence[Challenge],
        scopes: Iterable[str],
        used: str | None,
        request: str,
        *,
        offline: bool = False,
    ) -> str | None:
        """What to send after a 401, or None when there is nothing better than what was ``used``.

        Args: request: what was asked for, for messages. offline: ask for a refresh token as well, as `login` does.
        Raises: Unauthorized when there are no credentials or they are wrong, Unavailable without a token server.
        """
        if self._credentials.registry_token:
            return None
        by_scheme = dict(reversed(list(found)))
        wanted = frozenset(scopes)
        with self._guard:
            if "bearer" in by_scheme:
                self._challenge = ("bearer", by_scheme["bearer"])
                token = self._tokens.get(wanted)
                if token is not None and token.header == used:
                    del self._tokens[wanted]
                header: str | None = self._bearer(wanted, request, offline=offline)
            elif "basic" in by_scheme:
                self._challenge = ("basic", by_scheme["basic"])
                if not self._credentials.username:
                    raise NoCredentials(request, "no basic auth credentials")
                header = self._basic()
            else:
                return None
        return None if header == used else header

    def _basic(self) -> str | None:
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}" if self._credentials.username else None

    def _bearer(self, scopes: frozenset[str], request: str, *, offline: bool = False) -> str:
        token = self._tokens.get(scopes)
        if token is None or time.monotonic() > token.expires:
            assert self._challenge is not None
            token = self._fetch(self._challenge[1], scopes, request, offline)
            self._tokens[scopes] = token
        return token.header

    def _fetch(self, challenge: Mapping[str, str], scopes: frozenset[str], request: str, offline: bool) -> _Token:
        realm, service = challenge.get("realm", ""), challenge.get("service", "")
        self._check_realm(realm, request)
        # One request may need several scopes; the registry may know one more.
        wanted = sorted(scopes | {scope for scope in [challenge.get("scope", "")] if scope})
        began = time.monotonic()
        if self._refresh:
            response = self._by_refresh_token(realm, service, wanted)
        else:
            response = self._by_password(realm, service, wanted, offline)
        method = "POST" if self._refresh else "GET"
        body = read(response, _TOKEN_LIMIT, method, realm)
        if response.status >= 400:
            refused = refusal(response.status, response.reason or "", body, request)
            if response.status in (400, 401, 403):
                raise NoCredentials(request, refused.first)
            raise Unavailable(f"{request}: {refused.first}")
        document = _document(body, request)
        value = document.get("token") or document.get("access_token")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise Unavailable(f"{request}: authorization server did not include a token in the response")
        refresh = document.get("refresh_token")
        if isinstance(refresh, str) and refresh:
            self._refresh = refresh
        life = document.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) and not isinstance(life, bool) else 0.0
        return _Token(header=f"Bearer {value}", expires=began + max(seconds, _LEAST_LIFE) - _EARLY)

    def _by_password(self, realm: str, service: str, scopes: Sequence[str], offline: bool) -> Response:
        query = [("scope", scope) for scope in scopes]
        if service:
            query.insert(0, ("service", service))
        headers = {}
        if basic := self._basic():
            query.insert(0, ("account", self._credentials.username))
            headers["Authorization"] = basic
        if offline:
            query += [("client_id", _CLIENT), ("offline_token", "true")]
        url = realm + ("&" if "?" in realm else "?") + urlencode(query)
        return self._transport.send("GET", url, headers=headers)

    def _by_refresh_token(self, realm: str, service: str, scopes: Sequence[str]) -> Response:
        form = {"grant_type": "refresh_token", "service": service, "client_id": _CLIENT, "scope": " ".join(scopes)}
        body = urlencode({**form, "refresh_token": self._refresh}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = self._transport.send("POST", realm, headers=headers, body=body)
        # A server that knows no POST may still take the name and password.
        if response.status in (404, 405) and self._credentials.password:
            finish(response)
            self._refresh = ""
            return self._by_password(realm, service, scopes, False)
        return response

    def _check_realm(self, realm: str, request: str) -> None:
        try:
            parts = urlsplit(realm)
            _ = parts.port
        except ValueError:
            raise InvalidArgument(f"{request}: invalid token auth challenge realm: {realm[:200]!r}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidArgument(f"{request}: invalid token auth challenge realm: {realm[:200]!r}")
        secret = self._refresh or self._credentials.password
        if secret and parts.scheme == "http" and self._endpoint.verified and self._endpoint.url.startswith("https:"):
            raise Unauthorized(
                f"{request}: the registry wants credentials sent without TLS to {spelled('GET', realm)[4:]}: refused"
            )


def challenges(response: Response) -> list[Challenge]:
    """Scheme, in lower case, and parameters of each ``WWW-Authenticate`` challenge. What cannot be read is left out."""
    found: list[tuple[str, dict[str, str]]] = []
    for text in response.headers.getlist("WWW-Authenticate"):
        position = 0
        while position < len(text):
            match = _PIECE.match(text, position)
            if match is None or match.end() == position:
                break
            position = match.end()
            if match["scheme"]:
                found.append((match["scheme"].lower(), {}))
            elif match["name"] and found:
                value = match["bare"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
                found[-1][1].setdefault(match["name"].lower(), value)
    return [(scheme, parameters) for scheme, parameters in found]


def _document(body: bytes, request: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{request}: unable to decode token response")
    return document
