"""Who asks a registry: what clients send, well-formed and not."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from dockp.api.messages import NEWEST, Query, Request
from dockp.api.registry_auth import from_body, from_header
from dockp.spi.errors import InvalidArgument
from dockp.spi.images import Credentials

WHO = {"username": "me", "password": "pass>>??word", "serveraddress": "registry.example"}
TEXT = json.dumps(WHO).encode()


class Body:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, limit: int) -> bytes:
        return self.data


def request(header: str | None = None, body: bytes = b"") -> Request:
    return Request(
        method="POST",
        path="/images/a/push",
        version=NEWEST,
        parameters={},
        query=Query(),
        headers={} if header is None else {"x-registry-auth": header},
        body=Body(body),  # type: ignore[arg-type]
        services=None,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "text",
    [
        base64.urlsafe_b64encode(TEXT).decode(),
        base64.b64encode(TEXT).decode(),
        base64.urlsafe_b64encode(TEXT).decode().rstrip("="),
        base64.urlsafe_b64encode(TEXT + b"\n").decode(),
    ],
)
def test_every_alphabet_is_read(text: str) -> None:
    assert from_header(request(text)) == Credentials(username="me", password="pass>>??word")


@pytest.mark.parametrize("key", ["identitytoken", "registrytoken"])
def test_tokens_are_read(key: str) -> None:
    found = from_header(request(base64.urlsafe_b64encode(json.dumps({key: "abc"}).encode()).decode()))
    assert found == Credentials(**{key.replace("token", "_token"): "abc"})


@pytest.mark.parametrize("text", ["", "null", "!!!", "e30", "bm8", "WzFd", "A" * 100_000, "ÿ", "eyJ1c2VybmFtZSI6MX0"])
def test_what_cannot_be_read_is_nobody(text: str) -> None:
    assert from_header(request(text)) in (None, Credentials())


def test_older_clients_have_it_in_the_body() -> None:
    assert asyncio.run(from_body(request(body=TEXT))).username == "me"


@pytest.mark.parametrize(("body", "why"), [(b"", "EOF"), (b"nonsense", "Expecting value"), (b"[]", "not an object")])
def test_neither_is_refused_in_dockers_words(body: bytes, why: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"^bad parameters and missing X-Registry-Auth: .*{why}"):
        asyncio.run(from_body(request(body=body)))
