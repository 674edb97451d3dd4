"""Docker's config.json, credential stores and helpers."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from dockp.images.registry.credentials import HUB_SERVER, CredentialStore, server_of
from dockp.spi.errors import InvalidArgument, SystemFault
from dockp.spi.images import Credentials

WHO = Credentials(username="me", password="a:b c")
HELPER = """#!/usr/bin/python3
import json, os, sys
verb, text = sys.argv[1], sys.stdin.read()
path = os.path.join(os.path.dirname(__file__), "kept.json")
kept = json.load(open(path)) if os.path.exists(path) else {}
if verb == "list":
    print(json.dumps({server: entry["Username"] for server, entry in kept.items()}))
elif verb == "store":
    entry = json.loads(text)
    kept[entry["ServerURL"]] = entry
elif text.strip() not in kept:
    print("credentials not found in native keychain")
    sys.exit(1)
elif verb == "get":
    print(json.dumps(kept[text.strip()]))
elif verb == "erase":
    del kept[text.strip()]
json.dump(kept, open(path, "w"))
"""


@pytest.fixture
def store(tmp_path: Path) -> CredentialStore:
    return CredentialStore(str(tmp_path / "docker"))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker-credential-test").write_text(HELPER)
    (folder / "docker-credential-test").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return "test"


def write(store: CredentialStore, document: Any) -> None:
    Path(store.path).parent.mkdir(parents=True, exist_ok=True)
    Path(store.path).write_text(document if isinstance(document, str) else json.dumps(document))


def read(store: CredentialStore) -> Any:
    return json.loads(Path(store.path).read_text())


def test_docker_hub_has_a_name_of_its_own() -> None:
    assert server_of("docker.io") == server_of("") == server_of("index.docker.io") == HUB_SERVER
    assert server_of("ghcr.io:5000") == "ghcr.io:5000"


def test_what_is_stored_is_found_and_gone_when_erased(store: CredentialStore) -> None:
    assert store.get("r.example") == Credentials()
    assert store.erase("r.example") is False
    store.store("r.example", WHO)
    assert store.get("r.example") == WHO
    assert read(store) == {"auths": {"r.example": {"auth": base64.b64encode(b"me:a:b c").decode()}}}
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(store.path)).st_mode) == 0o700
    assert store.all() == {"r.example": WHO}
    assert store.erase("r.example") is True
    assert store.get("r.example") == Credentials()


def test_an_identity_token_is_kept_instead_of_the_password(store: CredentialStore) -> None:
    store.store("r.example", Credentials(username="me", password="x", identity_token="token"))
    assert "x" not in base64.b64decode(read(store)["auths"]["r.example"]["auth"]).decode()
    assert store.get("r.example") == Credentials(username="me", identity_token="token")


def test_what_else_the_file_holds_stays(store: CredentialStore) -> None:
    write(store, {"currentContext": "x", "HttpHeaders": {"A": "b"}, "auths": {"b": {"auth": "YTpi"}}})
    store.store("a", WHO)
    store.erase("b")
    assert read(store)["currentContext"] == "x"
    assert read(store)["HttpHeaders"] == {"A": "b"}
    assert list(read(store)["auths"]) == ["a"]


def test_the_file_may_be_a_link(store: CredentialStore, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "dotfiles" / "config.json").write_text("{}")
    (tmp_path / "docker").mkdir()
    Path(store.path).symlink_to(tmp_path / "dotfiles" / "config.json")
    store.store("a", WHO)
    assert Path(store.path).is_symlink()
    assert store.get("a") == WHO


@pytest.mark.parametrize("name", ["https://r.example", "https://r.example/v1/", "http://r.example/v2/", "r.example"])
def test_old_spellings_of_a_server_are_found(store: CredentialStore, name: str) -> None:
    write(store, {"auths": {"other": {}, name: {"auth": base64.b64encode(b"me:a:b c").decode()}}})
    assert store.get("r.example") == WHO
    assert store.get("r.example:443") == Credentials()


@pytest.mark.parametrize("auth", ["%%%", "bWU=", "/////w=="])
def test_a_malformed_entry_is_refused(store: CredentialStore, auth: str) -> None:
    write(store, {"auths": {"a": {"auth": auth}}})
    with pytest.raises(InvalidArgument, match=r"^invalid auth configuration file$"):
        store.get("a")


def test_a_malformed_file_is_refused_and_left_alone(store: CredentialStore) -> None:
    write(store, "{not json")
    for act in (lambda: store.get("a"), lambda: store.store("a", WHO), lambda: store.erase("a")):
        with pytest.raises(InvalidArgument, match=r"^loading config file: .*config\.json: "):
            act()
    assert Path(store.path).read_text() == "{not json"


def test_a_store_keeps_secrets_out_of_the_file(store: CredentialStore, helper: str) -> None:
    write(store, {"credsStore": helper})
    assert store.get("a") == Credentials()
    store.store("a", WHO)
    store.store("b", Credentials(identity_token="token"))
    assert read(store)["auths"] == {"a": {}, "b": {}}
    assert store.get("a") == WHO
    assert store.get("b") == Credentials(identity_token="token")
    assert set(store.all()) == {"a", "b"}
    assert store.erase("a") is True
    assert store.get("a") == Credentials()
    assert store.erase("a") is False


def test_a_helper_is_for_its_server_alone(store: CredentialStore, helper: str) -> None:
    write(store, {"credHelpers": {"a": helper}})
    store.store("a", WHO)
    store.store("b", WHO)
    assert set(read(store)["auths"]["b"]) == {"auth"}
    assert read(store)["auths"]["a"] == {}
    assert store.get("a") == store.get("b") == WHO
    assert store.helper("a") == helper
    assert store.helper("b") == ""


def test_a_helper_that_is_missing_or_fails_is_named(store: CredentialStore, tmp_path: Path, monkeypatch: Any) -> None:
    write(store, {"credsStore": "absent"})
    with pytest.raises(SystemFault) as caught:
        store.get("a")
    assert str(caught.value) == (
        'error getting credentials - err: exec: "docker-credential-absent": executable file not found in $PATH, out: ``'
    )
    (tmp_path / "docker-credential-bad").write_text("#!/bin/sh\necho no way\nexit 3\n")
    (tmp_path / "docker-credential-bad").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write(store, {"credsStore": "bad"})
    with pytest.raises(SystemFault) as caught:
        store.store("a", WHO)
    assert str(caught.value) == "error storing credentials - err: exit status 3, out: `no way`"
    assert WHO.password not in str(caught.value)
    write(store, {"credsStore": "../evil"})
    with pytest.raises(InvalidArgument, match="is not the name of a credential helper"):
        store.get("a")
