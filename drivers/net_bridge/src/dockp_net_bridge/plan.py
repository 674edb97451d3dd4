"""From values to packet rules: pure functions, no I/O.

One table, ``inet dockp``, whose chains never change: whatever differs between networks, endpoints and ports is an
element of a set or map, so that a packet costs the same however many there are, and a change is a few elements in one
transaction. Each element carries the id of its network as comment: that is how the driver, which keeps no database,
knows its own, and how two processes working on different networks never touch each other's.

The path of a packet::

    raw          what claims to be for 127/8 but did not come from this host is dropped: ports published on the
                 loopback address must not be reachable from outside (nor from containers), although the bridges
                 route 127/8 to let the host reach its containers through it
    prerouting   to an address of this host, and published: gets the container's address instead
    output       the same for what the host itself sends; but not to ::1, since IPv6 packets from there cannot leave
                 the host (there is no route_localnet for IPv6), and who tries is better refused than kept waiting
    forward      into a bridge only: answers, and what was published. Between bridges, and from or to an internal
                 network: nothing. Everything is judged here by our own policy; the host's own tables are asked
                 too, since an accept in one table is no accept in another (nft(8), "VERDICT STATEMENTS")
    postrouting  what leaves a network takes the host's address; so does what comes back to its own bridge (hairpin),
                 since the answer would else bypass this host and arrive from an unexpected address, and what the host
                 sent from its loopback address
"""

from __future__ import annotations

import re
import socket
import sys
import zlib
from collections.abc import Container, Iterable, Sequence
from ipaddress import ip_network

from attrs import frozen

from dockp.linux.conntrack import Flow
from dockp.linux.nft import Change, Element, interface_key, pad
from dockp.spi.network import Network, Publication
from dockp_net_bridge.options import BridgeOptions

TABLE = "dockp"
MAPS = ("ports4", "ports4_at", "ports6", "ports6_at")
"""Published ports on every address of the host, and on one, by family."""
SETS = ("bridges", "internal", "nat4", "nat6", "same", "inside4", "inside6")

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}

_OBJECTS = """
add table inet dockp
add set inet dockp layout { type mark; }
add set inet dockp bridges { type ifname; }
add set inet dockp internal { type ifname; }
add set inet dockp nat4 { type ifname; }
add set inet dockp nat6 { type ifname; }
add set inet dockp same { type ifname . ifname; }
add set inet dockp inside4 { type ipv4_addr . ifname; flags interval; }
add set inet dockp inside6 { type ipv6_addr . ifname; flags interval; }
add map inet dockp ports4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet dockp ports4_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet dockp ports6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
add map inet dockp ports6_at { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
add chain inet dockp published
add chain inet dockp inward
add chain inet dockp raw { type filter hook prerouting priority raw; policy accept; }
add chain inet dockp prerouting { type nat hook prerouting priority dstnat; policy accept; }
add chain inet dockp output { type nat hook output priority -100; policy accept; }
add chain inet dockp forward { type filter hook forward priority filter; policy accept; }
add chain inet dockp postrouting { type nat hook postrouting priority srcnat; policy accept; }
flush table inet dockp
"""
_RULES = """
add rule inet dockp published dnat ip to ip daddr . meta l4proto . th dport map @ports4_at
add rule inet dockp published dnat ip to meta l4proto . th dport map @ports4
add rule inet dockp published dnat ip6 to ip6 daddr . meta l4proto . th dport map @ports6_at
add rule inet dockp published dnat ip6 to meta l4proto . th dport map @ports6
add rule inet dockp inward ct state established,related accept
add rule inet dockp inward ct status dnat accept
add rule inet dockp inward drop
add rule inet dockp raw iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule inet dockp prerouting fib daddr type local goto published
add rule inet dockp output ip6 daddr ::1 return
add rule inet dockp output fib daddr type local goto published
add rule inet dockp forward iifname . oifname @same accept
add rule inet dockp forward oifname @internal drop
add rule inet dockp forward iifname @internal drop
add rule inet dockp forward oifname @bridges goto inward
add rule inet dockp postrouting ip saddr . oifname @inside4 ct status dnat masquerade
add rule inet dockp postrouting ip6 saddr . oifname @inside6 ct status dnat masquerade
add rule inet dockp postrouting oifname @bridges ip saddr 127.0.0.0/8 ct status dnat masquerade
add rule inet dockp postrouting iifname @nat4 oifname != @bridges meta nfproto ipv4 masquerade
add rule inet dockp postrouting iifname @nat6 oifname != @bridges meta nfproto ipv6 masquerade
"""
LAYOUT = zlib.crc32((_OBJECTS + _RULES).encode())
"""Names this very set of rules; an element of the set ``layout`` says which one the kernel holds."""


@frozen(kw_only=True)
class Membership:
    """A network's entry in one of `SETS`: as nft text, and as the kernel keeps it."""

    set: str
    text: str
    element: Element


def memberships(network: Network, options: BridgeOptions) -> list[Membership]:
    """The sets that the network's bridge and subnets belong to."""
    link = options.link
    key = interface_key(link)
    found = [_membership("bridges", link), _membership("same", link, link)]
    if network.internal:
        found.append(_membership("internal", link))
    for pool in network.pools:
        subnet = ip_network(pool.subnet)
        family = "6" if subnet.version == 6 else "4"
        if options.masquerade and not network.internal and all(m.set != f"nat{family}" for m in found):
            found.append(_membership(f"nat{family}", link))
        # By address, not by incoming link: where the host passes bridged frames to its IP rules, what is sent
        # from one bridge port to another has no incoming link any more when it gets there.
        first, last = subnet.network_address.packed, subnet.broadcast_address.packed
        element = Element(first + key, end=last + key)
        found.append(Membership(set=f"inside{family}", text=f'{subnet} . "{link}"', element=element))
    return found


