"""Links, addresses and routes by rtnetlink(7): what a container start needs, and nothing else.

Functions that make `Request`s are pure; a `Netlink` socket of protocol ``NETLINK_ROUTE`` runs any number of them with
one system call. Numbers: linux/if_link.h, linux/rtnetlink.h, linux/if_addr.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from dockp.linux import netns
from dockp.linux.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Netlink,
    Request,
    attribute,
    attributes,
    nested,
    text_attribute,
    text_of,
)

IFF_UP = 0x1

_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_GETLINK = 18
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_RTM_NEWROUTE = 24
_RTM_GETROUTE = 26

_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_MASTER = 10
_IFLA_LINKINFO = 18
_IFLA_IFALIAS = 20
_IFLA_AF_SPEC = 26
_IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_INFO_SLAVE_KIND = 4
_IFLA_INFO_SLAVE_DATA = 5
_IFLA_BRPORT_MODE = 4
_IFLA_BRPORT_ISOLATED = 33
_IFLA_INET6_ADDR_GEN_MODE = 8
_ADDR_GEN_MODE_NONE = 1
_VETH_INFO_PEER = 1

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_BROADCAST = 4
_IFA_F_NODAD = 0x02

_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_TABLE = 15
_RT_TABLE_MAIN = 254
_RTPROT_BOOT = 3
_RT_SCOPE_UNIVERSE = 0
_RTN_UNICAST = 1

_INTERFACE = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg


class Link:
    """A network interface: its index and name, alias, index of its master or 0, kind (``"veth"``, ``"bridge"``, ""
    for hardware), hardware address, MTU in bytes, and whether it is set up."""

    __slots__ = ("alias", "index", "kind", "mac", "master", "mtu", "name", "up")

    def __init__(self, body: bytes) -> None:
        _, _, self.index, flags, _ = _INTERFACE.unpack_from(body)
        found = attributes(body[16:])
        self.name = text_of(found.get(_IFLA_IFNAME))
        self.alias = text_of(found.get(_IFLA_IFALIAS))
        self.master = _number(found.get(_IFLA_MASTER))
        self.mtu = _number(found.get(_IFLA_MTU))
        self.kind = text_of(attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND))
        self.mac = found.get(_IFLA_ADDRESS, b"").hex(":")
        self.up = bool(flags & IFF_UP)


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value and len(value) == 4 else 0


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _mac(kind: int, value: str) -> bytes:
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def has_ipv6() -> bool:
    """False where the kernel was built or started without IPv6; it then refuses IPv6 settings of links."""
    return os.path.exists("/proc/net/if_inet6")


def open_here() -> Netlink:
    """A routing socket in the calling thread's namespace."""
    return Netlink.open(NETLINK_ROUTE)


def open_in(sandbox: int) -> Netlink:
    """A routing socket in the namespace that the descriptor ``sandbox`` names."""
    return Netlink(netns.socket_in(sandbox, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))


def add_bridge(name: str, mac: str) -> Request:
    """Make a bridge. The hardware address is given, since a bridge without one takes over the lowest of its ports
    and changes it whenever a port comes or goes. An existing link of that name is success: look at its kind."""
    body = _INTERFACE.pack(0, 0, 0, 0, 0) + text_attribute(_IFLA_IFNAME, name) + _mac(_IFLA_ADDRESS, mac)
    body += nested(_IFLA_LINKINFO, text_attribute(_IFLA_INFO_KIND, "bridge"))
    return Request(f"make the bridge {name}", _RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL, ignore=(errno.EEXIST,))


def add_veth(name: str, *, master: int, mtu: int | None, peer: str, peer_mac: str, peer_namespace: int) -> Request:
    """Make a veth pair whose far end appears, still down, inside another namespace under its final name; the near end
    is up and a port of ``master`` (an index). Fails with EEXIST when either name is taken."""
    size = _u32(_IFLA_MTU, mtu) if mtu else b""
    far = _INTERFACE.pack(0, 0, 0, 0, 0) + text_attribute(_IFLA_IFNAME, peer) + _mac(_IFLA_ADDRESS, peer_mac) + size
    far += _u32(_IFLA_NET_NS_FD, peer_namespace)
    body = _INTERFACE.pack(0, 0, 0, IFF_UP, IFF_UP) + text_attribute(_IFLA_IFNAME, name) + size
    body += _u32(_IFLA_MASTER, master)
    body += nested(
        _IFLA_LINKINFO,
        text_attribute(_IFLA_INFO_KIND, "veth"),
        nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, far)),
    )
    return Request(f"make the link {name} with its end {peer}", _RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)


