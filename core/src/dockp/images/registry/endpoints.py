"""Where a registry is: its mirrors, with or without TLS, what certificates it has, what proxy leads there.

The rules are Docker's: ``docker.io`` lives at another host; loopback and what ``insecure-registries`` names may be
without TLS or with any certificate; ``certs.d`` has a folder for each ``host[:port]`` with ``*.crt`` (authorities to
trust beside the system's), ``*.cert`` and ``*.key`` (the client's own).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import frozen

from dockp.images.reference import DEFAULT_DOMAIN
from dockp.spi.errors import InvalidArgument
from dockp.spi.images import RegistrySettings

if TYPE_CHECKING:
    import ssl

    from dockp.config import Config

_HUB = "registry-1.docker.io"
_HOST = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[a-fA-F0-9:]+\])(?::([0-9]+))?")
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@frozen(kw_only=True)
class Endpoint:
    """One place that answers for a registry.

    Attributes:
        url: what ``/v2/`` comes after. verified: whether a certificate has to be good.
        mirror: not the registry itself, so not for the caller's credentials, and only to pull from.
        folders: where certificates of this host are.
    """

    url: str
    verified: bool = True
    mirror: bool = False
    folders: Sequence[str] = ()


def settings_of(config: Config) -> RegistrySettings:
    """What an engine's configuration says of registries. Raises: InvalidArgument in Docker's words."""
    check_insecure(config.insecure_registries)
    proxies = {"HTTP_PROXY": config.http_proxy, "HTTPS_PROXY": config.https_proxy, "NO_PROXY": config.no_proxy}
    return RegistrySettings(
        mirrors=mirrors_of(config.registry_mirrors),
        insecure=config.insecure_registries,
        stall_timeout=config.registry_timeout,
        attempts=config.max_download_attempts,
        proxies={name: value for name, value in proxies.items() if value is not None},
    )


def proxies_of(settings: RegistrySettings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` that are in use, to be shown: without passwords."""
    whole = {**environ, **settings.proxies}
    return {name: _without_password(_either(whole, name)) for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}


def endpoints(domain: str, settings: RegistrySettings, *, mirrors: bool = True) -> list[Endpoint]:
    """The places to try for a registry, in this order. Raises: InvalidArgument for a setting that makes no sense."""
    found = []
    if mirrors:
        for mirror in settings.mirrors.get(domain, ()):
            url = parse_mirror(mirror)
            host = urlsplit(url).netloc
            found.append(
                Endpoint(
                    url=url,
                    verified=not is_insecure(host, settings.insecure),
                    mirror=True,
                    folders=_folders(host, settings),
                )
            )
    host = _HUB if domain == DEFAULT_DOMAIN else domain
    insecure = domain != DEFAULT_DOMAIN and is_insecure(host, settings.insecure)
    folders = _folders(host, settings)
    found.append(Endpoint(url=f"https://{host}", verified=not insecure, folders=folders))
    if insecure:
        found.append(Endpoint(url=f"http://{host}", verified=False))
    return found