def _membership(set_name: str, *links: str) -> Membership:
    text = " . ".join(f'"{link}"' for link in links)
    return Membership(set=set_name, text=text, element=Element(b"".join(map(interface_key, links))))


def table_commands(network: Network, options: BridgeOptions) -> str:
    """Commands that make the table, put its rules in place and enter the network: one transaction, which leaves the
    elements of other networks alone and may be run again at any time."""
    lines = [_OBJECTS.strip(), _RULES.strip(), "flush set inet dockp layout"]
    lines.append(f"add element inet dockp layout {{ {LAYOUT:#010x} }}")
    for member in memberships(network, options):
        lines.append(f'add element inet dockp {member.set} {{ {member.text} comment "{network.id}" }}')
    return "\n".join(lines) + "\n"


def present(network: Network, options: BridgeOptions) -> tuple[list[tuple[str, Element]], list[tuple[str, int]]]:
    """What must be there when `table_commands` need not run: elements with their sets, and chains with the number of
    their rules and of the rules that lead to them."""
    elements = [("layout", Element(LAYOUT.to_bytes(4, sys.byteorder)))]
    elements += [(member.set, member.element) for member in memberships(network, options)]
    uses: dict[str, int] = {}
    for chain, rule in re.findall(r"^add rule inet dockp (\w+) (.*)$", _RULES, re.MULTILINE):
        uses[chain] = uses.get(chain, 0) + 1
        target = re.search(r"goto (\w+)", rule)
        if target:
            uses[target[1]] = uses.get(target[1], 0) + 1
    return elements, sorted(uses.items())


def _port(number: int) -> bytes:
    return pad(number.to_bytes(2, "big"))


def publication_element(publication: Publication, comment: str) -> tuple[str, Element]:
    """The map and the element that publish one port. Raises: ValueError or OSError when malformed."""
    six = ":" in publication.address
    family = socket.AF_INET6 if six else socket.AF_INET
    if (":" in publication.host_ip) != six:
        raise ValueError(f"host address {publication.host_ip} and {publication.address} are of different families")
    host = socket.inet_pton(family, publication.host_ip)
    key = pad(bytes([_PROTOCOLS[publication.protocol]])) + _port(publication.host_port)
    name = "ports6" if six else "ports4"
    if any(host):
        name, key = f"{name}_at", host + key
    data = socket.inet_pton(family, publication.address) + _port(publication.container_port)
    return name, Element(key, data, comment)


def publication_of(map_name: str, element: Element) -> Publication:
    """The inverse of `publication_element`. Raises: ValueError or KeyError for an element that is none of ours."""
    family, size = (socket.AF_INET6, 16) if map_name.startswith("ports6") else (socket.AF_INET, 4)
    host = element.key[:size] if map_name.endswith("_at") else bytes(size)
    rest = element.key[size:] if map_name.endswith("_at") else element.key
    return Publication(
        protocol=_PROTOCOL_NAMES[rest[0]],
        host_ip=socket.inet_ntop(family, host),
        host_port=int.from_bytes(rest[4:6], "big"),
        address=socket.inet_ntop(family, element.data[:size]),
        container_port=int.from_bytes(element.data[size : size + 2], "big"),
    )


def publication_changes(
    present: Iterable[tuple[str, Element]], wanted: Sequence[Publication], comment: str
) -> list[Change]:
    """The changes that turn ``present`` (pairs of map and element, all of one network) into ``wanted``."""
    old = {(name, element.key): element for name, element in present}
    new = {(name, element.key): element for name, element in (publication_element(p, comment) for p in wanted)}
    changes = []
    for name in MAPS:
        delete = [e for (n, key), e in old.items() if n == name and _differs(e, new.get((n, key)))]
        add = [e for (n, key), e in new.items() if n == name and _differs(e, old.get((n, key)))]
        if delete or add:
            changes.append(Change(name, delete=delete, add=add))
    return changes


def _differs(one: Element, other: Element | None) -> bool:
    return other is None or one.data != other.data


def outdated(flow: Flow, removed: Iterable[Publication], added: Iterable[Publication], local: Container[str]) -> bool:
    """True for a flow without end (UDP) whose translation, or lack of one, is no longer what is published.

    Args: local: the host's own addresses.
    """
    if flow.protocol != socket.IPPROTO_UDP:
        return False
    for old in removed:
        if (flow.destination_port, flow.answerer, flow.answerer_port) == (
            old.host_port,
            old.address,
            old.container_port,
        ):
            return True
    untranslated = flow.destination == flow.answerer and flow.destination in local
    return untranslated and any(new.protocol == "udp" and new.host_port == flow.destination_port for new in added)


def needs_loopback_routing(publications: Iterable[Publication]) -> bool:
    """True when a published port shall answer on an IPv4 loopback address of the host."""
    return any(p.host_ip == "0.0.0.0" or p.host_ip.startswith("127.") for p in publications)


def endpoint_link(endpoint: str) -> str:
    """The name of an endpoint's link on the host: 13 of the 15 characters that a link's name may have."""
    return "dk" + endpoint[:11]


def bridge_mac(network: str) -> str:
    """A hardware address for a network's bridge: locally administered, the same after every reboot."""
    return ":".join(("02", "42", *(network[start : start + 2] for start in range(0, 8, 2))))
