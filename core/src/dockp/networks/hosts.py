"""The contents of a container's /etc/hosts, /etc/resolv.conf and /etc/hostname: pure text. hosts(5), resolv.conf(5)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from attrs import field, frozen

from dockp.spi.errors import InvalidArgument

HOST_GATEWAY = "host-gateway"
"""In ``--add-host NAME:host-gateway``: the host's address on the default bridge."""

_LOCALHOST4 = ("127.0.0.1\tlocalhost",)
_LOCALHOST6 = (
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::\tip6-localnet",
    "ff00::\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)
_FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
"""What Docker gives a container whose host names no resolver that the container could reach."""


def hosts(
    *,
    addresses: Sequence[str],
    hostname: str,
    domainname: str = "",
    extra: Iterable[str] = (),
    gateway: str = "",
    base: str | None = None,
) -> str:
    """The hosts file.

    Args: addresses: the container's own, without prefix length. extra: ``--add-host`` values, ``NAME:ADDRESS``.
    gateway: what `HOST_GATEWAY` stands for. base: the host's own file, which a container in the host's network gets.
    Raises: InvalidArgument for a malformed extra host.
    """
    lines = list(_LOCALHOST4 + _LOCALHOST6) if base is None else base.rstrip("\n").splitlines()
    for item in extra:
        name, address = parse_extra_host(item)
        if address == HOST_GATEWAY:
            if not gateway:
                raise InvalidArgument(f"unable to derive the IP value for host-gateway in --add-host {item}")
            address = gateway
        lines.append(f"{address}\t{name}")
    if hostname:
        short = hostname.partition(".")[0]
        full = f"{hostname}.{domainname}" if domainname else hostname
        names = full if full == short else f"{full} {short if not domainname else hostname}"
        lines += [f"{address}\t{names}" for address in addresses]
    return "\n".join(lines) + "\n"


def parse_extra_host(text: str) -> tuple[str, str]:
    """``NAME:ADDRESS`` or ``NAME=ADDRESS``; IPv6 addresses may stand in brackets. Raises: InvalidArgument."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name:
        raise InvalidArgument(f'bad format for add-host: "{text}"')
    if address == HOST_GATEWAY:
        return name, address
    address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None
    return name, address


@frozen(kw_only=True)
class Resolver:
    """A resolv.conf taken apart."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    other: tuple[str, ...] = field(default=())

    @classmethod
    def parse(cls, text: str) -> Resolver:
        """Comments are dropped; of several ``search`` or ``domain`` lines the last counts, as the library does it."""
        servers: list[str] = []
        search: list[str] = []
        options: list[str] = []
        other: list[str] = []
        for line in text.splitlines():
            words = line.split("#")[0].split(";")[0].split()
            if not words:
                continue
            if words[0] == "nameserver" and len(words) > 1:
                servers.append(words[1])
            elif words[0] in ("search", "domain"):
                search = words[1:]
            elif words[0] == "options":
                options += words[1:]
            else:
                other.append(" ".join(words))
        return cls(servers=tuple(servers), search=tuple(search), options=tuple(options), other=tuple(other))


def resolv_conf(
    host_text: str,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    own_loopback: bool = True,
) -> str:
    """The resolv.conf of a container: the host's, with what ``--dns``, ``--dns-search``, ``--dns-option`` replace.

    Args: own_loopback: the container has a loopback interface of its own, where the host's local resolver (127/8, ::1)
    does not answer: such servers are left out, and Docker's fall-backs take their place when none is left. A search
    list of just ``.`` means none.
    Raises: InvalidArgument for a malformed server.
    """
    found = Resolver.parse(host_text)
    chosen = tuple(servers) or found.servers
    for server in servers:
        try:
            ipaddress.ip_address(server)
        except ValueError:
            raise InvalidArgument(f"bad nameserver address: {server} is not an IP address") from None
    if own_loopback and not servers:
        chosen = tuple(server for server in chosen if not _is_loopback(server)) or _FALLBACK_SERVERS
    domains = tuple(search) or found.search
    lines = [f"nameserver {server}" for server in chosen]
    if domains and domains != (".",):
        lines.append("search " + " ".join(domains))
    wanted = tuple(options) or found.options
    if wanted:
        lines.append("options " + " ".join(wanted))
    return "\n".join((*lines, *found.other)) + "\n"


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_stub(text: str) -> bool:
    """True when the only server is systemd-resolved's stub, whose real servers stand in another file
    (systemd-resolved.service(8), "/etc/resolv.conf")."""
    return Resolver.parse(text).servers == ("127.0.0.53",)
