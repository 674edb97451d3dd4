"""What registries answer instead, in Docker's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dockp.images.reference import parse
from dockp.images.registry.refusals import refusal
from dockp.spi.errors import Forbidden, InvalidArgument, NotFound, Unauthorized, Unavailable

REQUEST = 'Get "https://r.example/v2/a/manifests/1"'


def body(*errors: Any) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message} for code, message in errors]}).encode()


@pytest.mark.parametrize(
    ("status", "data", "kind", "text"),
    [
        (
            404,
            body(("MANIFEST_UNKNOWN", "manifest unknown")),
            NotFound,
            "manifest for r.example/a:1 not found: manifest unknown: manifest unknown",
        ),
        (
            404,
            body(("NAME_UNKNOWN", "repository name not known to registry")),
            NotFound,
            "repository r.example/a not found: name unknown: repository name not known to registry",
        ),
        (
            401,
            body(("DENIED", "requested access to the resource is denied"), ("UNAUTHORIZED", "authentication required")),
            NotFound,
            "pull access denied for r.example/a, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied",
        ),
        (
            403,
            body(("DENIED", "")),
            NotFound,
            "pull access denied for r.example/a, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied",
        ),
        (
            401,
            body(("UNAUTHORIZED", "authentication required")),
            Unauthorized,
            f"{REQUEST}: unauthorized: authentication required",
        ),
        (401, b"<html>", Unauthorized, f"{REQUEST}: unauthorized: authentication required"),
        (404, b"", NotFound, "manifest for r.example/a:1 not found: 404 Reason"),
        (
            429,
            body(("TOOMANYREQUESTS", "You have reached your pull rate limit.")),
            Unavailable,
            "toomanyrequests: You have reached your pull rate limit.",
        ),
        (429, b'{"details": "slow down"}', Unavailable, "toomanyrequests: slow down"),
        (500, b"<html>", Unavailable, "received unexpected HTTP status: 500 Reason"),
        (503, body(("UNAVAILABLE", "later")), Unavailable, "unavailable: later"),
        (403, b"<html>no", Forbidden, "error parsing HTTP 403 response body: '<html>no'"),
        (400, b"\xff\x00\n\x1b[31m", InvalidArgument, "error parsing HTTP 400 response body: '\ufffd   [31m'"),
        (418, b'{"errors": "x"}', InvalidArgument, """error parsing HTTP 418 response body: '{"errors": "x"}'"""),
        (400, body(("A_B", "one"), ("C", "two")), InvalidArgument, "errors: a b: one; c: two"),
    ],
)
def test_a_refused_pull_says_why(status: int, data: bytes, kind: type, text: str) -> None:
    error = refusal(status, "Reason", data, REQUEST).pull_error(parse("r.example/a:1"))
    assert type(error) is kind
    assert str(error) == text


def test_what_a_bearer_challenge_says_comes_first() -> None:
    challenges = [("bearer", {"error": "insufficient_scope", "realm": "x"})]
    error = refusal(401, "", body(("UNAUTHORIZED", "authentication required")), REQUEST, challenges)
    assert error.code == "DENIED"
    assert str(error.pull_error(parse("secret"))) == (
        "pull access denied for secret, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )


def test_a_strangers_text_is_shown_in_one_line_of_bounded_length() -> None:
    error = refusal(400, "", body(("X", "a\nb\x1b[0m" + "y" * 9999)), REQUEST)
    assert "\n" not in error.text
    assert "\x1b" not in error.text
    assert len(error.text) < 600


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"errors": [1, null, {}, {"code": 5}]}', b"[]", b'{"errors": {}}'])
def test_nonsense_is_a_refusal_too(data: bytes) -> None:
    assert refusal(400, "Bad", data, REQUEST).error()