def mirrors_of(words: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The setting ``registry-mirrors`` by registry: ``URL`` is a mirror of Docker Hub, ``ghcr.io=URL`` of another one.

    Raises: InvalidArgument in Docker's words.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, url = word.partition("=")
        if not equals or "://" in name:
            name, url = DEFAULT_DOMAIN, word
        url = parse_mirror(url)
        if url not in found.setdefault(name, []):
            found[name].append(url)
    return found


def parse_mirror(text: str) -> str:
    """A mirror's base URL without the slash at its end. Raises: InvalidArgument in Docker's words."""
    if not text.partition("://")[0] or "://" not in text:
        raise InvalidArgument(
            f"invalid mirror: no scheme specified for \"{text}\": must use either 'https://' or 'http://'"
        )
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        raise InvalidArgument(f'invalid mirror: "{text}" is not a valid URI') from None
    if url.username is not None or url.password is not None:
        shown = f"{url.scheme}://{url.username}:xxxxx@{url.netloc.rpartition('@')[2]}{url.path}"
        raise InvalidArgument(f'invalid mirror: username/password not allowed in URI "{shown}"')
    if url.scheme not in ("http", "https"):
        raise InvalidArgument(
            f"invalid mirror: unsupported scheme \"{url.scheme}\" in \"{text}\": must use either 'https://' or 'http://'"
        )
    if "?" in text or "#" in text:
        raise InvalidArgument(f'invalid mirror: query or fragment at end of the URI "{text}"')
    if not url.hostname:
        raise InvalidArgument(f'invalid mirror: "{text}" is not a valid URI')
    return text.rstrip("/")


def check_insecure(words: Sequence[str]) -> None:
    """Refuse what cannot be an entry of ``insecure-registries``. Raises: InvalidArgument in Docker's words."""
    for word in words:
        if word.startswith("-") or word.endswith("-"):
            raise InvalidArgument(f"invalid index name ({word}). Cannot begin or end with a hyphen")
        name = _without_scheme(word)
        if "://" in name:
            raise InvalidArgument(f"insecure registry {word} should not contain '://'")
        if _network(name) is not None:
            continue
        match = _HOST.fullmatch(name)
        if match is None:
            raise InvalidArgument(f'insecure registry {word} is not valid: invalid host "{name}"')
        if match[1] and int(match[1]) > 65535:
            raise InvalidArgument(f'insecure registry {word} is not valid: invalid port "{match[1]}"')


def is_insecure(host: str, entries: Sequence[str]) -> bool:
    """Whether ``host[:port]`` may be without TLS: it is named, or one of its addresses is in a network that is."""
    names = {_without_scheme(entry) for entry in entries}
    if host in names:
        return True
    networks = [*_LOOPBACK, *(network for name in names if (network := _network(name)) is not None)]
    return any(address in network for address in _addresses(host) for network in networks)


def tls_context(folders: Sequence[str], *, verified: bool, client: bool) -> ssl.SSLContext:
    """TLS as a registry's folders say. ``client``: show the client's certificate there, if there is one.

    Raises: InvalidArgument for files that do not fit together or cannot be read.
    """
    import ssl

    context = ssl.create_default_context()
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidArgument(f"reading certificates in {folder}: {error.strerror}") from None
        for name in names:
            path, (stem, kind) = os.path.join(folder, name), os.path.splitext(name)
            try:
                if kind == ".crt":
                    context.load_verify_locations(path)
                elif kind == ".cert":
                    if f"{stem}.key" not in names:
                        raise InvalidArgument(
                            f"missing key {stem}.key for client certificate {name}. "
                            "CA certificates must use the extension .crt"
                        )
                    if client:
                        context.load_cert_chain(path, os.path.join(folder, f"{stem}.key"), password=_no_password)
                elif kind == ".key" and f"{stem}.cert" not in names:
                    raise InvalidArgument(f"missing client certificate {stem}.cert for key {name}")
            except (OSError, ValueError) as error:
                reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
                raise InvalidArgument(f"cannot use the certificate {path}: {reason}") from None
    return context


def proxy_for(url: str, environ: Mapping[str, str]) -> str:
    """The proxy that leads to ``url`` by ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``, or "" for none.

    As Go's httpproxy has it: the names may be in lower case, loopback needs no proxy, and ``NO_PROXY`` lists hosts
    (with all below them), ``.domain``, ``host:port``, addresses, networks, or ``*``.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    proxy = _either(environ, f"{parts.scheme}_proxy".upper())
    if not proxy or host == "localhost":
        return ""
    address = _address(host)
    if address is not None and address.is_loopback:
        return ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for entry in _either(environ, "NO_PROXY").split(","):
        rule = entry.strip().lower()
        if not rule:
            continue
        if rule == "*":
            return ""
        network = _network(rule)
        if address is not None and network is not None and address in network:
            return ""
        name, colon, wanted = rule.rpartition(":")
        if colon and wanted.isdigit() and _address(rule) is None:
            if int(wanted) != port:
                continue
            rule = name.strip("[]")
        if rule.startswith("*."):
            rule = rule[1:]
        if host == rule or host.endswith(rule if rule.startswith(".") else f".{rule}"):
            return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _folders(host: str, settings: RegistrySettings) -> list[str]:
    return [os.path.join(top, host) for top in settings.certificates]


def _without_password(proxy: str) -> str:
    scheme, separator, rest = proxy.rpartition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}xxxxx:xxxxx@{host}" if at else proxy


def _either(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.lower()) or ""


def _without_scheme(entry: str) -> str:
    for scheme in ("http://", "https://"):
        if entry.lower().startswith(scheme):
            return entry[len(scheme) :]
    return entry


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    name = urlsplit(f"//{host}").hostname or ""
    literal = _address(name)
    if literal is not None:
        return [literal]
    found = []
    with contextlib.suppress(OSError, UnicodeError):
        for *_, place in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
            found.append(ipaddress.ip_address(str(place[0]).partition("%")[0]))
    return found


def _no_password() -> str:
    raise ValueError("its key is encrypted")
