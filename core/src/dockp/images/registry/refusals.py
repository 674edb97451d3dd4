"""What a registry answers instead of what it was asked for, as errors in Docker's words.

A refusal is a document ``{"errors": [{"code", "message", "detail"}]}`` (distribution-spec, "Error Codes"), or anything
at all that something in between made up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from dockp.images.reference import Reference
from dockp.spi.errors import DockpError, Forbidden, InvalidArgument, NotFound, NotImplemented, Unauthorized, Unavailable

DENIED, UNAUTHORIZED = "DENIED", "UNAUTHORIZED"
TEXT_LIMIT = 500
"""Characters of a stranger's message that are shown."""

_DEFAULT_MESSAGES = {DENIED: "requested access to the resource is denied", UNAUTHORIZED: "authentication required"}
_BY_STATUS: Mapping[int, type[DockpError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: NotImplemented,
    429: Unavailable,
}


class Refused(Exception):
    """A registry's answer with a status of 400 or more.

    Attributes:
        errors: code and message of each error that the answer lists; may be empty.
        request: ``Get "https://…"``, what it was the answer to.
        retry_after: seconds that the registry asks to wait, or None.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        errors: Sequence[tuple[str, str]],
        text: str,
        request: str,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.errors = errors
        self.text = text
        self.request = request
        self.retry_after = retry_after

    @property
    def code(self) -> str:
        """The first error's code, such as ``MANIFEST_UNKNOWN``, or ""."""
        return self.errors[0][0] if self.errors else ""

    @property
    def first(self) -> str:
        """The first error alone, as text."""
        return _spelled(*self.errors[0]) if self.errors else self.text

    def error(self) -> DockpError:
        """As the engine's error, told as the registry told it."""
        kind = Forbidden if self.code == DENIED else _BY_STATUS.get(self.status)
        if kind is None:
            kind = Unavailable if self.status >= 500 else InvalidArgument
        return kind(self.text)

    def pull_error(self, reference: Reference) -> DockpError:
        """As what a pull of ``reference`` ends with."""
        match self.code:
            case "DENIED":
                # Whether a private repository exists is nobody's business, so registries say the same of both.
                return NotFound(
                    f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
                    f"'docker login': {self.first}"
                )
            case "MANIFEST_UNKNOWN":
                return NotFound(f"manifest for {reference.familiar} not found: {self.first}")
            case "NAME_UNKNOWN":
                return NotFound(f"repository {reference.familiar_name} not found: {self.first}")
            case "UNAUTHORIZED" if self.status == 401:
                return Unauthorized(f"{self.request}: {self.first}")
        if self.status == 404 and not self.errors:
            return NotFound(f"manifest for {reference.familiar} not found: {self.text}")
        return self.error()


def refusal(
    status: int, reason: str, body: bytes, request: str, challenges: Sequence[tuple[str, Mapping[str, str]]] = ()
) -> Refused:
    """Read an answer. ``challenges``: those of its header, see `dockp.images.registry.tokens.challenges`."""
    errors = [*_from_challenges(challenges), *_listed(status, body)]
    if errors:
        spelled = [_spelled(code, message) for code, message in errors]
        text = spelled[0] if len(spelled) == 1 else "errors: " + "; ".join(spelled)
    elif status == 401:
        errors = [(UNAUTHORIZED, _DEFAULT_MESSAGES[UNAUTHORIZED])]
        text = _spelled(*errors[0])
    elif status >= 500:
        text = f"received unexpected HTTP status: {status} {reason}".rstrip()
    else:
        shown = body.decode(errors="replace")
        text = (
            f"error parsing HTTP {status} response body: {_clipped(shown)!r}"
            if shown
            else f"{status} {reason}".rstrip()
        )
    return Refused(status, reason, errors, text, request)


def _listed(status: int, body: bytes) -> list[tuple[str, str]]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    listed = document.get("errors")
    found = []
    if isinstance(listed, list):
        for entry in listed[:10]:
            code = entry.get("code") if isinstance(entry, dict) else entry
            message = entry.get("message") if isinstance(entry, dict) else ""
            if isinstance(code, str) and code:
                found.append((code.upper(), message if isinstance(message, str) else ""))
    # Spellings of token servers and of Docker Hub's rate limiter.
    details = document.get("details") or document.get("message") or document.get("error_description")
    if not found and isinstance(details, str):
        found.append(({401: UNAUTHORIZED, 403: DENIED, 429: "TOOMANYREQUESTS"}.get(status, "UNKNOWN"), details))
    return found


def _from_challenges(challenges: Sequence[tuple[str, Mapping[str, str]]]) -> list[tuple[str, str]]:
    """What a bearer challenge says is wrong: RFC 6750, 3.1."""
    codes = {"invalid_token": UNAUTHORIZED, "insufficient_scope": DENIED}
    for scheme, parameters in challenges:
        code = codes.get(parameters.get("error", ""))
        if scheme == "bearer" and code is not None:
            return [(code, parameters.get("error_description") or _DEFAULT_MESSAGES[code])]
    return []


def _spelled(code: str, message: str) -> str:
    name = code.lower().replace("_", " ")
    return f"{name}: {_clipped(message or _DEFAULT_MESSAGES.get(code, name))}"


def _clipped(text: str) -> str:
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= TEXT_LIMIT else line[:TEXT_LIMIT] + "…"
