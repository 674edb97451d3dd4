"""Where registries are: mirrors, insecure ones, certificates, proxies."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from dockp.config import Config
from dockp.images.registry import endpoints as places
from dockp.images.registry.endpoints import (
    check_insecure,
    endpoints,
    is_insecure,
    mirrors_of,
    parse_mirror,
    proxies_of,
    proxy_for,
    settings_of,
    tls_context,
)
from dockp.spi.errors import InvalidArgument
from dockp.spi.images import RegistrySettings


def test_docker_hub_lives_elsewhere_and_its_mirrors_come_first() -> None:
    settings = RegistrySettings(mirrors={"docker.io": ["https://m.example/pre", "http://127.0.0.1:1"]})
    found = endpoints("docker.io", settings)
    assert [(place.url, place.verified, place.mirror) for place in found] == [
        ("https://m.example/pre", True, True),
        ("http://127.0.0.1:1", False, True),
        ("https://registry-1.docker.io", True, False),
    ]
    assert [place.url for place in endpoints("docker.io", settings, mirrors=False)] == ["https://registry-1.docker.io"]
    assert [place.url for place in endpoints("ghcr.io", settings)] == ["https://ghcr.io"]


def test_loopback_and_what_is_named_may_be_without_tls() -> None:
    settings = RegistrySettings(insecure=["plain.example:5000", "10.0.0.0/8"])
    for domain in ("127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "plain.example:5000", "10.1.2.3"):
        found = endpoints(domain, settings)
        assert [(place.url, place.verified) for place in found] == [
            (f"https://{domain}", False),
            (f"http://{domain}", False),
        ]
    for domain in ("plain.example", "11.0.0.1", "docker.io"):
        assert [place.verified for place in endpoints(domain, settings)] == [True]


def test_a_name_is_insecure_when_one_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(name: str, *rest: Any, **more: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, 0)) for address in {"a.example": ["8.8.8.8", "10.0.0.9"]}.get(name, [])]

    monkeypatch.setattr(places.socket, "getaddrinfo", look_up)
    assert is_insecure("a.example:5000", ["10.0.0.0/8"])
    assert not is_insecure("a.example:5000", ["11.0.0.0/8"])
    assert not is_insecure("b.example", ["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("m.example", "no scheme specified for \"m.example\": must use either 'https://' or 'http://'"),
        ("host:5000", 'no scheme specified for "host:5000"'),
        ("ftp://m.example", 'unsupported scheme "ftp" in "ftp://m.example"'),
        ("https://u:geheim@m.example/", 'username/password not allowed in URI "https://u:xxxxx@m.example/"'),
        ("https://m.example/?a=b", 'query or fragment at end of the URI "https://m.example/?a=b"'),
        ("https://m.example/#x", "query or fragment at end of the URI"),
        ("https://", 'invalid mirror: "https://" is not a valid URI'),
        ("https://m.example:x/", "is not a valid URI"),
    ],
)
def test_bad_mirrors_are_refused_in_dockers_words(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_mirror(text)
    assert str(caught.value).startswith("invalid mirror: ")
    assert complaint in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_mirrors_are_docker_hubs_unless_they_name_another_registry() -> None:
    assert mirrors_of(["https://a.example/", "ghcr.io=https://b.example", "https://a.example", "http://c:1/x"]) == {
        "docker.io": ["https://a.example", "http://c:1/x"],
        "ghcr.io": ["https://b.example"],
    }


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("-x", r"invalid index name \(-x\). Cannot begin or end with a hyphen"),
        ("ftp://x", "insecure registry ftp://x should not contain '://'"),
        ("a b", 'insecure registry a b is not valid: invalid host "a b"'),
        ("a:70000", 'insecure registry a:70000 is not valid: invalid port "70000"'),
    ],
)
def test_bad_insecure_registries_are_refused_in_dockers_words(word: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=complaint):
        check_insecure([word])


def test_settings_come_from_the_configuration() -> None:
    flags = {"registry_mirrors": ["https://m.example/"], "insecure_registries": ["http://a:1", "10.0.0.0/8", "[::2]:5"]}
    settings = settings_of(Config.load(flags, {}))
    assert settings.mirrors == {"docker.io": ["https://m.example"]}
    assert is_insecure("a:1", settings.insecure)


def test_proxies_are_shown_without_their_passwords() -> None:
    settings = settings_of(Config.load({"https_proxy": "http://me:geheim@p:1/"}, {}))
    shown = proxies_of(settings, {"http_proxy": "u:p@q", "HTTPS_PROXY": "http://other", "NO_PROXY": "a,b"})
    assert shown == {"HTTP_PROXY": "xxxxx:xxxxx@q", "HTTPS_PROXY": "http://xxxxx:xxxxx@p:1/", "NO_PROXY": "a,b"}


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://a.example/v2/", {}, ""),
        ("https://a.example/v2/", {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ("https://a.example/v2/", {"https_proxy": "p:3128"}, "http://p:3128"),
        ("https://a.example/v2/", {"HTTP_PROXY": "http://p:3128"}, ""),
        ("http://a.example/v2/", {"HTTP_PROXY": "http://p:3128"}, "http://p:3128"),
        ("http://127.0.0.1:5000/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://localhost:5000/", {"HTTP_PROXY": "http://p"}, ""),
        ("http://[::1]:5000/", {"HTTP_PROXY": "http://p"}, ""),
        ("https://a.example/", {"HTTPS_PROXY": "p", "NO_PROXY": "*"}, ""),
        ("https://a.example/", {"HTTPS_PROXY": "p", "NO_PROXY": "b.example, a.example"}, ""),
        ("https://x.a.example/", {"HTTPS_PROXY": "p", "NO_PROXY": "a.example"}, ""),
        ("https://x.a.example/", {"HTTPS_PROXY": "p", "no_proxy": ".a.example"}, ""),
        ("https://x.a.example/", {"HTTPS_PROXY": "p", "no_proxy": "*.a.example"}, ""),
        ("https://a.example/", {"HTTPS_PROXY": "p", "NO_PROXY": ".a.example"}, "http://p"),
        ("https://xa.example/", {"HTTPS_PROXY": "p", "NO_PROXY": "a.example"}, "http://p"),
        ("https://a.example/", {"HTTPS_PROXY": "p", "NO_PROXY": "a.example:5000"}, "http://p"),
        ("https://a.example:5000/", {"HTTPS_PROXY": "p", "NO_PROXY": "a.example:5000"}, ""),
        ("https://10.1.2.3/", {"HTTPS_PROXY": "p", "NO_PROXY": "10.0.0.0/8"}, ""),
        ("https://10.1.2.3/", {"HTTPS_PROXY": "p", "NO_PROXY": "10.1.2.3"}, ""),
        ("https://11.1.2.3/", {"HTTPS_PROXY": "p", "NO_PROXY": "10.0.0.0/8,,"}, "http://p"),
        ("https://[2001:db8::1]/", {"HTTPS_PROXY": "p", "NO_PROXY": "2001:db8::1"}, ""),
    ],
)
def test_proxies_are_chosen_as_go_programs_choose_them(url: str, environ: dict[str, str], proxy: str) -> None:
    assert proxy_for(url, environ) == proxy


def test_certificates_come_from_the_folder_of_the_host(authority: Any, tmp_path: Path) -> None:
    top = authority.certs_d(tmp_path, "a.example:5000", "ca.crt", "client.cert", "client.key")
    settings = RegistrySettings(certificates=[str(top)])
    (place,) = endpoints("a.example:5000", settings)
    context = tls_context(place.folders, verified=place.verified, client=True)
    assert any(
        dict(item[0] for item in found["subject"]).get("commonName") == "test authority"
        for found in context.get_ca_certs()
    )
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    (other,) = endpoints("a.example", settings)
    assert tls_context(other.folders, verified=False, client=True).verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (
            {"client.cert": "x"},
            r"missing key client.key for client certificate client.cert. CA certificates must use the",
        ),
        ({"client.key": "x"}, "missing client certificate client.cert for key client.key"),
        ({"ca.crt": "rubbish"}, "cannot use the certificate .*/ca.crt"),
        ({"client.cert": "x", "client.key": "y"}, "cannot use the certificate .*/client.cert"),
    ],
)
def test_certificates_that_make_no_sense_are_refused(files: dict[str, str], complaint: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidArgument, match=complaint):
        tls_context([str(tmp_path)], verified=True, client=True)
