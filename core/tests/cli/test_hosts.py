"""Which engine a command speaks to, and Docker's contexts."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from clihelpers import Outcome

from dockp.cli import hosts
from dockp.cli.app import Failure
from dockp.remote.contexts import Context, ContextStore
from dockp.remote.endpoint import Tls


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContextStore:
    """Two contexts, and no variable that says where to go."""
    for name in ("DOCKP_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(hosts, "DEFAULT_HOST", f"unix://{tmp_path}/default.sock")
    store = ContextStore(str(tmp_path))
    store.add(Context(name="far", host="ssh://far", description="the big one"), {})
    store.add(Context(name="safe", host="tcp://safe:2376"), {"ca": b"authority"})
    return store


@pytest.mark.parametrize(
    ("flags", "environ", "host"),
    [
        ({}, {}, "embedded"),
        ({"host": ["tcp://a"]}, {"DOCKP_HOST": "tcp://b", "DOCKER_HOST": "tcp://c"}, "tcp://a"),
        ({"context": "far"}, {"DOCKP_HOST": "tcp://b"}, "ssh://far"),
        ({"context": "default"}, {"DOCKER_CONTEXT": "far"}, "embedded"),
        ({}, {"DOCKP_HOST": "tcp://b", "DOCKER_HOST": "tcp://c"}, "tcp://b"),
        ({}, {"DOCKP_HOST": "tcp://b", "DOCKP_DATA_ROOT": "/x"}, "tcp://b"),
        ({}, {"DOCKER_HOST": "tcp://c", "DOCKER_CONTEXT": "far"}, "tcp://c"),
        ({}, {"DOCKER_HOST": "tcp://c", "DOCKP_DATA_ROOT": "/x"}, "embedded"),
        ({"data_root": "/x"}, {"DOCKER_HOST": "tcp://c"}, "embedded"),
        ({"storage_driver": "vfs"}, {"DOCKER_HOST": "tcp://c"}, "tcp://c"),
        ({}, {"DOCKER_CONTEXT": "far"}, "ssh://far"),
        ({}, {"DOCKP_HOST": "embedded", "DOCKER_HOST": "tcp://c"}, "embedded"),
    ],
)
def test_the_first_that_says_where_wins(
    store: ContextStore, flags: dict[str, object], environ: dict[str, str], host: str
) -> None:
    assert hosts.choose(flags, {"DOCKER_CONFIG": store.directory, **environ}).host == host


def test_the_current_context_counts_and_then_a_daemon_that_listens(store: ContextStore) -> None:
    environ = {"DOCKER_CONFIG": store.directory}
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(hosts.DEFAULT_HOST.removeprefix("unix://"))
        assert hosts.choose({}, environ).host == "embedded"  # a socket that a dead daemon left
        daemon.listen()
        assert hosts.choose({}, environ).host == hosts.DEFAULT_HOST
        store.use("safe")
        chosen = hosts.choose({}, environ)
    assert (chosen.host, chosen.context) == ("tcp://safe:2376", "safe")
    assert chosen.tls is not None
    assert Path(chosen.tls.ca).read_bytes() == b"authority"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"host": ["a", "b"]}, "Specify only one -H"),
        ({"host": ["a"], "context": "far"}, "cannot specify both --host and --context"),
        ({"host": ["a"], "data_root": "/x"}, "--data-root is for an engine in this process"),
        ({"context": "far", "storage_opt": ["a=b"]}, "--storage-opt is for an engine in this process"),
        ({"context": "nosuch"}, 'context "nosuch": context not found: open '),
    ],
)
def test_contradictions_are_refused(store: ContextStore, flags: dict[str, object], text: str) -> None:
    with pytest.raises(Failure, match=text):
        hosts.choose(flags, {"DOCKER_CONFIG": store.directory})


def test_tls_by_flags_and_by_environment(store: ContextStore) -> None:
    environ = {"DOCKER_CONFIG": store.directory, "DOCKP_HOST": "tcp://a"}
    assert hosts.choose({}, environ).tls is None
    assert hosts.choose({"tls": True}, environ).tls == Tls(verify=False)
    (Path(store.directory) / "ca.pem").write_text("")
    ca = f"{store.directory}/ca.pem"
    assert hosts.choose({}, {**environ, "DOCKER_TLS_VERIFY": "1"}).tls == Tls(ca=ca)
    assert hosts.choose({"tlsverify": True, "tlscert": "c"}, environ).tls == Tls(ca=ca, cert="c")


def test_headers_and_version(store: ContextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path(store.directory) / "config.json").write_text('{"HttpHeaders": {"X-A": "1"}}')
    assert hosts.endpoint(hosts.Choice("tcp://a"), {}).headers == {"X-A": "1"}
    monkeypatch.setenv("DOCKER_CUSTOM_HEADERS", 'X-B=2,"X-C=3,4"')
    monkeypatch.setenv("DOCKER_API_VERSION", "1.40")
    endpoint = hosts.endpoint(hosts.Choice("a"), {})
    assert (endpoint.host, endpoint.api_version) == ("tcp://a", "1.40")
    assert endpoint.headers == {"X-B": "2", "X-C": "3,4"}


def test_contexts_are_dockers_files(store: ContextStore, dockp: Callable[..., Outcome]) -> None:
    done = dockp("context", "create", "new", "--docker", "host=tcp://x:1,skip-tls-verify=true", "--description", "d")
    assert (done.code, done.out, done.err) == (0, "new\n", 'Successfully created context "new"\n')
    document = json.loads((Path(store.metadata_path("new")) / "meta.json").read_text())
    assert document == {
        "Name": "new",
        "Metadata": {"Description": "d"},
        "Endpoints": {"docker": {"Host": "tcp://x:1", "SkipTLSVerify": True}},
    }
    assert dockp("context", "use", "new").err == 'Current context is now "new"\n'
    assert json.loads((Path(store.directory) / "config.json").read_text()) == {"currentContext": "new"}
    assert dockp("context", "show").out == "new\n"
    assert [line.split()[:2] for line in dockp("context", "ls").out.splitlines()] == [
        ["NAME", "DESCRIPTION"],
        ["default", "Current"],
        ["far", "the"],
        ["new", "*"],
        ["safe", "tcp://safe:2376"],
    ]
    assert dockp("context", "ls", "-q").out == "default\nfar\nnew\nsafe\n"
    assert dockp("context", "inspect", "-f", "{{.TLSMaterial}} {{.Name}}", "safe").out == "map[docker:[ca.pem]] safe\n"
    assert 'context "new" is in use, set -f flag to force remove' in dockp("context", "rm", "new").err
    assert dockp("context", "rm", "-f", "new").out == "new\n"
    assert dockp("context", "show").out == "default\n"


def test_what_is_wrong_with_a_context_is_said_as_docker_says_it(
    store: ContextStore, dockp: Callable[..., Outcome]
) -> None:
    assert 'context "far" already exists' in dockp("context", "create", "far", "--docker", "host=tcp://x").err
    assert "is invalid, names are validated against regexp" in dockp("context", "create", "a/b").err
    assert "context not found" in dockp("context", "use", "nosuch").err
    assert 'context "default" cannot be removed' in dockp("context", "rm", "default").err
    assert dockp("context", "update", "far", "--description", "small").code == 0
    assert store.get("far").description == "small"
    assert store.get("far").host == "ssh://far"
