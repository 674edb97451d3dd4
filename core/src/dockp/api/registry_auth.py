"""Who asks a registry, as clients of the Engine API say it: Docker's ``AuthConfig``."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from dockp.api.messages import JSON_LIMIT, Request
from dockp.spi.errors import InvalidArgument
from dockp.spi.images import Credentials

HEADER: Final = "x-registry-auth"
_PLAIN: Final = str.maketrans("-_", "+/")


def from_header(request: Request) -> Credentials | None:
    """What the header ``X-Registry-Auth`` says: JSON in the base64 of URLs (RFC 4648, 5).

    None without one, and, as Docker has it, when it cannot be read: the registry says whether it takes nobody.
    """
    # Clients differ in the alphabet, and in whether they fill up.
    text = request.headers.get(HEADER, "").strip().rstrip("=").translate(_PLAIN)
    try:
        given = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (ValueError, RecursionError):
        return None
    return from_document(given) if isinstance(given, dict) else None


async def from_body(request: Request) -> Credentials:
    """The body, where clients of old had it. Raises: InvalidArgument in Docker's words."""
    body = (await request.body.read(JSON_LIMIT)).strip()
    try:
        given = json.loads(body)
        if not isinstance(given, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        why = str(error) if body else "EOF"
        raise InvalidArgument(
            f"bad parameters and missing X-Registry-Auth: invalid X-Registry-Auth header: {why}"
        ) from None
    return from_document(given)


def from_document(given: Mapping[str, Any]) -> Credentials:
    """An ``AuthConfig``; what is no text in it counts as absent."""

    def text(name: str) -> str:
        value = given.get(name)
        return value if isinstance(value, str) else ""

    return Credentials(
        username=text("username"),
        password=text("password"),
        identity_token=text("identitytoken"),
        registry_token=text("registrytoken"),
    )
