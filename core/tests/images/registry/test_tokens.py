"""Authentication: challenges, bearer tokens, basic; and whom credentials are told to."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from dockp.images.registry import tokens
from dockp.images.registry.endpoints import Endpoint
from dockp.images.registry.login import login
from dockp.images.registry.refusals import Refused
from dockp.images.registry.repository import Repository
from dockp.images.registry.tokens import challenges
from dockp.spi.errors import InvalidArgument, Unauthorized, Unavailable
from dockp.spi.images import Credentials, RegistrySettings

SETTINGS = RegistrySettings(stall_timeout=2.0)
WHO = Credentials(username="me", password="geheim")
BASIC = "Basic " + base64.b64encode(b"me:geheim").decode()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="a,b"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "a,b"})],
        ),
        ('Basic realm="x y"', [("basic", {"realm": "x y"})]),
        (
            'Basic realm=plain, BEARER Realm = "r" , service=s',
            [("basic", {"realm": "plain"}), ("bearer", {"realm": "r", "service": "s"})],
        ),
        ('Negotiate, Basic realm="a\\"b"', [("negotiate", {}), ("basic", {"realm": 'a"b'})]),
        ("Bearer", [("bearer", {})]),
        ("", []),
        ('realm="x"', []),
        ('Bearer realm="never ends', [("bearer", {"realm": ""})]),
    ],
)
def test_challenges_are_read(text: str, found: Any) -> None:
    response = urllib3.HTTPResponse(headers={"WWW-Authenticate": text})
    assert [(scheme, parameters) for scheme, parameters in challenges(response)][: len(found)] == found


@given(st.text(alphabet='aB ="\\,\t', max_size=60))
def test_any_challenge_is_read_or_left_out(text: str) -> None:
    for scheme, parameters in challenges(urllib3.HTTPResponse(headers={"WWW-Authenticate": text})):
        assert scheme
        assert "" not in parameters


class TokenRegistry:
    """A registry and its token server in one script. ``life``: seconds that tokens are said to last."""

    def __init__(self, answer: Callable[..., Any], life: int = 300) -> None:
        self.answer = answer
        self.life = life
        self.issued: list[str] = []
        self.valid: set[str] = set()
        self.realm = ""
        self.refusal: tuple[int, bytes] | None = None
        self.believes = True

    def __call__(self, request: Any) -> Any:
        if request.path == "/token":
            if self.refusal is not None:
                return self.answer(status=self.refusal[0], body=self.refusal[1])
            self.issued.append(f"t{len(self.issued) + 1}")
            self.valid.add(self.issued[-1])
            return self.answer(body=json.dumps({"token": self.issued[-1], "expires_in": self.life}).encode())
        if self.believes and request.authorization.removeprefix("Bearer ") in self.valid:
            return self.answer(body=b'{"tags": ["1"]}')
        header = {"WWW-Authenticate": f'Bearer realm="{self.realm}",service="reg",scope="repository:a/b:pull"'}
        return self.answer(status=401, headers=header)


@pytest.fixture
def registry(serve: Any, answer: Any) -> Any:
    script = TokenRegistry(answer)
    server = serve(script)
    script.realm = f"http://{server.address}/token"
    return server


def repository(server: Any, credentials: Credentials = Credentials(), **more: Any) -> Repository:  # noqa: B008
    endpoint = Endpoint(url=f"http://{server.address}", verified=False, **more)
    return Repository(endpoint, "a/b", credentials, SETTINGS)


def test_a_token_is_fetched_once_and_used_again(registry: Any) -> None:
    client = repository(registry)
    assert client.tags() == ["1"]
    assert client.tags() == ["1"]
    assert registry.paths() == ["/v2/a/b/tags/list", "/token", "/v2/a/b/tags/list", "/v2/a/b/tags/list"]
    assert parse_qs(registry.asked[1].query) == {"service": ["reg"], "scope": ["repository:a/b:pull"]}
    assert registry.asked[1].authorization == ""


def test_credentials_go_to_the_token_server_and_not_to_the_registry(registry: Any) -> None:
    repository(registry, WHO).tags()
    told = {(request.path, request.authorization) for request in registry.asked}
    assert told == {("/v2/a/b/tags/list", ""), ("/token", BASIC), ("/v2/a/b/tags/list", "Bearer t1")}
    assert parse_qs(registry.asked[1].query)["account"] == ["me"]


def test_a_token_that_expired_is_replaced_before_it_is_used(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    client = repository(registry)
    client.tags()
    later = time.monotonic() + 400
    monkeypatch.setattr(tokens.time, "monotonic", lambda: later)
    client.tags()
    assert [request.authorization for request in registry.asked if request.path != "/token"][-1] == "Bearer t2"


def test_a_token_that_is_refused_is_replaced_once(registry: Any) -> None:
    client = repository(registry)
    client.tags()
    registry.script.valid.clear()
    client.tags()
    assert registry.script.issued == ["t1", "t2"]
    registry.script.believes = False
    with pytest.raises(Refused) as caught:
        client.tags()
    assert caught.value.status == 401
    assert len(registry.script.issued) == 3


def test_threads_share_a_token(registry: Any) -> None:
    client = repository(registry)
    threads = [threading.Thread(target=client.tags) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert registry.script.issued == ["t1"]


def test_an_identity_token_is_exchanged_by_post(registry: Any) -> None:
    repository(registry, Credentials(identity_token="refresh-me")).tags()
    (post,) = [request for request in registry.asked if request.method == "POST"]
    assert {name: value for name, (value,) in parse_qs(post.body.decode()).items()} == {
        "grant_type": "refresh_token",
        "service": "reg",
        "client_id": "dockp",
        "scope": "repository:a/b:pull",
        "refresh_token": "refresh-me",
    }
    assert registry.asked[-1].authorization == "Bearer t1"


def test_a_registry_token_is_sent_as_it_is(registry: Any) -> None:
    registry.script.valid.add("given")
    repository(registry, Credentials(registry_token="given")).tags()
    assert [request.authorization for request in registry.asked] == ["Bearer given"]


def test_a_mirror_is_told_nothing(registry: Any) -> None:
    repository(registry, WHO, mirror=True).tags()
    assert "Basic" not in str(registry.asked)


@pytest.mark.parametrize(
    ("refused", "kind", "text"),
    [
        (
            (401, b'{"details": "incorrect username or password"}'),
            Unauthorized,
            "unauthorized: incorrect username or password",
        ),
        ((403, b'{"errors": [{"code": "DENIED", "message": "denied"}]}'), Unauthorized, "denied: denied"),
        ((500, b""), Unavailable, "received unexpected HTTP status: 500 Internal Server Error"),
        ((200, b"{}"), Unavailable, "authorization server did not include a token in the response"),
        (
            (200, b'{"token": "a\\r\\nb: c"}'),
            Unavailable,
            "authorization server did not include a token in the response",
        ),
        ((200, b"<html>"), Unavailable, "unable to decode token response"),
        ((200, b"[" * 9999), Unavailable, "unable to decode token response"),
    ],
)
def test_a_token_server_that_gives_none_says_why(registry: Any, refused: Any, kind: type, text: str) -> None:
    registry.script.refusal = refused
    with pytest.raises(kind) as caught:
        repository(registry, WHO).tags()
    assert str(caught.value) == f'Get "http://{registry.address}/v2/a/b/tags/list": {text}'


def test_a_token_server_that_is_not_there_is_named(registry: Any) -> None:
    registry.script.realm = "http://127.0.0.1:1/token"
    with pytest.raises(Unavailable) as caught:
        repository(registry).tags()
    assert str(caught.value) == 'Get "http://127.0.0.1:1/token": dial tcp 127.0.0.1:1: connect: connection refused'


@pytest.mark.parametrize("realm", ["", "/token", "file:///etc/passwd", "http://", "http://[", "http://a:b/"])
def test_a_realm_that_is_no_url_is_refused(registry: Any, realm: str) -> None:
    registry.script.realm = realm
    with pytest.raises(InvalidArgument, match="invalid token auth challenge realm"):
        repository(registry, WHO).tags()


def test_a_password_does_not_leave_tls_for_a_token(serve: Any, answer: Any, authority: Any, tmp_path: Any) -> None:
    script = TokenRegistry(answer)
    server = serve(script, authority.server_context())
    other = serve(script)
    script.realm = f"http://{other.address}/token"
    top = authority.certs_d(tmp_path, server.address, "ca.crt")
    endpoint = Endpoint(url=f"https://{server.address}", folders=[f"{top}/{server.address}"])
    with pytest.raises(
        Unauthorized, match=r"wants credentials sent without TLS to \"http://127.0.0.1:\d+/token\": refused"
    ):
        Repository(endpoint, "a/b", WHO, SETTINGS).tags()
    assert not other.asked
    assert Repository(endpoint, "a/b", Credentials(), SETTINGS).tags() == ["1"]


def test_basic_is_sent_when_it_is_asked_for_and_from_then_on(serve: Any, answer: Any) -> None:
    def script(request: Any) -> Any:
        if request.authorization == BASIC:
            return answer(body=b'{"tags": null}')
        return answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    server = serve(script)
    client = repository(server, WHO)
    assert client.tags() == []
    assert client.tags() == []
    assert [request.authorization for request in server.asked] == ["", BASIC, BASIC]
    with pytest.raises(Unauthorized, match=r'^Get "http://.*/v2/a/b/tags/list": no basic auth credentials$'):
        repository(server).tags()
    with pytest.raises(Refused):
        repository(server, Credentials(username="me", password="wrong")).tags()


def test_a_refresh_token_is_not_sent_on_to_another_host(registry: Any, serve: Any, answer: Any) -> None:
    other = serve(lambda request: answer(body=b'{"token": "x"}'))
    moved = serve(lambda request: answer(status=307, headers={"Location": f"http://{other.address}/token"}))
    registry.script.realm = f"http://{moved.address}/token"
    with pytest.raises(Unavailable, match=r'^Post "http://.*/token": redirected to another host$'):
        repository(registry, Credentials(identity_token="refresh-me")).tags()
    assert not other.asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_are_dropped_on_the_way_to_another_host(serve: Any, answer: Any, status: int) -> None:
    other = serve(lambda request: answer(body=b"blob"))

    def script(request: Any) -> Any:
        if not request.authorization:
            return answer(status=401, headers={"WWW-Authenticate": "Basic"})
        if request.path.endswith("/there"):
            return answer(status=status, headers={"Location": f"http://{other.address}/x?signature=1"})
        return answer(status=status, headers={"Location": "there"})

    server = serve(script)
    client = repository(server, WHO)
    assert client.open_blob("sha256:" + "0" * 64, 0).read() == b"blob"
    assert [request.authorization for request in server.asked] == ["", BASIC, BASIC]
    assert [request.authorization for request in other.asked] == [""]
    # Asked for them by the other host, too.
    other.script = lambda request: answer(status=401, headers={"WWW-Authenticate": "Basic"})
    with pytest.raises(Refused):
        client.open_blob("sha256:" + "0" * 64, 0)
    assert BASIC not in str(other.asked)


def test_login_gets_an_identity_token_where_there_is_one(serve: Any, answer: Any) -> None:
    script = TokenRegistry(answer)

    def with_refresh(request: Any) -> Any:
        if request.path == "/token":
            assert parse_qs(request.query)["offline_token"] == ["true"]
            script.valid.add("t")
            return answer(body=b'{"access_token": "t", "refresh_token": "keep"}')
        return script(request)

    server = serve(with_refresh)
    script.realm = f"http://{server.address}/token"
    assert login(server.address, WHO, SETTINGS) == "keep"


def test_login_fails_in_dockers_words(serve: Any, answer: Any) -> None:
    server = serve(lambda request: answer(status=401, headers={"WWW-Authenticate": "Basic"}))
    with pytest.raises(Unauthorized) as caught:
        login(server.address, WHO, SETTINGS)
    assert str(caught.value) == f"login attempt to http://{server.address}/v2/ failed with status: 401 Unauthorized"


def test_secrets_are_in_no_log_and_no_error(registry: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    repository(registry, WHO).tags()
    registry.script.refusal = (401, b"")
    with pytest.raises(Unauthorized) as caught:
        repository(registry, WHO).tags()
    assert "geheim" not in caplog.text + str(caught.value) + repr(WHO)
    assert BASIC not in caplog.text
    assert "t1" not in caplog.text
