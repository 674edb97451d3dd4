"""Debian's docker-registry, filled by skopeo: plain, with TLS of an own authority, with a password."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dockp.images.documents import DOCKER_MANIFEST, OCI_MANIFEST, Manifest, parse_manifest
from dockp.images.registry.login import login
from dockp.images.registry.source import RegistrySource
from dockp.spi.errors import NotFound, Unauthorized, Unavailable
from dockp.spi.images import Credentials, RegistrySettings, SourceContext
from dockp.spi.values import Platform

WHO = Credentials(username="tester", password="secret words")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of two layers, by umoci."""
    top = tmp_path_factory.mktemp("layout")
    path = top / "layout"
    (top / "big").write_bytes(hashlib.shake_256(b"seed").digest(3_000_000))
    (top / "small").write_text("hello")
    for words in (
        ("init", "--layout", path),
        ("new", "--image", f"{path}:x"),
        ("insert", "--image", f"{path}:x", top / "big", "/big"),
        ("insert", "--image", f"{path}:x", top / "small", "/small"),
    ):
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True)
    return path


@pytest.fixture
def source() -> Iterator[Callable[..., RegistrySource]]:
    made = []

    def make(credentials: Credentials = Credentials(), certificates: Path | None = None) -> RegistrySource:  # noqa: B008
        settings = RegistrySettings(stall_timeout=5, certificates=[str(certificates)] if certificates else [])
        context = SourceContext(
            scratch="/nonexistent", progress=lambda *words: None, registries=settings, credentials=credentials
        )
        made.append(RegistrySource(context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pull(source: RegistrySource, name: str) -> tuple[str, list[bytes]]:
    """The manifest's digest, and the bytes of config and layers, each checked."""
    descriptor = source.resolve(name, Platform())
    data = source.fetch(descriptor).read()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor.digest
    manifest = parse_manifest(data, descriptor.media_type)
    assert isinstance(manifest, Manifest)
    blobs = []
    for blob in (manifest.config, *manifest.layers):
        with source.fetch(blob) as stream:
            blobs.append(b"".join(iter(lambda stream=stream: stream.read(1 << 16), b"")))  # type: ignore[misc]
        assert f"sha256:{hashlib.sha256(blobs[-1]).hexdigest()}" == blob.digest
        with source.fetch(blob, blob.size // 2) as stream:
            assert stream.read(-1) == blobs[-1][blob.size // 2 :]
    return descriptor.digest, blobs


def digest_in(layout: Path) -> str:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    return str(entry["digest"])


def test_what_skopeo_put_there_arrives_byte_for_byte(source: Any, start_registry: Any, layout: Path) -> None:
    registry = start_registry()
    registry.push(layout, "deep/er/name:1")
    registry.push(layout, "deep/er/name:2")
    digest, blobs = pull(source(), f"{registry.address}/deep/er/name:1")
    assert digest == digest_in(layout)
    assert [len(blobs), max(map(len, blobs)) > 3_000_000] == [3, True]
    assert pull(source(), f"{registry.address}/deep/er/name@{digest}")[0] == digest
    assert sorted(source().tags(f"{registry.address}/deep/er/name")) == ["1", "2"]
    one = source()
    assert one.referrers(one.resolve(f"{registry.address}/deep/er/name:1", Platform())) == []


def test_schema_2_comes_as_schema_2(source: Any, start_registry: Any, layout: Path) -> None:
    registry = start_registry()
    subprocess.run(
        [
            *("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--format=v2s2"),
            *(f"oci:{layout}:x", f"docker://{registry.address}/a:1"),
        ],
        check=True,
    )
    descriptor = source().resolve(f"{registry.address}/a:1", Platform())
    assert descriptor.media_type == DOCKER_MANIFEST
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.address}/a:1"],
        check=True,
        capture_output=True,
    ).stdout
    assert descriptor.digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert pull(source(), f"{registry.address}/a:1")[0] == descriptor.digest


def test_what_is_not_there_is_told_in_dockers_words(source: Any, start_registry: Any, layout: Path) -> None:
    registry = start_registry()
    registry.push(layout, "a:1")
    with pytest.raises(NotFound) as error:
        source().resolve(f"{registry.address}/a:none", Platform())
    name = f"{registry.address}/a"
    assert str(error.value) == f"manifest for {name}:none not found: manifest unknown: manifest unknown"
    with pytest.raises(NotFound) as error:
        source().tags(f"{registry.address}/none")
    assert str(error.value) == (
        f"repository {registry.address}/none not found: name unknown: repository name not known to registry"
    )
    nothing = f"{name}@sha256:{'0' * 64}"
    with pytest.raises(NotFound) as error:
        source().resolve(nothing, Platform())
    assert str(error.value) == f"manifest for {nothing} not found: manifest unknown: manifest unknown"


def test_a_registry_with_tls_is_trusted_by_its_authority(
    source: Any, start_registry: Any, layout: Path, authority: Any, tmp_path: Path
) -> None:
    registry = start_registry(tls=True)
    registry.push(layout, "a:1")
    # Loopback needs no trust.
    assert pull(source(), f"{registry.address}/a:1")[0] == digest_in(layout)
    top = authority.certs_d(tmp_path, registry.address, "ca.crt")
    assert pull(source(certificates=top), f"{registry.address}/a:1")[0] == digest_in(layout)


def test_a_certificate_that_nobody_vouches_for_is_refused(
    source: Any, start_registry: Any, layout: Path, authority: Any, tmp_path: Path, elsewhere: str
) -> None:
    registry = start_registry(tls=True, host=elsewhere)
    registry.push(layout, "a:1")
    with pytest.raises(Unavailable) as error:
        source().resolve(f"{registry.address}/a:1", Platform())
    assert str(error.value) == (
        f'Get "https://{registry.address}/v2/": tls: failed to verify certificate: '
        "x509: certificate signed by unknown authority"
    )
    top = authority.certs_d(tmp_path, registry.address, "ca.crt")
    assert pull(source(certificates=top), f"{registry.address}/a:1")[0] == digest_in(layout)
    plain = start_registry(host=elsewhere)
    with pytest.raises(Unavailable) as error:
        source().resolve(f"{plain.address}/a:1", Platform())
    assert str(error.value) == f'Get "https://{plain.address}/v2/": http: server gave HTTP response to HTTPS client'


def test_a_certificate_for_another_host_is_refused(
    source: Any, serve: Any, answer: Any, authority: Any, tmp_path: Path
) -> None:
    server = serve(lambda request: answer(), authority.server_context(), host="10.66.0.2")
    top = authority.certs_d(tmp_path, server.address, "ca.crt")
    with pytest.raises(Unavailable) as error:
        source(certificates=top).resolve(f"{server.address}/a", Platform())
    assert str(error.value) == (
        f'Get "https://{server.address}/v2/": tls: failed to verify certificate: '
        "x509: certificate is not valid for 10.66.0.2"
    )


def test_a_client_shows_its_certificate_to_the_registry_alone(
    source: Any, serve: Any, answer: Any, authority: Any, tmp_path: Path, elsewhere: str
) -> None:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + "c" * 64, "size": 2}
    manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    sound = answer(body=manifest, headers={"Content-Type": OCI_MANIFEST})
    server = serve(lambda request: sound, authority.server_context(client=True), host=elsewhere)
    with pytest.raises(Unavailable):
        source(certificates=authority.certs_d(tmp_path / "1", server.address, "ca.crt")).resolve(
            f"{server.address}/a", Platform()
        )
    top = authority.certs_d(tmp_path / "2", server.address, "ca.crt", "client.cert", "client.key")
    assert source(certificates=top).resolve(f"{server.address}/a", Platform()).size == len(manifest)
    other = serve(lambda request: sound, authority.server_context(client=True), host=elsewhere)
    server.script = lambda request: answer(status=307, headers={"Location": f"https://{other.address}/x"})
    with pytest.raises(Unavailable):
        source(certificates=top).resolve(f"{server.address}/a", Platform())
    assert not other.asked


def test_tls_goes_through_a_proxy(
    source: Any,
    serve: Any,
    start_registry: Any,
    layout: Path,
    authority: Any,
    tmp_path: Path,
    elsewhere: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = start_registry(tls=True, host=elsewhere)
    registry.push(layout, "a:1")
    proxy = serve(lambda request: None)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:geheim@{proxy.address}")
    top = authority.certs_d(tmp_path, registry.address, "ca.crt")
    assert pull(source(certificates=top), f"{registry.address}/a:1")[0] == digest_in(layout)
    assert {request.path for request in proxy.asked} == {registry.address}
    assert {request.headers["proxy-authorization"] for request in proxy.asked} == {"Basic bWU6Z2VoZWlt"}
    with pytest.raises(Unavailable, match="certificate signed by unknown authority"):
        source().resolve(f"{registry.address}/a:1", Platform())
    monkeypatch.setenv("NO_PROXY", f"{elsewhere}/31")
    proxy.asked.clear()
    assert pull(source(certificates=top), f"{registry.address}/a:1")[0] == digest_in(layout)
    assert not proxy.asked


def test_a_password_is_asked_for_and_checked(source: Any, start_registry: Any, layout: Path) -> None:
    registry = start_registry(login=True)
    registry.push(layout, "a:1", login=True)
    assert pull(source(WHO), f"{registry.address}/a:1")[0] == digest_in(layout)
    with pytest.raises(Unauthorized) as error:
        source().resolve(f"{registry.address}/a:1", Platform())
    assert str(error.value) == f'Head "http://{registry.address}/v2/a/manifests/1": no basic auth credentials'
    wrong = Credentials(username="tester", password="wrong")
    with pytest.raises(Unauthorized, match=r"unauthorized: authentication required$"):
        source(wrong).resolve(f"{registry.address}/a:1", Platform())
    settings = RegistrySettings(stall_timeout=5)
    assert login(registry.address, WHO, settings) == ""
    with pytest.raises(Unauthorized) as error:
        login(registry.address, wrong, settings)
    assert str(error.value) == (f"login attempt to http://{registry.address}/v2/ failed with status: 401 Unauthorized")
