"""Where an engine listens and how to speak to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from dockp.spi.errors import InvalidArgument

DEFAULT_PORT, DEFAULT_TLS_PORT = 2375, 2376


@frozen(kw_only=True)
class Tls:
    """Files in PEM: the authority that signed the server's certificate, and the client's certificate and key ("" for
    none). Without ``verify`` any server will do."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True
    server_name: str = ""


@frozen(kw_only=True)
class Address:
    """A parsed host: ``path`` of a socket or remote path, else ``name`` and ``port`` (0 is ssh's own default)."""

    scheme: str
    path: str = ""
    name: str = ""
    port: int = 0
    user: str = ""

    @property
    def authority(self) -> str:
        """For the header ``Host``."""
        if self.scheme == "tcp":
            return f"{_bracketed(self.name)}:{self.port}"
        return "api.moby.localhost"


def parse_host(host: str, *, tls: bool = False) -> Address:
    """``unix://PATH``, ``tcp://NAME[:PORT]``, ``ssh://[USER@]NAME[:PORT][PATH]``; without a scheme it is tcp.

    Raises: InvalidArgument.
    """
    scheme, found, rest = host.strip().partition("://")
    if not found:
        scheme, rest = "tcp", host.strip()
    if scheme == "unix":
        return Address(scheme="unix", path=rest or "/var/run/docker.sock")
    if scheme in ("http", "https"):
        scheme, tls = "tcp", tls or scheme == "https"
    if scheme not in ("tcp", "ssh"):
        raise InvalidArgument(f"unable to parse docker host `{host}`: unsupported scheme {scheme}")
    authority, slash, path = rest.partition("/")
    user, _, place = authority.rpartition("@")
    name, port = _split_port(place, host)
    if scheme == "ssh":
        if ":" in user:
            raise InvalidArgument("ssh host connection is not valid: plain-text password is not supported")
        if not name or name.startswith("-") or user.startswith("-"):
            raise InvalidArgument("ssh host connection is not valid: no host specified")
        return Address(scheme="ssh", name=name, port=port, user=user, path=slash + path if path else "")
    if user or path:
        raise InvalidArgument(f"invalid bind address ({host}): should not contain a user or a path element")
    port = port or (DEFAULT_TLS_PORT if tls else DEFAULT_PORT)
    return Address(scheme="tcp", name=name or "localhost", port=port)


def _split_port(place: str, host: str) -> tuple[str, int]:
    name, port = place, ""
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    elif place.count(":") == 1:
        name, _, port = place.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidArgument(f"invalid bind address ({host}): invalid port {port}")
    return name, int(port or 0)


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


@frozen(kw_only=True)
class Endpoint:
    """An engine to speak to.

    Attributes:
        host: as for ``-H``. tls: None for plain sockets.
        headers: sent with every request. api_version: "" to agree on one with the server.
        ssh_options: further arguments of the command ssh.
    """

    host: str
    tls: Tls | None = None
    headers: Mapping[str, str] = field(factory=dict)
    api_version: str = ""
    ssh_options: Sequence[str] = ()

    @property
    def address(self) -> Address:
        """Raises: InvalidArgument."""
        return parse_host(self.host, tls=self.tls is not None)