def change_link(
    name: str,
    *,
    up: bool = False,
    mtu: int | None = None,
    alias: str | None = None,
    link_local: bool = True,
    isolated: bool | None = None,
    hairpin: bool | None = None,
) -> Request:
    """Change an existing link, found by name.

    Args: link_local: False keeps the kernel from giving it an IPv6 address of its own accord. isolated, hairpin: bridge
    port flags: no frames to other isolated ports; frames may leave by the port they came from.
    """
    flags = IFF_UP if up else 0
    body = _INTERFACE.pack(0, 0, 0, flags, flags) + text_attribute(_IFLA_IFNAME, name)
    if mtu:
        body += _u32(_IFLA_MTU, mtu)
    if alias is not None:
        body += attribute(_IFLA_IFALIAS, alias.encode())
    if not link_local and has_ipv6():
        mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_MODE_NONE]))
        body += nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    port = b""
    if isolated is not None:
        port += attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated]))
    if hairpin is not None:
        port += attribute(_IFLA_BRPORT_MODE, bytes([hairpin]))
    if port:
        body += nested(
            _IFLA_LINKINFO,
            text_attribute(_IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(_IFLA_INFO_SLAVE_DATA, port),
        )
    return Request(f"set up the link {name}", _RTM_NEWLINK, body)


def delete_link(name: str) -> Request:
    """Remove a link; an absent one is success."""
    body = _INTERFACE.pack(0, 0, 0, 0, 0) + text_attribute(_IFLA_IFNAME, name)
    return Request(f"remove the link {name}", _RTM_DELLINK, body, ignore=(errno.ENODEV,))


def add_address(index: int, address: str) -> Request:
    """Give the link ``index`` an address in CIDR form; the same address again is success."""
    family, packed, prefix = parse_cidr(address)
    # No duplicate address detection: addresses are handed out by one hand, and a container must be able to use its
    # address from its first instruction.
    body = _ADDRESS.pack(family, prefix, _IFA_F_NODAD if family == socket.AF_INET6 else 0, 0, index)
    body += attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if family == socket.AF_INET and prefix < 31:
        hosts = (1 << 32 - prefix) - 1
        body += attribute(_IFA_BROADCAST, (int.from_bytes(packed) | hosts).to_bytes(4))
    return Request(f"add the address {address}", _RTM_NEWADDR, body, NLM_F_CREATE | NLM_F_REPLACE)


def add_default_route(index: int, gateway: str) -> Request:
    """The default route by way of ``gateway`` through the link ``index``; an existing one is replaced."""
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    body = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
    body += attribute(_RTA_GATEWAY, socket.inet_pton(family, gateway)) + _u32(_RTA_OIF, index)
    return Request(f"add the default route by way of {gateway}", _RTM_NEWROUTE, body, NLM_F_CREATE | NLM_F_REPLACE)


def parse_cidr(address: str) -> tuple[int, bytes, int]:
    """Family, packed address and prefix length of ``"10.0.0.1/8"``. Raises OSError or ValueError when malformed."""
    host, _, prefix = address.partition("/")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.inet_pton(family, host), int(prefix)


def get_link(name: str) -> Request:
    """Ask for a link; an absent one is success.

    Being asked makes the kernel act on a change of carrier at once (since 6.8; see ``rtnl_getlink`` in
    net/core/rtnetlink.c) that it would else act on in a while: until it did, a fresh link drops what is sent.
    """
    body = _INTERFACE.pack(0, 0, 0, 0, 0) + text_attribute(_IFLA_IFNAME, name)
    return Request(f"look for the link {name}", _RTM_GETLINK, body, ignore=(errno.ENODEV,))


def find_link(sock: Netlink, name: str) -> Link | None:
    """The link called ``name``, or None."""
    (answer,) = sock.run(get_link(name))
    return Link(answer.payloads[0]) if answer.payloads else None


def links(sock: Netlink) -> list[Link]:
    """Every link of the namespace."""
    request = Request("list the links", _RTM_GETLINK, _INTERFACE.pack(0, 0, 0, 0, 0))
    return [Link(body) for body in sock.dump(request)]


def addresses(sock: Netlink) -> list[tuple[int, str]]:
    """Pairs of link index and address in CIDR form, for every address of the namespace."""
    request = Request("list the addresses", _RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0))
    found = []
    for body in sock.dump(request):
        family, prefix, _, _, index = _ADDRESS.unpack_from(body)
        values = attributes(body[8:])
        packed = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
        if packed:
            found.append((index, f"{socket.inet_ntop(family, packed)}/{prefix}"))
    return found


def routed_subnets(sock: Netlink) -> list[str]:
    """Destinations of the main routing table in CIDR form, default routes left out."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = Request("list the routes", _RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        for body in sock.dump(request):
            _, prefix, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
            values = attributes(body[12:])
            table = _number(values.get(_RTA_TABLE)) or table
            destination = values.get(_RTA_DST)
            if table == _RT_TABLE_MAIN and kind == _RTN_UNICAST and destination:
                found.append(f"{socket.inet_ntop(family, destination)}/{prefix}")
    return found


def loopback_up(sandbox: int) -> None:
    """Bring ``lo`` up inside the namespace, as a container without a network needs it."""
    with open_in(sandbox) as sock:
        sock.run(change_link("lo", up=True))
